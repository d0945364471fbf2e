"""What is in a GGUF file: what its header says, the values of a tensor, the fields of a block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gguf_forge.engine.threads import Progress
from gguf_forge.errors import UsageError, printable
from gguf_forge.foreign_text import natural
from gguf_forge.gguf_file.header import alignment_of
from gguf_forge.gguf_file.opened import GgufFile, open_gguf
from gguf_forge.gguf_file.rules import BrokenRule, FormatRule
from gguf_forge.gguf_file.tensor import GgufTensor
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import ByteOrder, Metadata, Value
from gguf_forge.kernels.rows import as_float32
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import Constant
from gguf_forge.toolbox.inspect.measure import Spread, spread_of
from gguf_forge.toolbox.inspect.rows_of import with_short_rows
from gguf_forge.types.blocks import levels_of, unpack_blocks

# The edges of a histogram are chosen from a sample of this many rows and at most this many values.
_SOME_ROWS, _SOME_VALUES = 64, 1 << 18
# Values farther from the mean than this many standard deviations share the first or the last bin.
_TAIL = 4.0


@dataclass(frozen=True)
class TensorEntry:
    """What a file says of a tensor: name, shape and type, and the byte of the file `path` that its data begins at.

    `is_whole` is false if the file ends before the tensor does.
    """

    info: TensorInfo
    path: Path
    offset: int
    is_whole: bool = True

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def bits_per_weight(self) -> float:
        """Bits of data for each value; 0 for a tensor without values."""
        return 8 * self.info.nbytes / self.info.n_elements if self.info.n_elements else 0.0


@dataclass(frozen=True)
class TypeShare:
    """The tensors of one type: how many, how many values they have, and in how many bytes."""

    tensors: int
    weights: int
    nbytes: int


@dataclass(frozen=True)
class Overview:
    """What the header of a GGUF file says, or those of all files of a split one.

    Attributes:
        paths: The file, or the files of the split in order.
        version: 2 or 3.
        byte_order: "<" little-endian, ">" big-endian.
        size: Bytes of all files.
        alignment: Bytes that tensor data is aligned to.
        metadata: Keys and typed values in file order, those of the first file.
        tensors: In file order.
        repeated: Further values of keys that are there several times.
        broken: What is wrong with the file, so that llama.cpp would not load it. Of a split that is not complete, the
            overview is that of the file that was named.
    """

    paths: tuple[Path, ...]
    version: int
    byte_order: ByteOrder
    size: int
    alignment: int
    metadata: Metadata
    tensors: tuple[TensorEntry, ...]
    repeated: tuple[tuple[str, Value], ...] = ()
    broken: tuple[BrokenRule, ...] = ()

    def __repr__(self) -> str:
        return f"<Overview {self.paths[0]}: {len(self.metadata)} keys, {len(self.tensors)} tensors, {self.size} bytes>"

    @property
    def weights(self) -> int:
        """Values of all tensors."""
        return sum(tensor.info.n_elements for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Bits of tensor data for each value; 0 for a vocabulary alone."""
        weights = self.weights
        return 8 * sum(tensor.info.nbytes for tensor in self.tensors) / weights if weights else 0.0

    @property
    def data_offset(self) -> int | None:
        """The byte of the first file that its tensor data begins at; None if it has no tensors."""
        return min((tensor.offset for tensor in self.tensors if tensor.path == self.paths[0]), default=None)

    @property
    def types(self) -> Mapping[str, TypeShare]:
        """The share of each type in the file, the type with the most bytes first."""
        tensors, weights, nbytes = Counter[str](), Counter[str](), Counter[str]()
        for tensor in self.tensors:
            type_name = tensor.info.type.name
            tensors[type_name] += 1
            weights[type_name] += tensor.info.n_elements
            nbytes[type_name] += tensor.info.nbytes
        return {
            type_name: TypeShare(tensors[type_name], weights[type_name], size)
            for type_name, size in nbytes.most_common()
        }


@dataclass(frozen=True)
class BlockPlace:
    """A block of a tensor: its number in the row, both from 0."""

    row: int
    block: int


@dataclass(frozen=True)
class DecodedBlock:
    """What a block holds.

    Attributes:
        place: Where it is.
        columns: The first column of the row that it has values of, and the one after the last.
        fields: Name -> what is stored: a number, or an array of numbers.
        levels: The whole number that each value was rounded to; None for types without levels.
        values: float32 (block elements,): what it unpacks to.
    """

    place: BlockPlace
    columns: tuple[int, int]
    fields: Mapping[str, Any]
    levels: NDArray[np.int16] | None
    values: NDArray[np.float32]


@dataclass(frozen=True)
class TensorView:
    """The values of a tensor.

    Attributes:
        entry: What the file says of it.
        spread: Range, mean, zeros and so on, and how many values are in each bin.
        edges: Of the bins, the outermost ones open: `len(edges) + 1` counts. Empty if all values are the same.
        block: A block that was asked for.
    """

    entry: TensorEntry
    spread: Spread
    edges: tuple[float, ...]
    block: DecodedBlock | None

    def __repr__(self) -> str:
        return f"<TensorView {self.entry.info.summary}, {self.spread.minimum:g} to {self.spread.maximum:g}>"


def inspect_gguf(source: str | PathLike[str]) -> Overview:
    """What the header of a GGUF file says: keys, tensors, types, sizes. Reads no weight.

    Args:
        source: The file, which need not be complete; of a split one the first.

    Raises:
        InputError: the file is missing, or damaged in its header.
        UnsupportedError: a version that this version does not know.

    Example:
        >>> overview = inspect_gguf("Qwen3-0.6B-Q4_K_M.gguf")  # doctest: +SKIP
        >>> overview.bits_per_weight, list(overview.types)  # doctest: +SKIP
    """
    with open_gguf(source, lenient=True) as gguf:
        return overview_of(gguf)


def overview_of(gguf: GgufFile) -> Overview:
    """What the header of an opened file says."""
    n_files = 1 if gguf.breaks(FormatRule.PARTS) else len(gguf.paths)
    return Overview(
        gguf.paths[:n_files],
        gguf.version,
        gguf.byte_order,
        sum(file.stat().st_size for file in gguf.paths[:n_files]),
        alignment_of(gguf.typed_metadata),
        gguf.typed_metadata,
        tuple(_entry(tensor) for shard in gguf.shards[:n_files] for tensor in shard),
        gguf.repeated,
        gguf.broken,
    )


def inspect_tensor(
    source: str | PathLike[str],
    name: str,
    *,
    bins: int = 16,
    block: BlockPlace | None = None,
    threads: int | None = None,
) -> TensorView:
    """The values of one tensor: range, mean, deviation, zeros and a histogram, unpacked in row ranges.

    Args:
        source: The GGUF file; of a split one the first.
        name: The tensor.
        bins: Of the histogram, at least 3.
        block: A block to decode, too.
        threads: Defaults to the processors this process may use.

    Raises:
        UsageError: no such tensor or block; too few bins.
        UnsupportedError: no kernel unpacks the tensor's type.
        InputError: the file is damaged, or ends before the tensor does.

    Example:
        >>> view = inspect_tensor("Qwen3-0.6B-Q4_K_M.gguf", "blk.0.attn_q.weight")  # doctest: +SKIP
        >>> view.spread.minimum, view.spread.maximum, view.spread.histogram  # doctest: +SKIP
    """
    with open_gguf(source, lenient=True) as gguf:
        (tensor,) = matching_tensors(gguf, [name], patterns=False)
        return view_tensor(tensor, bins=bins, block=block, threads=threads)


def matching_tensors(gguf: GgufFile, wanted: Sequence[str], *, patterns: bool = True) -> tuple[GgufTensor, ...]:
    """The tensors of a file with these names, or names that these patterns (`blk.*.ffn_*`) match, in file order.

    Raises:
        UsageError: one is the name of no tensor, and matches none.
    """
    found = {}
    for text in wanted:
        matches = [t for t in gguf.tensors if t.name == text or (patterns and fnmatchcase(t.name, text))]
        if not matches:
            near = get_close_matches(text, [tensor.name for tensor in gguf.tensors], 3)
            raise UsageError(
                f"no tensor is called {printable(text)}",
                file=gguf.paths[0],
                hint=f"there is {', '.join(map(printable, near))}" if near else "without --tensor, all are listed",
            )
        found.update({tensor.name: tensor for tensor in matches})
    return tuple(tensor for tensor in gguf.tensors if tensor.name in found)


def view_tensor(
    tensor: GgufTensor,
    *,
    bins: int = 16,
    block: BlockPlace | None = None,
    threads: int | None = None,
    progress: Progress = lambda n_values: None,
) -> TensorView:
    """The values of a tensor of an opened file; arguments as for `inspect_tensor`.

    The tensor is read once, and the bins are chosen from a few of its rows. If the values of these rows are all the
    same, it is read twice.
    """
    if bins < 3:
        raise UsageError(f"a histogram of {bins} bins shows nothing", hint="take at least 3")
    expr = with_short_rows(tensor.expression())
    decoded = decode_block(tensor, block) if block is not None else None
    edges = _edges(_some(expr), bins)
    spread = spread_of(expr, edges=edges, threads=threads, progress=progress)
    if not edges:
        edges = _edges(spread, bins)
        spread = spread_of(expr, edges=edges, threads=threads) if edges else spread
    return TensorView(_entry(tensor), spread, edges, decoded)


def decode_block(tensor: GgufTensor, place: BlockPlace) -> DecodedBlock:
    """What one block of a tensor holds. Reads nothing else.

    Raises:
        UsageError: there is no such block.
        UnsupportedError: no kernel unpacks the tensor's type.
    """
    tensor_type, info = tensor.type, tensor.info
    per_row = info.n_per_row // tensor_type.block_elements
    if not (0 <= place.row < info.n_rows and 0 <= place.block < per_row):
        raise UsageError(
            f"there is no block {place.block} in row {place.row}",
            tensor=printable(tensor.name),
            hint=f"it has {info.n_rows} rows of {per_row} blocks, both counted from 0",
        )
    at = tensor.offset + (place.row * per_row + place.block) * tensor_type.block_bytes
    alone = replace(tensor, info=TensorInfo(tensor.name, (tensor_type.block_elements,), tensor_type), offset=at)
    rows = alone.expression().rows(0, 1)
    packed = np.ascontiguousarray(rows).view(np.uint8)
    stored = unpack_blocks(packed, tensor_type)[0, 0]
    first = place.block * tensor_type.block_elements
    levels = levels_of(packed, tensor_type)
    return DecodedBlock(
        place,
        (first, first + tensor_type.block_elements),
        {name: stored[name] for name in stored.dtype.names or ()},
        None if levels is None else levels[0],
        as_float32(rows, tensor_type)[0],
    )


def parse_block(text: str, info: TensorInfo) -> BlockPlace:
    """Reads `N`, counted through the whole tensor, or `ROW:N`, counted in a row.

    Raises:
        UsageError: it is something else.

    Example:
        >>> from gguf_forge.types.tensor_type import TensorType
        >>> parse_block("9", TensorInfo("a", (64, 8), TensorType.named("Q8_0")))
        BlockPlace(row=4, block=1)
    """
    numbers = [number for number in map(natural, text.split(":")) if number is not None]
    if len(numbers) > 2 or len(numbers) != text.count(":") + 1:
        raise UsageError(f"--block {text!r} is not a block", hint="use N or ROW:N, both counted from 0")
    if len(numbers) == 2:
        return BlockPlace(numbers[0], numbers[1])
    return BlockPlace(*divmod(numbers[0], max(1, info.n_per_row // info.type.block_elements)))


def _entry(tensor: GgufTensor) -> TensorEntry:
    return TensorEntry(tensor.info, tensor.source.path, tensor.offset, tensor.is_whole)


def _some(expr: TensorExpr) -> Spread:
    """How the values of some rows are spread, from the first one to the last."""
    if 0 in expr.shape:
        return spread_of(expr)
    n_rows = max(1, min(_SOME_ROWS, _SOME_VALUES // expr.shape[-1]))
    rows = np.unique(np.linspace(0, expr.n_rows - 1, n_rows).astype(np.int64)).tolist()
    values = np.concatenate([as_float32(expr.rows(row, row + 1), expr.dtype) for row in rows])
    return spread_of(Constant(values), threads=1)


def _edges(spread: Spread, bins: int) -> tuple[float, ...]:
    """Edges of equal bins, between the ends or, where they lie far out, around the mean."""
    low = max(spread.minimum, spread.mean - _TAIL * spread.deviation)
    high = min(spread.maximum, spread.mean + _TAIL * spread.deviation)
    edges = np.linspace(low, high, bins + 1)[1:-1]
    return tuple(edges.tolist()) if bool((np.diff(edges) > 0).all()) else ()
