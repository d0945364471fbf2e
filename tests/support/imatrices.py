"""Importance matrices made up for tests, in both of llama-imatrix's formats."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.opened import open_gguf
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, ValueType, array, string, u32
from gguf_forge.types.tensor_type import F32

# Sums of squares (n_experts, n_columns), and how often each expert was used.
Entry = tuple[NDArray[np.float32], NDArray[np.float32]]
METADATA: Metadata = {
    "general.type": string("imatrix"),
    "imatrix.datasets": array(ValueType.STRING, ["calibration.txt"]),
    "imatrix.chunk_count": u32(12),
    "imatrix.chunk_size": u32(256),
}


def made_up(infos: Iterable[TensorInfo]) -> dict[str, Entry]:
    """Sums for every matrix: of many sizes, some zero; every third expert was never used."""
    entries = {}
    for info in infos:
        if len(info.shape) > 1 and not info.name.startswith("token_embd"):
            n_experts = info.shape[2] if len(info.shape) > 2 else 1
            seed = np.arange(n_experts * info.shape[0], dtype=np.uint64) + np.uint64(zlib.crc32(info.name.encode()))
            bits = (seed * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
            sums = ((bits % np.uint64(1009)).astype(np.float32) ** 2 / 16).reshape(n_experts, -1)
            counts = np.where(np.arange(n_experts) % 3 == 2, 0, 3072).astype(np.float32)
            entries[info.name] = sums, counts
    return entries


# After a file type, in expected.json: with the importance matrix of `write_for_model`.
WITH_IMATRIX = " --imatrix"


def write_for_model(base: Path) -> Path:
    """A made-up matrix for all tensors of a GGUF file, as imatrix.gguf and imatrix.dat beside it; the former's path."""
    with open_gguf(base) as gguf:
        entries = made_up(tensor.info for tensor in gguf.tensors)
    write_gguf(base.with_name("imatrix.gguf"), entries)
    write_legacy(base.with_name("imatrix.dat"), entries)
    return base.with_name("imatrix.gguf")


def write_gguf(path: Path, entries: Mapping[str, Entry], metadata: Metadata = METADATA) -> None:
    tensors = {}
    for name, (sums, counts) in entries.items():
        tensors[f"{name}.in_sum2"] = sums
        tensors[f"{name}.counts"] = counts.reshape(-1, 1)
    layout = lay_out(metadata, [TensorInfo(name, data.shape[::-1], F32) for name, data in tensors.items()])
    content = bytearray(layout.size)
    content[: len(layout.header)] = layout.header
    for placed, data in zip(layout.tensors, tensors.values(), strict=True):
        content[placed.offset : placed.offset + data.nbytes] = data.astype("<f4").tobytes()
    path.write_bytes(content)


def write_legacy(
    path: Path, entries: Mapping[str, Entry], *, chunks: int = 12, dataset: str = "calibration.txt"
) -> None:
    content = struct.pack("<i", len(entries))
    for name, (sums, counts) in entries.items():
        raw = name.encode()
        content += struct.pack("<i", len(raw)) + raw + struct.pack("<ii", int(counts[0]), sums.size)
        content += sums.astype("<f4").tobytes()
    path.write_bytes(content + struct.pack("<ii", chunks, len(dataset)) + dataset.encode())
