"""Tensors of GGUF files as expressions."""

from __future__ import annotations

from gguf_forge.errors import ForgeError
from gguf_forge.gguf_file.reader import GgufTensor
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import BigEndian, Stored


def expression_of(tensor: GgufTensor) -> TensorExpr:
    """The rows of a tensor of an opened file, in this machine's byte order.

    Raises:
        UnsupportedError: packed blocks of a big-endian file whose byte order nobody has settled.

    Example:
        >>> with open_gguf("model.gguf") as gguf:  # doctest: +SKIP
        ...     first_row = expression_of(gguf.tensors[0]).rows(0, 1)
    """
    stored = Stored(tensor.name, tensor.source, tensor.offset, tensor.shape[::-1], tensor.type)
    if tensor.byte_order == "<":
        return stored
    try:
        return BigEndian(stored)
    except ForgeError as error:
        raise type(error)(error.problem, file=tensor.source.path, tensor=tensor.name, hint=error.hint) from None
