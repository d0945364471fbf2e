"""The site that a declaration is applied to: all that its functions may ask about a model and one of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gguf_forge.architectures.config import Config
from gguf_forge.errors import InputError, UsageError
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.storage.folder import Folder
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import Widened

# The parts of a model: the language model, and the projector with its encoders. Each becomes a file of its own.
Part: TypeAlias = Literal["text", "mmproj"]

# The most bytes of a tensor that planning reads. Planning must stay fast, whatever the size of the model.
PEEK_BYTES = 64 << 10
# A tensor that is compared or searched is read in pieces of COMPARED_BYTES. A comparison starts with _SAMPLED_ROWS rows
# that are spread over the tensor.
COMPARED_BYTES = 4 << 20
_SAMPLED_ROWS = 16


@dataclass(frozen=True)
class DraftTarget:
    """The model that a draft model predicts for.

    Attributes:
        config: Its config.json, with the text part's values at the top.
        folder: Its folder, which has the tokenizer of both models.
    """

    config: Config
    folder: Folder


@dataclass(frozen=True)
class Site:
    """A model, one of its parts, and perhaps one of its layers.

    Operations, metadata lines, drops and generated tensors all get a site, so that a number may depend on the layer,
    and a rule on a small file.

    Attributes:
        config: The model's parameters.
        folder: Its folder, for small files.
        part: The part of the model that the file is for.
        tensors: The checkpoint's logical tensors, by name, in the order of the reference's converter.
        block_count: How many layers the file has.
        layer: The layer of the current tensor; None if the tensor belongs to no layer.
        choices: Options of the conversion that declarations may ask for, such as "no_mtp".
        target: The model that this one is a draft for; None if the user did not name it.
        keys: On the way back from a GGUF file its keys, which tell what otherwise the checkpoint's tensors tell.

    Example:
        >>> from pathlib import Path
        >>> from gguf_forge.storage.local.folder import LocalFolder
        >>> Site(Config.of({"num_hidden_layers": 2}), LocalFolder(Path(".")), block_count=2).at(1).layer
        1
    """

    config: Config
    folder: Folder
    part: Part = "text"
    tensors: Mapping[str, TensorExpr] = field(default_factory=dict)
    block_count: int = 0
    layer: int | None = None
    choices: frozenset[str] = frozenset()
    target: DraftTarget | None = None
    keys: Metadata = field(default_factory=dict)

    def at(self, layer: int | None) -> Site:
        """The same model at one of its layers."""
        return replace(self, layer=layer)

    def named_target(self) -> DraftTarget:
        """The model that this one is a draft for.

        Raises:
            UsageError: the user did not name it.
        """
        if self.target is None:
            raise UsageError(
                "a draft model needs what its model has, the vocabulary above all",
                file=self.folder.path,
                hint="name the folder of its model with --target-model-dir",
            )
        return self.target

    def peek(self, name: str, most: int = PEEK_BYTES) -> NDArray[np.float32]:
        """The values of a small tensor that decides how the file is planned.

        Args:
            name: A logical tensor of the checkpoint.
            most: The most bytes that it may have.

        Raises:
            InputError: there is no such tensor, or it is larger.
        """
        expr = self._small(name, most)
        values: NDArray[np.float32] = expr.rows(0, expr.n_rows).astype(np.float32).reshape(expr.shape)
        return values

    def peek_integers(self, name: str, most: int = PEEK_BYTES) -> tuple[int, ...]:
        """The exact values of a small tensor of integers. Float32 would round large ones.

        Raises:
            InputError: there is no such tensor, it is larger, or not of integers.
        """
        expr = self._small(name, most)
        stored = expr.of if isinstance(expr, Widened) else expr
        values = stored.rows(0, stored.n_rows)
        if not np.issubdtype(values.dtype, np.integer) or not isinstance(expr, Widened):
            raise InputError("is not of integers", tensor=name)
        return tuple(map(int, values.reshape(-1)))

    def has_same_values(self, name: str, other: str) -> bool:
        """Whether two tensors of the checkpoint hold the same values.

        A few sampled rows are compared first, because they nearly always show that two tensors differ. Only equal
        tensors are read to the end, some rows at a time.
        """
        one, two = self._tensor(name), self._tensor(other)
        if one.shape != two.shape:
            return False
        step = max(1, COMPARED_BYTES // max(one.row_bytes, two.row_bytes, 1))
        samples = np.unique(np.linspace(0, one.n_rows - 1, min(step, _SAMPLED_ROWS)).astype(np.int64))
        parts = (np.arange(start, min(start + step, one.n_rows)) for start in range(0, one.n_rows, step))
        return all(np.array_equal(one.take(rows), two.take(rows)) for rows in (samples, *parts))

    def zero_rows(self, name: str, first: int) -> list[int]:
        """The numbers of the rows, from row `first` on, that hold only zeros."""
        expr = self._tensor(name)
        step = max(1, COMPARED_BYTES // max(expr.row_bytes, 1))
        parts = (np.arange(start, min(start + step, expr.n_rows)) for start in range(first, expr.n_rows, step))
        return [int(row) for rows in parts for row in rows[~expr.take(rows).any(axis=1)]]

    def _tensor(self, name: str) -> TensorExpr:
        expr = self.tensors.get(name)
        if expr is None:
            raise InputError("the checkpoint lacks this tensor", tensor=name, hint="is a shard missing?")
        return expr

    def _small(self, name: str, most: int) -> TensorExpr:
        expr = self._tensor(name)
        if expr.n_rows * expr.row_bytes > most:
            raise InputError(f"has {expr.n_rows * expr.row_bytes} bytes; at most {most} are looked at", tensor=name)
        return expr
