"""A tensor of a GGUF file: where its bytes are, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import ForgeError, InputError, UnsupportedError, printable
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import ByteOrder
from gguf_forge.kernels.rows import as_float32
from gguf_forge.storage.source import Source
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import BigEndian, Stored
from gguf_forge.types.foreign_type import ForeignType
from gguf_forge.types.tensor_type import TensorType


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file, and where its bytes are.

    Attributes:
        info: Name, shape and type.
        source: The file that holds it.
        offset: The byte of that file at which its data begins.
        byte_order: Of the numbers in its data.
    """

    info: TensorInfo
    source: Source
    offset: int
    byte_order: ByteOrder

    def __repr__(self) -> str:
        return f"<GgufTensor {self.info.summary}>"

    @property
    def name(self) -> str:
        """As the file has it."""
        return self.info.name

    @property
    def shape(self) -> tuple[int, ...]:
        """In GGUF order: the row length first."""
        return self.info.shape

    @property
    def type(self) -> TensorType:
        """Of its values: `Q6_K`, `F32` and so on."""
        return self.info.type

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return self.info.nbytes

    @property
    def is_whole(self) -> bool:
        """Whether the file has all its bytes."""
        return self.offset + self.nbytes <= self.source.size

    def data(self) -> NDArray[np.uint8]:
        """The stored bytes, in memory of their own."""
        return self.source.read(self.offset, self.nbytes)

    def expression(self) -> TensorExpr:
        """Its rows, in this machine's byte order.

        Raises:
            UnsupportedError: packed blocks of a big-endian file whose byte order nobody has settled, or of a type that
                this version does not know.
            InputError: the file ends before the tensor does.

        Example:
            >>> with open_gguf("model.gguf") as gguf:  # doctest: +SKIP
            ...     first_row = gguf.tensors[0].expression().rows(0, 1)
        """
        path, name = self.source.path, printable(self.name)
        if isinstance(self.type, ForeignType):
            problem = f"its values cannot be read, because tensor {self.type} is not known"
            raise UnsupportedError(problem, file=path, tensor=name, hint="use the program that made the file")
        if not self.is_whole:
            hint = "the file is cut short: download it again"
            raise InputError("the file ends before the tensor does", file=path, tensor=name, hint=hint)
        stored = Stored(self.name, self.source, self.offset, self.shape[::-1], self.type)
        if self.byte_order == "<":
            return stored
        try:
            return BigEndian(stored)
        except ForgeError as error:
            raise type(error)(
                error.words.problem, file=self.source.path, tensor=self.name, hint=error.words.hint
            ) from None

    def values(self) -> NDArray[np.float32]:
        """All its numbers, unpacked: an array with the row length as its last axis, as NumPy and PyTorch count.

        Raises:
            UnsupportedError, InputError: as for `expression`.

        Example:
            >>> with open_gguf("model.gguf") as gguf:  # doctest: +SKIP
            ...     gguf["output_norm.weight"].values().mean()
        """
        expr = self.expression()
        return as_float32(expr.rows(0, expr.n_rows), expr.dtype).reshape(expr.shape)
