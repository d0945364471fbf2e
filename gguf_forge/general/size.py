"""Parameter counts and the size label made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from gguf_forge.gguf_file.tensor_info import TensorInfo


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model: all, those outside experts, those of one expert; and how many experts it has.

    `total` is negative for a LoRA adapter, whose own tensors only tell a lower bound.
    """

    total: int = 0
    shared: int = 0
    expert: int = 0
    n_expert: int = 0


def parameter_count(tensors: Sequence[TensorInfo]) -> ParameterCount:
    """Count the parameters of the tensors of a converted model, in file order.

    A LoRA pair counts as the matrix it adds to; a pair out of order makes everything uncountable (all zero).

    Example:
        >>> from gguf_forge.types.tensor_type import F32
        >>> parameter_count([TensorInfo("blk.0.ffn_up_exps.weight", (8, 4, 16), F32)])
        ParameterCount(total=512, shared=0, expert=32, n_expert=16)

    Source: get_total_parameter_count in gguf_writer.py of gguf-py.
    """
    total = shared = expert = 0
    counts: list[int] = []
    lora_a: TensorInfo | None = None
    for info in tensors:
        shape = info.shape
        if info.name.endswith(".lora_a"):
            lora_a = info
            continue
        if info.name.endswith(".lora_b"):
            if lora_a is None or lora_a.name != f"{info.name[:-1]}a":
                return ParameterCount()
            shape = (*lora_a.shape[:1], *shape[1:])
        size = prod(shape)
        total += size
        # Biases of stacked experts have two dimensions, so they count as shared.
        if "_exps." in info.name and len(shape) >= 3 and (n := shape[1 if ".bias" in info.name else 2]):
            expert += size // n
            counts.append(n)
        else:
            shared += size
    n_expert = sum(counts) // len(counts) if counts else 0
    return ParameterCount(total if lora_a is None else -total, shared, expert, n_expert)


def size_label(count: ParameterCount) -> str:
    """The size label: "1.1B", or "8x7B" for a model with experts.

    Example:
        >>> size_label(ParameterCount(total=1_100_000_000, shared=1_100_000_000))
        '1.1B'

    Source: size_label in utility.py of gguf-py.
    """
    if count.n_expert > 0:
        return f"{count.n_expert}x{_rounded(count.shared + count.expert)}"
    return _rounded(abs(count.total))


def _rounded(count: int) -> str:
    """Two significant digits or all those before the decimal point, and a unit of thousands."""
    units = ((1e12, 1e-12, "T"), (1e9, 1e-9, "B"), (1e6, 1e-6, "M"))
    scale, unit = next(((scale, unit) for bound, scale, unit in units if count > bound), (1e-3, "K"))
    scaled = count * scale
    digits = len(str(round(scaled)).lstrip("0"))
    return f"{scaled:.{max(2 - digits, 0)}f}{unit}"
