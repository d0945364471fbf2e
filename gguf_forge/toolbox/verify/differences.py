"""Where packed rows differ from the expected ones, and whether a quantizer could have made them of the same weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gguf_forge.kernels.binding import dequantizable_types, dequantize_rows
from gguf_forge.kernels.rows import as_float32
from gguf_forge.toolbox.verify.nearest import misplaced_values
from gguf_forge.types.blocks import field_at
from gguf_forge.types.rows import FloatRows, PackedRows
from gguf_forge.types.tensor_type import TensorType

# A block with more than this many times the expected squared error is odd. The greatest ratio measured between blocks
# made with and without fused multiply-add is 1.37.
_WORSE = 1.5
# If more than `_MANY` of the blocks of some rows differ, and more than `_MANY_BLOCKS`, only one in `_EACH` of them is
# judged. A sample shows what they have in common, and judging a block takes many times longer than comparing it.
_MANY, _MANY_BLOCKS, _EACH = 0.05, 64, 16
# The greatest relative difference of float values that come from the same weights by way of two 16-bit types.
_ROUNDING = 2.0**-7


@dataclass(frozen=True)
class DifferentByte:
    """A byte of a tensor that is not what it should be.

    Attributes:
        row: Of the tensor, from 0, all its matrices counted on.
        block: Of the row, from 0; of types that aren't packed, the column.
        field: Of the block, with the index of its item: "d", "scales[3]", "qs[17]".
        offset: The byte's place in the tensor's data.
        expected, found: The byte.
    """

    row: int
    block: int
    field: str
    offset: int
    expected: int
    found: int


@dataclass(frozen=True)
class Errors:
    """Sums over some blocks: of the weights, of what they should be packed to, and of what they are."""

    weights: float = 0.0
    expected: float = 0.0
    found: float = 0.0
    expected_error: float = 0.0
    found_error: float = 0.0
    expected_product: float = 0.0
    found_product: float = 0.0

    def plus(self, other: Errors) -> Errors:
        return Errors(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def cosine(self) -> float:
        """Of the angle between the weights and what they are in the file."""
        return _cosine(self.found_product, self.weights, self.found)

    @property
    def expected_cosine(self) -> float:
        """Of the angle between the weights and what they should be in the file."""
        return _cosine(self.expected_product, self.weights, self.expected)


def _cosine(product: float, one: float, other: float) -> float:
    length = math.sqrt(one) * math.sqrt(other)
    return product / length if length else 0.0


@dataclass(frozen=True)
class Differences:
    """How rows differ from what they should be.

    Attributes:
        blocks: Blocks that differ; of types that aren't packed, values.
        bytes: Bytes that differ.
        fields: How many of them are in each field.
        first: The first of them; None if nothing differs.
        judged: How many of the blocks were looked at closely: all of a few, some of many. What follows is of these.
        odd_blocks: Blocks that no quantizer would make of these weights: levels that aren't the nearest
            ones, errors far greater than need be, infinite scales.
        first_odd: Where the first of those differs first.
        misplaced: Values that aren't at the nearest level; None for types without levels.
        values: How many values they have.
        errors: Sums over them.
    """

    blocks: int = 0
    bytes: int = 0
    fields: Mapping[str, int] = field(default_factory=dict)
    first: DifferentByte | None = None
    judged: int = 0
    odd_blocks: int = 0
    first_odd: DifferentByte | None = None
    misplaced: int | None = None
    values: int = 0
    errors: Errors = Errors()

    def plus(self, other: Differences) -> Differences:
        """The two added together; `other` is of later rows."""
        misplaced = [n for n in (self.misplaced, other.misplaced) if n is not None]
        return Differences(
            self.blocks + other.blocks,
            self.bytes + other.bytes,
            dict(Counter(self.fields) + Counter(other.fields)),
            self.first or other.first,
            self.judged + other.judged,
            self.odd_blocks + other.odd_blocks,
            self.first_odd or other.first_odd,
            sum(misplaced) if misplaced else None,
            self.values + other.values,
            self.errors.plus(other.errors),
        )


def differences_between(
    expected: PackedRows,
    found: PackedRows,
    tensor_type: TensorType,
    weights: FloatRows,
    *,
    importance: FloatRows | None = None,
    first_row: int = 0,
) -> Differences:
    """How rows differ from what they should be.

    Args:
        expected, found: (rows, bytes of a row).
        tensor_type: Their type.
        weights: (rows, values of a row): what the rows were packed from.
        importance: (values of a row,): how much an error in each column counts; None for all alike.
        first_row: The number of the first row.

    Example:
        >>> from gguf_forge import quantize
        >>> row = np.linspace(-1, 1, 64, dtype=np.float32)[None]
        >>> packed = quantize(row, "Q4_0")
        >>> other = packed.copy()
        >>> other[0, 23] ^= 4
        >>> differences_between(packed, other, TensorType.named("Q4_0"), row).first
        DifferentByte(row=0, block=1, field='qs[3]', offset=23, expected=55, found=51)
    """
    size = tensor_type.block_bytes
    mine, theirs = expected.reshape(-1, size), found.reshape(-1, size)
    differs = mine != theirs
    at = np.flatnonzero(differs.any(axis=1))
    if not len(at):
        return Differences()
    per_row = expected.shape[1] // size

    def place(block: int) -> DifferentByte:
        byte = int(np.argmax(differs[block]))
        row, within = divmod(block, per_row)
        name = field_at(tensor_type, byte)
        offset = first_row * expected.shape[1] + block * size + byte
        return DifferentByte(first_row + row, within, name, offset, int(mine[block, byte]), int(theirs[block, byte]))

    judged = at[::_EACH] if len(at) > max(_MANY * len(mine), _MANY_BLOCKS) else at
    source = weights.reshape(-1, tensor_type.block_elements)[judged]
    columns = None if importance is None else importance.reshape(-1, tensor_type.block_elements)[judged % per_row]
    odd, misplaced, errors = _judged(mine[judged], theirs[judged], tensor_type, source, columns)
    fields = _bytes_by_field(differs, tensor_type)
    return Differences(
        len(at),
        sum(fields.values()),
        fields,
        place(int(at[0])),
        len(judged),
        int(np.count_nonzero(odd)),
        place(int(judged[np.argmax(odd)])) if odd.any() else None,
        misplaced,
        source.size,
        errors,
    )


def _bytes_by_field(differs: NDArray[np.bool_], tensor_type: TensorType) -> dict[str, int]:
    """How many bytes of each field of the blocks differ. `differs` is (blocks, bytes of a block)."""
    fields: Counter[str] = Counter()
    for byte, count in enumerate(differs.sum(axis=0).tolist()):
        if count:
            fields[field_at(tensor_type, byte).split("[")[0]] += count
    return dict(fields)


def _judged(
    expected: PackedRows, found: PackedRows, tensor_type: TensorType, weights: FloatRows, importance: FloatRows | None
) -> tuple[NDArray[np.bool_], int | None, Errors]:
    """Judges blocks that differ: which are odd, how many values are misplaced, and the sums of errors."""
    mine, theirs = _unpacked(expected, tensor_type), _unpacked(found, tensor_type)
    if mine is None or theirs is None:
        return np.ones(len(expected), bool), None, Errors()
    with np.errstate(all="ignore"):
        source = weights.astype(np.float64)
        usable = np.isfinite(source) & np.isfinite(mine) & np.isfinite(theirs)
        a, b, w = (np.where(usable, values, 0.0) for values in (mine, theirs, source))
        my_error, their_error = ((x - w) ** 2 for x in (a, b))
        counts = _counts(source, importance)
        worse = (counts * their_error).sum(axis=1) > _WORSE * (counts * my_error).sum(axis=1)
        broken = ~usable.all(axis=1)
        errors = Errors(
            float((w * w).sum()),
            float((a * a).sum()),
            float((b * b).sum()),
            float(my_error.sum()),
            float(their_error.sum()),
            float((a * w).sum()),
            float((b * w).sum()),
        )
        if tensor_type.block_elements == 1:
            far = np.abs(a - b) > _ROUNDING * np.maximum(np.abs(a), np.abs(b))
            return broken | far.any(axis=1), None, errors
    if tensor_type.levels is None or tensor_type.levels.is_grid:
        return broken | worse, None, errors
    off_level = misplaced_values(found, tensor_type, weights)
    misplaced = np.zeros(len(found), np.int64) if off_level is None else off_level
    is_off = misplaced > 0
    odd = broken | (is_off & worse if tensor_type.rounds_late else is_off)
    return odd, int(misplaced.sum()), errors


def _counts(weights: NDArray[np.float64], importance: FloatRows | None) -> NDArray[np.float64] | float:
    """How much the error of each value counts if each column has an importance. The formula is close to ggml's."""
    if importance is None:
        return 1.0
    squares = weights * weights
    counts: NDArray[np.float64] = importance * np.sqrt(squares.mean(axis=1, keepdims=True) + squares)
    return counts


def _unpacked(blocks: PackedRows, tensor_type: TensorType) -> NDArray[np.float64] | None:
    """The values of blocks; None if there is no kernel for them."""
    if tensor_type.block_elements == 1:
        rows = blocks.reshape(len(blocks), -1)
        numbers = rows.view(tensor_type.dtype) if tensor_type.is_float else rows
        return as_float32(numbers, tensor_type).astype(np.float64)
    if tensor_type not in dequantizable_types():
        return None
    values = np.empty((len(blocks), tensor_type.block_elements), np.float32)
    dequantize_rows(np.ascontiguousarray(blocks), tensor_type, values)
    return values.astype(np.float64)
