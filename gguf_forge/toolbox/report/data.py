"""What a report knows of a file: the data behind the page, and what `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from gguf_forge.errors import printable
from gguf_forge.toolbox.verify.integrity import Problem


@dataclass(frozen=True)
class Model:
    """What the file is.

    Attributes:
        files: Their paths; several of a split.
        size: Bytes of all files.
        parameters: Values of all tensors.
        tensor_bytes: What they take.
        file_type: As `general.file_type` says, or None.
        facts: More of the metadata that a person may want to see.
        metadata: Every key with its value, long ones cut.
    """

    name: str
    architecture: str
    files: tuple[str, ...]
    size: int
    parameters: int
    tensor_bytes: int
    file_type: str | None
    layers: int
    facts: Mapping[str, str]
    metadata: Mapping[str, str]

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.tensor_bytes / self.parameters if self.parameters else 0.0


@dataclass(frozen=True)
class BlockError:
    """A block of a tensor, both from 0, and its error.

    Attributes:
        relative: RMSE of the block's weights, divided by the RMS of all weights of the tensor. This is what the error
            of a block is everywhere in a report: the squares of all blocks' errors average to that of the tensor.
    """

    row: int
    block: int
    relative: float


@dataclass(frozen=True)
class Error:
    """The error of a tensor's values against those of the source.

    Attributes:
        rmse: Root of the mean squared difference.
        relative: That, divided by the root of the mean square of the source's values; infinite if those are zero.
        snr_db: Signal to noise in decibels, -20 log10(relative); None where nothing differs.
        largest: The greatest difference.
        cosine: Of the angle between the two.
        nonfinite: Values that are infinite or not a number, in the file or the source; the rest speaks of the others.
        worst: The block with the greatest error; None where nothing differs.
    """

    rmse: float
    relative: float
    snr_db: float | None
    largest: float
    cosine: float
    nonfinite: int
    worst: BlockError | None


@dataclass(frozen=True)
class Overall:
    """The error of all compared tensors, as if they were one; attributes as those of `Error`."""

    tensors: int
    relative: float
    snr_db: float | None
    largest: float
    nonfinite: int


@dataclass(frozen=True)
class Levels:
    """How the blocks of a tensor use their levels, from a sample of its rows.

    Attributes:
        sampled: Values that were looked at.
        rungs: The levels of the type, in steps from the base of a block.
        counts: How many values are on each.
        at_ends: Share of the values on the first or last level.
        entropy: Bits that the levels in use carry, of log2(len(rungs)).
        flat: Share of the sub-blocks whose step is 0: all their values are one.
        steps: 5th, 50th and 95th percentile of the absolute step widths.
    """

    sampled: int
    rungs: tuple[float, ...]
    counts: tuple[int, ...]
    at_ends: float
    entropy: float
    flat: float
    steps: tuple[float, float, float]


@dataclass(frozen=True)
class Tensor:
    """One tensor.

    Attributes:
        layer: The number in `blk.N.`; None outside the layers.
        role: The rest of the name, such as `attn_q`.
        wanted: The type that its file type names, where a row of it is no whole number of that type's blocks.
        error: Against the source; None without one, or where the source has no such tensor.
        levels: None for float types.
    """

    name: str
    layer: int | None
    role: str
    shape: tuple[int, ...]
    type: str
    parameters: int
    nbytes: int
    wanted: str | None
    error: Error | None
    levels: Levels | None

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / self.parameters if self.parameters else 0.0


@dataclass(frozen=True)
class Portrait:
    """The distribution of a tensor's weights, and the levels of a typical block.

    Attributes:
        why: What makes the tensor worth a look.
        edges: Borders of the histogram's bins; the first and last bin also count all beyond.
        counts: Values in each bin.
        levels: Those of the block whose step is the median.
        values_per_scale: Values that share such levels.
        deviation: The standard deviation.
        largest: The greatest magnitude.
        sampled: How many values were looked at.
        of_source: Whether these are the weights of the source, and not the values in the file.
    """

    tensor: str
    type: str
    why: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    levels: tuple[float, ...]
    values_per_scale: int
    deviation: float
    largest: float
    sampled: int
    of_source: bool


@dataclass(frozen=True)
class BlockView:
    """One block: its weights, and what became of them.

    Attributes:
        weights: Before rounding; None without a source.
        stored: After it.
        levels: Those of each sub-block.
        bases: What each sub-block adds to all its levels: 0 for symmetric types.
        steps: What each sub-block multiplies the rungs of the type by.
        fields: The block's floating-point scales by ggml's names for them.
        relative: Its error, as that of a `BlockError`; None without a source.
    """

    title: str
    tensor: str
    type: str
    row: int
    block: int
    weights: tuple[float, ...] | None
    stored: tuple[float, ...]
    levels: tuple[tuple[float, ...], ...]
    bases: tuple[float, ...]
    steps: tuple[float, ...]
    fields: Mapping[str, float]
    relative: float | None


@dataclass(frozen=True)
class Rounding:
    """The same weights as one type would store them; `relative` is their error, as that of a `BlockError`."""

    type: str
    bits_per_weight: float
    levels: tuple[float, ...]
    stored: tuple[float, ...]
    relative: float
    used: int


@dataclass(frozen=True)
class Symmetry:
    """32 weights that have less error with a ladder that is not centred on zero, and how common such weights are."""

    tensor: str
    row: int
    block: int
    weights: tuple[float, ...]
    roundings: tuple[Rounding, ...]
    blocks: int
    share_better: float
    overall: Mapping[str, float]


@dataclass(frozen=True)
class SizeCost:
    """Plain rounding to 16 levels between the least and greatest of `size` weights."""

    size: int
    bits_per_weight: float
    relative: float


@dataclass(frozen=True)
class BlockSize:
    """256 weights with one ladder, and with one for each 32; and all block sizes over many weights."""

    tensor: str
    row: int
    first: int
    weights: tuple[float, ...]
    small: tuple[tuple[float, ...], ...]
    large: tuple[float, ...]
    relative_small: float
    relative_large: float
    costs: tuple[SizeCost, ...]
    sampled: int


@dataclass(frozen=True)
class Outlier:
    """A block with a weight far from the others, and the same one without it.

    Attributes:
        rest: The weights with the outlier replaced by zero.
        at: Which weight stands out.
        ratio: Its magnitude, in RMS of the others.
        with_it: The block as Q4_0 stores it.
        without: The rest, as Q4_0 stores that.
        cloud: For many blocks: (greatest magnitude, in RMS of the tensor's weights; error of the block).
    """

    tensor: str
    row: int
    block: int
    weights: tuple[float, ...]
    rest: tuple[float, ...]
    at: int
    ratio: float
    with_it: Rounding
    without: Rounding
    cloud: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Alternative:
    """What a type would make of the sampled weights.

    Attributes:
        needs_imatrix: Whether files of the type are made with an importance matrix. Here all columns count alike, so a
            matrix would change the error.
    """

    type: str
    bits_per_weight: float
    relative: float
    needs_imatrix: bool


@dataclass(frozen=True)
class Lessons:
    """Quantization explained on the file's own weights.

    Attributes:
        of_source: Whether the weights are those of the source. If not, they come from the most precise tensors of the
            file.
        tensors: Where they come from.
        sampled: How many there are.
        alternatives: Every type on the same sample.
    """

    of_source: bool
    tensors: tuple[str, ...]
    sampled: int
    symmetry: Symmetry | None
    block_size: BlockSize | None
    outlier: Outlier | None
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class Report:
    """All that a page shows.

    Attributes:
        source: The folder or file that the tensors were compared with, or None.
        missing: Tensors that the source does not have, or has in another shape.
        error: Of all tensors that were compared; None without a source.
        problems: What is wrong in the file by itself; None if its blocks cannot be checked.
    """

    version: str
    model: Model
    source: str | None
    missing: tuple[str, ...]
    error: Overall | None
    problems: tuple[Problem, ...] | None
    tensors: tuple[Tensor, ...]
    portraits: tuple[Portrait, ...]
    blocks: tuple[BlockView, ...]
    lessons: Lessons | None

    def __repr__(self) -> str:
        error = (
            "" if self.error is None else f", error {self.error.relative:.2%} against {printable(self.source or '')}"
        )
        return f"<Report {self.model.files[0]}: {self.model.file_type}, {len(self.tensors)} tensors{error}>"

    @property
    def fallbacks(self) -> tuple[Tensor, ...]:
        """Tensors that got another type than the wanted one."""
        return tuple(tensor for tensor in self.tensors if tensor.wanted)


def as_object(value: Any) -> Any:
    """Data as JSON has it: objects, lists, numbers; what JSON has no number for is null.

    Example:
        >>> as_object(BlockError(3, 0, float("inf")))
        {'row': 3, 'block': 0, 'relative': None}
    """
    if is_dataclass(value):
        derived = [name for name in ("bits_per_weight",) if isinstance(getattr(type(value), name, None), property)]
        names = [*(field.name for field in fields(value)), *derived]
        return {name: as_object(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {key: as_object(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [as_object(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
