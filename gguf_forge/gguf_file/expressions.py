"""Tensors of GGUF files as expressions."""

from __future__ import annotations

from gguf_forge.errors import ForgeError, InputError, UnsupportedError, printable
from gguf_forge.gguf_file.reader import GgufTensor
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import BigEndian, Stored
from gguf_forge.types.foreign_type import ForeignType


def expression_of(tensor: GgufTensor) -> TensorExpr:
    """The rows of a tensor of an opened file, in this machine's byte order.

    Raises:
        UnsupportedError: packed blocks of a big-endian file whose byte order nobody has settled, or of a type that
            this version does not know.
        InputError: the file ends before the tensor does.

    Example:
        >>> with open_gguf("model.gguf") as gguf:  # doctest: +SKIP
        ...     first_row = expression_of(gguf.tensors[0]).rows(0, 1)
    """
    path, name = tensor.source.path, printable(tensor.name)
    if isinstance(tensor.type, ForeignType):
        problem = f"its values cannot be read, because tensor {tensor.type} is not known"
        raise UnsupportedError(problem, file=path, tensor=name, hint="use the program that made the file")
    if not tensor.is_whole:
        hint = "the file is cut short: download it again"
        raise InputError("the file ends before the tensor does", file=path, tensor=name, hint=hint)
    stored = Stored(tensor.name, tensor.source, tensor.offset, tensor.shape[::-1], tensor.type)
    if tensor.byte_order == "<":
        return stored
    try:
        return BigEndian(stored)
    except ForgeError as error:
        raise type(error)(error.problem, file=tensor.source.path, tensor=tensor.name, hint=error.hint) from None
