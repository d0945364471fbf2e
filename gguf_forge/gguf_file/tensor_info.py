"""The description of a tensor in a GGUF file, without its offset."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from gguf_forge.errors import printable
from gguf_forge.types.tensor_type import TensorType


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, type and shape; `shape` is in GGUF order: the row length first.

    `foreign_bytes` is the size of a tensor whose type does not tell it (`ForeignType`).
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    foreign_bytes: int | None = None

    @property
    def summary(self) -> str:
        """Name, type and shape on one line."""
        return f"{printable(self.name)}: {self.type}, {' x '.join(map(str, self.shape))}"

    @property
    def n_per_row(self) -> int:
        return self.shape[0]

    @property
    def n_rows(self) -> int:
        return prod(self.shape[1:])

    @property
    def n_elements(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.type.nbytes(self.shape) if self.foreign_bytes is None else self.foreign_bytes
