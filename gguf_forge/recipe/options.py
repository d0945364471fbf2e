"""What a user asks of a recipe, parsed and frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gguf_forge.errors import UsageError
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Value
from gguf_forge.recipe.file_types import FILE_TYPES, FileType
from gguf_forge.recipe.name_pattern import NamePattern
from gguf_forge.types.tensor_type import TensorType


@dataclass(frozen=True)
class TypeOverride:
    """`--tensor-type PATTERN=TYPE`: quantized tensors whose name matches get this type."""

    pattern: NamePattern
    type: TensorType

    def __str__(self) -> str:
        return f"{self.pattern.source}={self.type}"


@dataclass(frozen=True)
class KeyOverride:
    """`--override-kv KEY=TYPE:VALUE`: a metadata key set to a UINT32, FLOAT32, BOOL or STRING."""

    key: str
    value: Value


@dataclass(frozen=True)
class ImportanceMatrix:
    """An importance matrix: `importance[name]` holds `n_per_row` values for each matrix (expert) of tensor `name`.

    `file`, `datasets` and `chunks` are recorded in the output as provenance; `chunks` is 0 when unknown. `calls[name]`
    says how often each matrix of a tensor was used.
    """

    file: str
    importance: Mapping[str, npt.NDArray[np.float32]]
    datasets: tuple[str, ...] = ()
    chunks: int = 0
    calls: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def fits(self, info: TensorInfo) -> bool:
        """Is there one importance for each column of a tensor, in all its matrices together?"""
        n_matrices = info.shape[2] if len(info.shape) > 2 else 1
        return self.importance[info.name].size == info.n_per_row * n_matrices

    def selected(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> ImportanceMatrix:
        """Only the entries whose name contains one of `include`, or none of `exclude`.

        Raises:
            UsageError: both are given.
        """
        if include and exclude:
            raise UsageError("--include-weights and --exclude-weights cannot be used together")
        kept = {
            name: importance
            for name, importance in self.importance.items()
            if not any(part in name for part in exclude) and (not include or any(part in name for part in include))
        }
        return replace(self, importance=kept)


@dataclass(frozen=True)
class Options:
    """Everything that decides the types and the metadata of a quantized file.

    The names are those of llama-quantize's options. `tensor_types` are tried in order, the first match wins.
    `keep_order` keeps the order of the base file, as --keep-split does; the mixes count the tensors in it. `read_from`
    names the files that options were read from.
    """

    file_type: FileType = FILE_TYPES["Q4_K_M"]
    pure: bool = False
    leave_output_tensor: bool = False
    output_tensor_type: TensorType | None = None
    token_embedding_type: TensorType | None = None
    tensor_types: tuple[TypeOverride, ...] = ()
    key_overrides: tuple[KeyOverride, ...] = ()
    prune_layers: tuple[int, ...] = ()
    allow_requantize: bool = False
    keep_order: bool = False
    imatrix: ImportanceMatrix | None = None
    read_from: tuple[Path, ...] = ()

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that the options come from, which no output may replace."""
        return (*self.read_from, *([Path(self.imatrix.file)] if self.imatrix else ()))

    @property
    def has_imatrix(self) -> bool:
        """An importance matrix without entries (all were excluded) counts as none."""
        return self.imatrix is not None and bool(self.imatrix.importance)

    @property
    def in_use(self) -> tuple[str, ...]:
        """The options, as on the command line, that are set: those a file of the converter cannot honour."""
        flags = {
            "--pure": self.pure,
            "--leave-output-tensor": self.leave_output_tensor,
            "--output-tensor-type": self.output_tensor_type,
            "--token-embedding-type": self.token_embedding_type,
            "--tensor-type": self.tensor_types,
            "--override-kv": self.key_overrides,
            "--prune-layers": self.prune_layers,
            "--allow-requantize": self.allow_requantize,
            "--imatrix": self.imatrix,
        }
        return tuple(flag for flag, value in flags.items() if value)
