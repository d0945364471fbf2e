"""The layout of a GGUF file: the place of all its bytes, known before any weight is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from gguf_forge.gguf_file.header import alignment_of, encode_header, padded
from gguf_forge.gguf_file.rules import GGML, Bounds
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import ByteOrder, Metadata


@dataclass(frozen=True, slots=True)
class PlacedTensor:
    """A tensor and the byte of the file that its data begins at."""

    info: TensorInfo
    offset: int


@dataclass(frozen=True)
class Layout:
    """A whole file: its header, its tensors in file order, and its size in bytes.

    Bytes that neither the header nor a tensor covers are zero.
    """

    header: bytes
    tensors: tuple[PlacedTensor, ...]
    size: int

    @property
    def data_offset(self) -> int:
        return len(self.header)


def lay_out(
    metadata: Metadata,
    tensors: Sequence[TensorInfo],
    *,
    vocab_only: bool = False,
    byte_order: ByteOrder = "<",
    bounds: Bounds = GGML,
) -> Layout:
    """Place `tensors` one after the other, each padded to the file's alignment, the last one too.

    gguf-py, llama-quantize and llama-gguf-split agree on this. They differ in one case: a file with a
    vocabulary alone, as the converter writes it, ends with its last metadata value and has no padding
    (`vocab_only`), while a first shard without tensors has it.

    Args:
        metadata: `general.alignment` in it sets the alignment; otherwise it is 32 bytes.
        tensors: in the order of the file; shapes in GGUF order.
        vocab_only: leave the header unpadded.
        byte_order: of the numbers in the header.
        bounds: as for `encode_header`.

    Raises:
        InputError: see `encode_header`; or an alignment that `alignment_of` refuses.

    Example:
        >>> from gguf_forge.types.tensor_type import F32
        >>> layout = lay_out({}, [TensorInfo("a.weight", (5,), F32), TensorInfo("b.weight", (8,), F32)])
        >>> layout.data_offset, [placed.offset for placed in layout.tensors], layout.size
        (128, [128, 160], 192)

    Source: gguf_writer.py of gguf-py, llama-quant.cpp and ggml/src/gguf.cpp of llama.cpp.
    """
    alignment = alignment_of(metadata)
    ends = [0, *accumulate(padded(info.nbytes, alignment) for info in tensors)]
    header = encode_header(metadata, tensors, ends[:-1], 1 if vocab_only else alignment, byte_order, bounds)
    placed = tuple(PlacedTensor(info, len(header) + start) for info, start in zip(tensors, ends[:-1], strict=True))
    return Layout(header, placed, len(header) + ends[-1])
