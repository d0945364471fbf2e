"""Importance matrices as llama-imatrix writes them: the legacy `.dat`, and GGUF.

Both hold, for each matrix of the model, sums of squared activations by column; the means are the importance. Source:
common/imatrix-loader.cpp and tools/quantize/quantize.cpp of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError, printable
from gguf_forge.gguf_file.cursor import Cursor
from gguf_forge.gguf_file.opened import GgufFile, open_gguf
from gguf_forge.gguf_file.tensor import GgufTensor
from gguf_forge.recipe.importance.matrix import ImportanceMatrix
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.storage.source import Source

Importance = NDArray[np.float32]

_SUMS, _COUNTS = ".in_sum2", ".counts"
_KEYS = ("imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size")
_NO_MATRIX = "make one with llama-imatrix"
_MAX_COUNT = 2.0**62


def read_imatrix(source: str | PathLike[str]) -> ImportanceMatrix:
    """Reads an importance matrix of either format. The first bytes of the file tell which format it is.

    Args:
        source: The file. Its path is recorded, as it is given, in the files that are made with the matrix.

    Raises:
        InputError: the file is missing, cut off, no importance matrix, or holds numbers that are none.

    Example:
        >>> read_imatrix("imatrix.gguf").importance["blk.0.attn_q.weight"].shape  # doctest: +SKIP
        (4096,)
    """
    with SourceFile(Path(source)) as opened:
        is_gguf = opened.size >= 4 and opened.read(0, 4).tobytes() == b"GGUF"
        matrix = None if is_gguf else _read_legacy(fspath(source), opened)
    if matrix is None:
        with open_gguf(source) as file:
            matrix = _read_gguf(fspath(source), file)
    for name, importance in matrix.importance.items():
        if not np.isfinite(importance).all() or (importance < 0).any():
            raise InputError(
                f"the importance of {printable(name)} is not all finite and positive", file=source, hint=_NO_MATRIX
            )
    return matrix


def _read_gguf(path: str, file: GgufFile) -> ImportanceMatrix:
    metadata = file.metadata
    missing = [key for key in _KEYS if key not in metadata]
    if missing:
        raise InputError(
            f"is a GGUF file, but no importance matrix: it lacks {', '.join(missing)}", file=path, hint=_NO_MATRIX
        )
    tensors = {tensor.name: tensor for tensor in file.tensors}
    names = sorted({name.removesuffix(end) for name in tensors for end in (_SUMS, _COUNTS) if name.endswith(end)})
    found = {name: _sums_and_counts(path, name, tensors) for name in names}
    if not found:
        raise InputError("holds no importance", file=path, hint=_NO_MATRIX)
    datasets, chunks, _ = (metadata[key] for key in _KEYS)
    if not isinstance(chunks, int) or isinstance(datasets, str | bytes) or not isinstance(datasets, Sequence):
        raise InputError(f"{_KEYS[0]} or {_KEYS[1]} is of another type", file=path, hint=_NO_MATRIX)
    return ImportanceMatrix(
        path,
        importance={name: _means(sums, counts) for name, (sums, counts) in found.items()},
        datasets=tuple(map(str, datasets)),
        chunks=chunks,
        calls={name: tuple(map(int, counts)) for name, (_, counts) in found.items()},
    )


def _sums_and_counts(path: str, name: str, tensors: Mapping[str, GgufTensor]) -> tuple[Importance, Importance]:
    """The sums (n_experts, n_columns) and the whole counts (n_experts,) of each expert."""
    parts = [tensors.get(name + end) for end in (_SUMS, _COUNTS)]
    if any(part is None or part.type.name != "F32" for part in parts):
        raise InputError(f"{printable(name)} needs {_SUMS} and {_COUNTS}, both F32", file=path, hint=_NO_MATRIX)
    sums, counts = (part.data().view(f"{part.byte_order}f4").astype(np.float32) for part in parts if part)
    if not len(counts) or len(sums) % len(counts):
        raise InputError(f"{printable(name)} has {len(sums)} sums for {len(counts)} counts", file=path, hint=_NO_MATRIX)
    if not np.isfinite(counts).all() or (np.abs(counts) > _MAX_COUNT).any():
        raise InputError(f"{printable(name)} has counts that are none", file=path, hint=_NO_MATRIX)
    return sums.reshape(len(counts), -1), _round_half_away(counts)


def _means(sums: Importance, counts: Importance) -> Importance:
    """The sums divided by the counts. For an expert that was never used, all columns count the same."""
    uses = counts[:, None]
    return np.divide(sums, uses, out=np.ones_like(sums), where=uses > 0).reshape(-1)


def _round_half_away(counts: Importance) -> Importance:
    """Rounds as C's `lround` does. llama-imatrix counts in whole numbers but stores them as floats."""
    rounded: Importance = np.copysign(np.floor(np.abs(counts.astype(np.float64)) + 0.5), counts).astype(np.float32)
    return rounded


def _read_legacy(path: str, source: Source) -> ImportanceMatrix:
    cursor = Cursor(source, "<")
    n_entries = cursor.number("i", "the number of entries")
    if n_entries < 1:
        raise InputError(f"claims {n_entries} entries", file=path, hint=_NO_MATRIX)
    entries = list(_legacy_entries(cursor, n_entries))
    # the number of chunks and the dataset are optional
    chunks = cursor.number("i", "the number of chunks") if cursor.left else 0
    dataset = _text(cursor, "the name of the dataset") if cursor.left else ""
    return ImportanceMatrix(
        path,
        importance={name: importance for name, importance, _ in entries},
        datasets=(dataset,) if dataset else (),
        chunks=chunks,
        calls={name: (calls,) for name, _, calls in entries},
    )


def _legacy_entries(cursor: Cursor, n_entries: int) -> Iterator[tuple[str, Importance, int]]:
    for entry in range(n_entries):
        what = f"entry {entry}"
        name = _text(cursor, f"the name of {what}")
        n_calls, n_values = cursor.numbers("ii", what)
        if n_values < 1:
            raise cursor.broken(f"{what} claims {n_values} values")
        sums = cursor.take(4 * n_values, what).view("<f4").astype(np.float32)
        yield name, sums / np.float32(n_calls) if n_calls > 0 else sums, n_calls


def _text(cursor: Cursor, what: str) -> str:
    length = cursor.number("i", what)
    if length < 0:
        raise cursor.broken(f"{what} has {length} bytes")
    return cursor.take(length, what).tobytes().split(b"\0", 1)[0].decode(errors="surrogateescape")
