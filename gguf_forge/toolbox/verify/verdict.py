"""What differences mean: damage, other arithmetic, another recipe, other weights.

The rules are based on measurements: what llama.cpp's quantizers give when they are built with and without fused
multiply-add, with and without importance, and on changed weights, and what flipped bits do. docs/exactness.md has the
figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.toolbox.verify.differences import Differences
from gguf_forge.types.tensor_type import TensorType


class Verdict(str, Enum):
    """What a tensor, or a whole file, turned out to be."""

    IDENTICAL = "identical"
    FUSED = "fused"  # the same weights and recipe, with fused multiply-add
    STEPS = "steps"  # a few blocks that a quantizer could have made of these weights
    DAMAGED = "damaged"  # a few blocks that it could not
    RECIPE = "recipe"  # the same weights, packed in another way
    RELATED = "related"  # weights near to these
    OTHER = "other"  # weights that have nothing to do with these
    METADATA = "metadata"  # only keys differ, or the order of tensors
    TYPE = "type"
    SHAPE = "shape"
    MISSING = "missing"
    EXTRA = "extra"


# "Few" differing blocks are at most `_FEW` of a tensor's blocks, or at most `_FEW_BLOCKS` in a small tensor. Fused
# multiply-add changes up to 2.4 % of the blocks, so its differences count as few.
_FEW, _FEW_BLOCKS = 0.05, 3
# The fewest differing blocks of one type, as a share and as a number, that show that arithmetic was fused.
_LEAST_FUSED, _LEAST_FUSED_BLOCKS = 1e-4, 3
# The most misplaced values (not at the nearest level) for which the weights can be the same. Formats that round the
# scale late misplace up to 0.1 % of the same weights, and up to 0.8 % if importance differs much between columns. Other
# formats misplace none. Weights that changed by 1 % give 0.4 % or more.
_MISPLACED_LATE, _MISPLACED_LATE_BY_IMPORTANCE, _MISPLACED = 0.003, 0.012, 0.0002
# The share of a few differing blocks that may be odd in formats that round the scale late, packed with importance.
_ODD_LATE_BY_IMPORTANCE = 0.2
# For types without levels: the relative difference of squared errors with and without importance stays below this.
_ODD = 0.1
# Weights are unrelated if their cosine is below this share of the cosine that the right blocks have.
_UNRELATED = 0.5


@dataclass(frozen=True)
class TensorCheck:
    """A tensor of the file, and the tensor that it should be.

    Attributes:
        info: As the file has it, or as it should be if the file lacks it.
        verdict: What it turned out to be.
        blocks: How many blocks it has; values, where it isn't packed.
        sources: The tensors of the source that it is made of.
        steps: What happens to them on the way, in words.
        expected: The type or shape that it should have, where that differs.
        differences: Where its bytes differ; None if they don't, or can't be compared.
        explanation: Another way of making it that gives the bytes that differ, in words; None if none was found.
    """

    info: TensorInfo
    verdict: Verdict
    blocks: int
    sources: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    expected: str | None = None
    differences: Differences | None = None
    explanation: str | None = None


def verdict_on(found: Differences, tensor_type: TensorType, blocks: int, *, by_importance: bool = False) -> Verdict:
    """What the differences of a tensor mean.

    Args:
        found: Where its bytes differ from what they should be.
        tensor_type: Its type.
        blocks: How many blocks it has.
        by_importance: Whether it should have been packed with an importance matrix.
    """
    if not found.blocks:
        return Verdict.IDENTICAL
    if found.blocks <= max(_FEW * blocks, _FEW_BLOCKS):
        tolerated = _ODD_LATE_BY_IMPORTANCE * found.judged if tensor_type.rounds_late and by_importance else 0
        # a float type has no scales, so no quantizer could have chosen another one
        is_damaged = found.odd_blocks > tolerated or tensor_type.block_elements == 1
        return Verdict.DAMAGED if is_damaged else Verdict.STEPS
    if found.misplaced is not None:
        late = _MISPLACED_LATE_BY_IMPORTANCE if by_importance else _MISPLACED_LATE
        same = found.misplaced <= (late if tensor_type.rounds_late else _MISPLACED) * found.values
    else:
        same = found.odd_blocks <= _ODD * found.judged
    if same:
        return Verdict.RECIPE
    errors = found.errors
    return Verdict.OTHER if errors.cosine < _UNRELATED * errors.expected_cosine else Verdict.RELATED


def verdict_on_file(tensors: Sequence[TensorCheck], keys_differ: bool) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict on a file, and the sentences that explain it.

    Args:
        tensors: All that were compared.
        keys_differ: Whether metadata keys or the order of tensors differ.
    """
    verdict, sentences = _verdict_on_tensors(tensors)
    if not keys_differ:
        return verdict, sentences
    return Verdict.METADATA if verdict is Verdict.IDENTICAL else verdict, (*sentences, "Metadata differs.")


def _verdict_on_tensors(tensors: Sequence[TensorCheck]) -> tuple[Verdict, tuple[str, ...]]:
    groups = Counter(check.verdict for check in tensors)
    different = [check for check in tensors if check.verdict is not Verdict.IDENTICAL]
    if not different:
        return Verdict.IDENTICAL, (f"All {len(tensors)} tensors are identical to a fresh conversion.",)
    ways = Counter(check.explanation for check in different if check.explanation)
    said = tuple(f"{_tensors(n)} came out the same {way}." for way, n in ways.items())
    if all(check.explanation for check in different):
        return Verdict.RECIPE, ("The same weights, made in another way.", *said)
    if ways:
        rest = [check for check in tensors if not check.explanation]
        verdict, sentences = _verdict_on_tensors(rest)
        return verdict, (*said, *sentences)
    if set(groups) <= {Verdict.IDENTICAL, Verdict.STEPS}:
        return _steps(tensors, different)
    worst = next(verdict for verdict in _BY_GRAVITY if groups[verdict])
    words = dict(_SENTENCES)
    if worst in (Verdict.OTHER, Verdict.RELATED):
        words[Verdict.RECIPE] = "Too coarse to tell: what {} came from could be the same weights or near ones."
    return worst, tuple(words[verdict].format(_tensors(groups[verdict])) for verdict in _BY_GRAVITY if groups[verdict])


def _steps(tensors: Sequence[TensorCheck], different: Sequence[TensorCheck]) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict if few blocks of each tensor differ, and a quantizer could have made them of the same weights."""
    all_blocks, changed = Counter[TensorType](), Counter[TensorType]()
    for check in tensors:
        all_blocks[check.info.type] += check.blocks
        changed[check.info.type] += check.differences.blocks if check.differences else 0
    share = changed.total() / sum(all_blocks[of] for of in changed if of.is_fusible or changed[of])
    only_fusible = all(check.info.type.is_fusible for check in different)
    shows = any(n >= max(_LEAST_FUSED_BLOCKS, _LEAST_FUSED * all_blocks[of]) for of, n in changed.items())
    if only_fusible and shows:
        return Verdict.FUSED, (
            f"{share:.2%} of the blocks differ by small steps, and nothing differs in another way: the same weights "
            "and recipe, made with fused multiply-add, as llama.cpp does on other machines (arm64).",
        )
    return Verdict.STEPS, (
        f"{changed.total()} blocks differ by small steps, too few for fused arithmetic: low bits were changed.",
    )


def _tensors(n: int) -> str:
    return "1 tensor" if n == 1 else f"{n} tensors"


_SENTENCES = {
    Verdict.OTHER: "Other weights: those of {} have nothing in common with the source; is it another model?",
    Verdict.RELATED: "Similar but different weights in {}: is it a fine-tune, another revision, or a requantized file?",
    Verdict.SHAPE: "Another shape: {} cannot be compared.",
    Verdict.MISSING: "Missing: {} of the source should be in the file.",
    Verdict.EXTRA: "Extra: {} of the file come from nothing in the source.",
    Verdict.TYPE: "Another type than the options give: {} cannot be compared byte by byte.",
    Verdict.DAMAGED: "Damaged: a few blocks of {} are not what any quantizer makes of these weights.",
    Verdict.RECIPE: "Same weights, other recipe: {} are packed in another way: with another importance matrix, or by "
    "another program.",
    Verdict.STEPS: "Small steps: a few blocks of {} differ by what a quantizer could have made of these weights.",
    Verdict.IDENTICAL: "Identical: {}.",
}
_BY_GRAVITY = tuple(_SENTENCES)
