"""The options of a recipe, parsed and frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gguf_forge.gguf_file.values import Value
from gguf_forge.name_pattern import NamePattern
from gguf_forge.recipe.file_types import FILE_TYPES, FileType
from gguf_forge.recipe.importance.matrix import ImportanceMatrix
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
class Options:
    """Everything that decides the types and the metadata of a quantized file.

    The names are those of llama-quantize's options. `tensor_types` are tried in order, the first match wins.
    `uncovered_type` is given to tensors that need importance and have none in the matrix. `force` lets `key_overrides`
    set standard keys to what no reader takes. `keep_order` keeps the order of the base file, as --keep-split does; the
    mixes count the tensors in it. `read_from` names the files that options were read from. `as_reference` gives
    llama.cpp's bytes where llama.cpp is wrong.
    """

    file_type: FileType = FILE_TYPES["Q4_K_M"]
    pure: bool = False
    leave_output_tensor: bool = False
    output_tensor_type: TensorType | None = None
    token_embedding_type: TensorType | None = None
    tensor_types: tuple[TypeOverride, ...] = ()
    uncovered_type: TensorType | None = None
    key_overrides: tuple[KeyOverride, ...] = ()
    force: bool = False
    prune_layers: tuple[int, ...] = ()
    allow_requantize: bool = False
    keep_order: bool = False
    imatrix: ImportanceMatrix | None = None
    read_from: tuple[Path, ...] = ()
    as_reference: bool = False
    is_partial: bool = False

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that the options come from, which no output may replace."""
        return (*self.read_from, *([Path(self.imatrix.file)] if self.imatrix else ()))

    @property
    def has_imatrix(self) -> bool:
        """The importance matrix, or None if it has no entries (all were excluded)."""
        return self.imatrix is not None and bool(self.imatrix.importance)

    def lacks_importance_of(self, name: str) -> bool:
        """Whether there is a matrix, and it has no entry for a tensor."""
        return self.imatrix is not None and self.has_imatrix and name not in self.imatrix.importance

    @property
    def in_use(self) -> tuple[str, ...]:
        """The options that are set, in the words of the command line. A file of the converter cannot follow them."""
        flags = {
            "--pure": self.pure,
            "--leave-output-tensor": self.leave_output_tensor,
            "--output-tensor-type": self.output_tensor_type,
            "--token-embedding-type": self.token_embedding_type,
            "--tensor-type": self.tensor_types,
            "--uncovered-type": self.uncovered_type,
            "--override-kv": self.key_overrides,
            "--prune-layers": self.prune_layers,
            "--allow-requantize": self.allow_requantize,
            "--imatrix": self.imatrix,
        }
        return tuple(flag for flag, value in flags.items() if value)
