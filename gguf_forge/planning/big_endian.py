"""Big-endian files, as the reference's converter makes them for machines of that byte order (`--bigendian`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gguf_forge.errors import UnsupportedError, UsageError
from gguf_forge.planning.file_plan import TensorChoice
from gguf_forge.recipe import FileType
from gguf_forge.types.tensor_type import TensorType

# The quantized types that the converter makes by itself.
OF_CONVERTER = ("Q8_0", "TQ1_0", "TQ2_0")


def refuse_other_types(names: Iterable[str]) -> None:
    """Raise UsageError if a file type is not one of the converter's own."""
    for kind in map(FileType.named, names):
        if not kind.is_float and kind.name not in OF_CONVERTER:
            raise UsageError(
                f"--bigendian: a big-endian file of type {kind} can only be made on a big-endian machine, because "
                "llama-quantize reads and writes the byte order of its own machine",
                hint=f"take auto, F32, F16, BF16, {', '.join(OF_CONVERTER[:-1])} or {OF_CONVERTER[-1]}; "
                f"`llama-quantize` on the big-endian machine can make {kind} of an F16 or BF16 file",
            )


def big_endian(chosen: Iterable[TensorChoice], *, as_reference: bool) -> tuple[TensorChoice, ...]:
    """The tensors of a big-endian file.

    The reference turns F32, F16 and integers. It leaves BF16 and packed blocks in little-endian order, which no
    big-endian machine can read.

    Args:
        chosen: The tensors of the little-endian file.
        as_reference: Turn only what the reference turns.

    Raises:
        UnsupportedError: a tensor has packed blocks whose byte order nobody has settled.
    """
    return tuple(
        replace(tensor, source=replace(tensor.source, is_swapped=True)) if _is_turned(tensor, as_reference) else tensor
        for tensor in chosen
    )


def _is_turned(tensor: TensorChoice, as_reference: bool) -> bool:
    kind = tensor.info.type
    if as_reference:
        return _is_array(kind)
    if kind.is_packed and not kind.is_swappable:
        raise UnsupportedError(
            f"{kind} blocks of big-endian files cannot be written", tensor=tensor.info.name, hint="choose another type"
        )
    return True


def _is_array(kind: TensorType) -> bool:
    """Whether NumPy has the type: the reference holds all others as bytes."""
    return not kind.is_packed and kind.name != "BF16"
