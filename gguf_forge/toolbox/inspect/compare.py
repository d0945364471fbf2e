"""How far two GGUF files are apart: their keys, and each tensor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from os import PathLike
from pathlib import Path

import numpy as np

from gguf_forge.engine.threads import Progress
from gguf_forge.gguf_file.opened import GgufFile, open_gguf
from gguf_forge.gguf_file.rules import COPYABLE, refuse
from gguf_forge.gguf_file.split import SPLIT_KEYS
from gguf_forge.gguf_file.tensor import GgufTensor
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.kernels.binding import dequantizable_types
from gguf_forge.recipe.tensor_rules import trimmed
from gguf_forge.toolbox.inspect.measure import Distance, OverallDistance, distance_between, overall
from gguf_forge.toolbox.inspect.metadata_diff import KeyDifference, metadata_differences
from gguf_forge.toolbox.inspect.rows_of import in_order, with_short_rows
from gguf_forge.types.foreign_type import ForeignType
from gguf_forge.types.tensor_type import TensorType

_AT_ONCE = 4 << 20


class Likeness(str, Enum):
    """How two tensors of one name are alike."""

    SAME = "same"  # type, shape and bytes
    VALUES = "same values"  # of another type, or written in another byte order
    DIFFERENT = "different"
    SHAPE = "other shape"
    ONLY_A = "only in A"
    ONLY_B = "only in B"
    UNREADABLE = "not readable"  # bytes differ, and no kernel unpacks the type


@dataclass(frozen=True)
class TensorComparison:
    """A tensor of two files.

    Attributes:
        name: What both call it.
        likeness: How alike the two are.
        a, b: How each file describes it; None where it is missing.
        distance: How far B is from A; None where their bytes are the same, or can't be compared.
    """

    name: str
    likeness: Likeness
    a: TensorInfo | None
    b: TensorInfo | None
    distance: Distance | None = None


@dataclass(frozen=True)
class Comparison:
    """How two files differ.

    Attributes:
        a, b: Their paths; of a split, the first part's.
        keys: Metadata keys that differ: B is what was found, A what it is compared with.
        order: Whether the tensors that both files have are in the same order.
        tensors: All tensors of A, in its order, then those that only B has.
        split_keys: The keys that say how a file is split, where they differ. They do not count.
    """

    a: Path
    b: Path
    keys: tuple[KeyDifference, ...]
    order: bool
    tensors: tuple[TensorComparison, ...]
    split_keys: tuple[str, ...] = ()

    def __repr__(self) -> str:
        different = sum(each.likeness is not Likeness.SAME for each in self.tensors)
        counts = f"{different} of {len(self.tensors)} tensors and {len(self.keys)} keys differ"
        return f"<Comparison {self.a} with {self.b}: {'same' if self.same else counts}>"

    @property
    def overall(self) -> OverallDistance | None:
        """How far B is from A, in all tensors whose bytes differ together; None if none could be measured."""
        distances = [each.distance for each in self.tensors if each.distance is not None]
        return overall(distances) if distances else None

    @property
    def same(self) -> bool:
        """Whether both hold the same keys and the same bytes of tensors, in the same order."""
        return not self.keys and self.order and all(each.likeness is Likeness.SAME for each in self.tensors)


def compare_gguf(
    a: str | PathLike[str],
    b: str | PathLike[str],
    *,
    only_tensors: bool = False,
    threads: int | None = None,
    progress: Progress = lambda n_bytes: None,
) -> Comparison:
    """Compares two GGUF files: keys, and how far each tensor of B is from that of A.

    Tensors whose bytes are the same aren't unpacked. How a file is split doesn't matter.

    Args:
        a: A file, or the first one of a split: the reference.
        b: The file whose errors are measured.
        only_tensors: Leave out the metadata, and the order of tensors.
        threads: Defaults to the processors this process may use.
        progress: Told the bytes of A as they are compared.

    Raises:
        InputError: a file is damaged.
        UnsupportedError: a version or tensor type that this version does not know.

    Example:
        >>> found = compare_gguf("model-BF16.gguf", "model-Q4_K_M.gguf")  # doctest: +SKIP
        >>> max(each.distance.relative for each in found.tensors if each.distance)  # doctest: +SKIP
        0.0731
    """
    with open_gguf(a, lenient=True) as first, open_gguf(b, lenient=True) as second:
        for gguf in (first, second):
            refuse(gguf.broken, but=COPYABLE)
        others = {tensor.name: tensor for tensor in second.tensors}
        names = {tensor.name for tensor in first.tensors}
        tensors = []
        for tensor in first.tensors:
            tensors.append(_compared(tensor, others.get(tensor.name), threads))
            progress(tensor.nbytes)
        tensors += [
            TensorComparison(tensor.name, Likeness.ONLY_B, None, _info(tensor))
            for tensor in second.tensors
            if tensor.name not in names
        ]
        keys = () if only_tensors else metadata_differences(first.typed_metadata, second.typed_metadata)
        order = only_tensors or _order(first, set(others)) == _order(second, names)
        first.check_unchanged()
        second.check_unchanged()
        split_keys = () if only_tensors else _split_keys_that_differ(first, second)
        return Comparison(first.paths[0], second.paths[0], keys, order, tuple(tensors), split_keys)


def _split_keys_that_differ(first: GgufFile, second: GgufFile) -> tuple[str, ...]:
    mine, theirs = first.typed_metadata, second.typed_metadata
    return tuple(key for key in SPLIT_KEYS if mine.get(key) != theirs.get(key))


def _order(gguf: GgufFile, others: set[str]) -> list[str]:
    return [tensor.name for tensor in gguf.tensors if tensor.name in others]


def _info(tensor: GgufTensor) -> TensorInfo:
    return replace(tensor.info, shape=trimmed(tensor.shape))


def _compared(a: GgufTensor, b: GgufTensor | None, threads: int | None) -> TensorComparison:
    mine = _info(a)
    if b is None:
        return TensorComparison(a.name, Likeness.ONLY_A, mine, None)
    theirs = _info(b)
    if mine.shape != theirs.shape:
        return TensorComparison(a.name, Likeness.SHAPE, mine, theirs)
    alike = (mine.type, a.byte_order, a.nbytes) == (theirs.type, b.byte_order, b.nbytes)
    if alike and _same_bytes(a, b, threads):
        return TensorComparison(a.name, Likeness.SAME, mine, theirs)
    if not (_can_be_unpacked(mine.type) and _can_be_unpacked(theirs.type)):
        return TensorComparison(a.name, Likeness.UNREADABLE, mine, theirs)
    one, other = a.expression(), b.expression()
    if mine.type.block_elements == theirs.type.block_elements:
        one, other = with_short_rows(one), with_short_rows(other)
    distance = distance_between(one, other, threads=threads)
    is_same = not distance.differing and not distance.nonfinite
    return TensorComparison(a.name, Likeness.VALUES if is_same else Likeness.DIFFERENT, mine, theirs, distance)


def _can_be_unpacked(kind: TensorType) -> bool:
    return not isinstance(kind, ForeignType) and (not kind.is_packed or kind in dequantizable_types())


def _same_bytes(a: GgufTensor, b: GgufTensor, threads: int | None) -> bool:
    def same(start: int) -> bool:
        size = min(_AT_ONCE, a.nbytes - start)
        return np.array_equal(a.source.read(a.offset + start, size), b.source.read(b.offset + start, size))

    return all(in_order(same, range(0, a.nbytes, _AT_ONCE), threads=threads))
