"""Tensor types that this version does not know: those of forks, of newer releases, and those that ggml removed."""

from __future__ import annotations

from gguf_forge.types.tensor_type import ImportanceUse, TensorType


class ForeignType(TensorType):
    """A type of which only the number is known. The bytes of a tensor are those up to the next one in the file.

    Example:
        >>> str(ForeignType.numbered(153)), ForeignType.numbered(153) == ForeignType.numbered(153)
        ('type 153', True)
    """

    @classmethod
    def numbered(cls, id: int) -> ForeignType:
        """The type with this number."""
        return cls(
            f"type {id}",
            id,
            1,
            0,
            fields=(),
            exponents=(),
            levels=None,
            is_float=False,
            is_target=False,
            is_swappable=False,
            is_fusible=False,
            rounds_late=False,
            importance=ImportanceUse.IGNORED,
            fallback=None,
            file_type=None,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ForeignType) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)
