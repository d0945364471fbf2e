"""Numbers of tensors as colours, in a table of roles and layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, log2

from gguf_forge.toolbox.report import words
from gguf_forge.toolbox.report.data import Tensor

COLOURS = 9
_SPAN_DB = 6.0  # smaller differences don't get the whole range of colours
_ORDER = (
    *("attn_qkv", "attn_q", "attn_q_a", "attn_q_b", "attn_k", "attn_kv_a_mqa", "attn_kv_b", "attn_k_b", "attn_v"),
    *("attn_v_b", "attn_gate", "attn_output", "ffn_gate_inp", "ffn_gate", "ffn_up", "ffn_down"),
    *("ffn_gate_up_exps", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"),
    *("ffn_gate_inp_shexp", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"),
)


@dataclass(frozen=True)
class Cell:
    """One tensor: the class of its colour, its number, and what is said when it is pointed at."""

    colour: str
    words: str
    tip: str


@dataclass(frozen=True)
class HeatMap:
    """One number of all matrices.

    Attributes:
        key: For the page's own use.
        title: What the number is called, and `explanation` what it means.
        cool, hot: The numbers at the ends of the range of colours.
        rows: For each role a cell for each layer; None where there is no such tensor.
        outside: Tensors outside the layers.
    """

    key: str
    title: str
    explanation: str
    cool: str
    hot: str
    layers: tuple[int, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    outside: tuple[tuple[str, Cell], ...]


@dataclass(frozen=True)
class Metric:
    """A number of a tensor. `heat` is what the colour follows: the greater, the hotter."""

    key: str
    title: str
    explanation: str
    value: Callable[[Tensor], float | None]
    heat: Callable[[float], float]
    shown: Callable[[float], str]
    is_exact_at: float | None = None


def _relative(tensor: Tensor) -> float | None:
    return tensor.error.relative if tensor.error and isfinite(tensor.error.relative) else None


def _worst(tensor: Tensor) -> float | None:
    if tensor.error is None:
        return None
    return tensor.error.worst.relative if tensor.error.worst else 0.0


def _at_ends(tensor: Tensor) -> float | None:
    return tensor.levels.at_ends if tensor.levels else None


def _unused(tensor: Tensor) -> float | None:
    """Share of the bits of a level that say nothing, because some levels are rarer than others."""
    if tensor.levels is None:
        return None
    return 1 - tensor.levels.entropy / log2(len(tensor.levels.rungs))


def _loudness(relative: float) -> float:
    """Decibels: equal factors are equal steps of colour."""
    return 20 * log2(relative) / log2(10)


ERROR = Metric(
    "error",
    "error",
    "RMSE of the tensor's weights, as a share of their RMS. Equal steps of colour are equal factors.",
    _relative,
    _loudness,
    words.percent,
    0.0,
)
WORST = Metric(
    "worst",
    "worst block",
    "RMSE of the block that lost most, as a share of the RMS of the whole tensor's weights.",
    _worst,
    _loudness,
    words.percent,
    0.0,
)
ENDS = Metric(
    "ends",
    "on the end levels",
    "Share of the values that stand on the first or last level of their ladder. Symmetric types put one of each block "
    "there by design; many more mean that weights were cut off.",
    _at_ends,
    lambda share: 100 * share,
    words.percent,
)
BITS = Metric(
    "bits",
    "bits for each weight",
    "What a weight of the tensor takes in the file, scales included.",
    lambda tensor: tensor.bits_per_weight,
    lambda bits: -bits,
    words.bits,
)
UNUSED = Metric(
    "unused",
    "unused level bits",
    "How far the levels are from being used equally often: the share of their bits that carries nothing.",
    _unused,
    lambda share: 100 * share,
    words.percent,
)


def heat_map(tensors: Sequence[Tensor], metric: Metric) -> HeatMap | None:
    """The map of one number; None if no tensor has it."""
    matrices = [tensor for tensor in tensors if len(tensor.shape) > 1]
    valued = [(tensor, metric.value(tensor)) for tensor in matrices]
    numbers = [value for _, value in valued if value is not None and value != metric.is_exact_at]
    if not numbers:
        return None
    heats = [metric.heat(value) for value in numbers]
    low, high = min(heats), max(heats)
    least = _SPAN_DB if metric.heat is _loudness else 0.0
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    cells: dict[tuple[int | None, str], Cell] = {}
    for tensor, value in valued:
        cells[tensor.layer, tensor.role] = _cell(tensor, value, metric, low, high)
    layers = tuple(sorted({layer for layer, _ in cells if layer is not None}))
    roles = sorted({role for layer, role in cells if layer is not None}, key=_place)
    return HeatMap(
        key=metric.key,
        title=metric.title,
        explanation=metric.explanation,
        cool=metric.shown(min(numbers, key=metric.heat)),
        hot=metric.shown(max(numbers, key=metric.heat)),
        layers=layers,
        rows=tuple((role, tuple(cells.get((layer, role)) for layer in layers)) for role in roles),
        outside=tuple((role, cell) for (layer, role), cell in cells.items() if layer is None),
    )


def _place(role: str) -> tuple[int, str]:
    return (_ORDER.index(role) if role in _ORDER else len(_ORDER), role)


def _cell(tensor: Tensor, value: float | None, metric: Metric, low: float, high: float) -> Cell:
    if value is None:
        return Cell("none", "", f"{tensor.name}\n{tensor.type}: not known")
    if value == metric.is_exact_at:
        return Cell("exact", "=", f"{tensor.name}\n{tensor.type}: every weight is exact")
    share = (metric.heat(value) - low) / (high - low) if high > low else 0.0
    colour = f"h{min(int(max(share, 0) * COLOURS), COLOURS - 1)}"
    return Cell(colour, metric.shown(value), tip_of(tensor))


def tip_of(tensor: Tensor) -> str:
    """What is said of a tensor when it is pointed at."""
    lines = [tensor.name, f"{tensor.type}, {words.bits(tensor.bits_per_weight)} bits for each weight"]
    if tensor.error:
        ratio = words.decibels(tensor.error.snr_db)
        lines.append(f"error {words.percent(tensor.error.relative)} ({ratio})" if tensor.error.snr_db else ratio)
        if tensor.error.worst:
            worst = tensor.error.worst
            lines.append(f"worst block {words.percent(worst.relative)}: row {worst.row}, block {worst.block}")
    if tensor.levels:
        lines.append(f"{words.percent(tensor.levels.at_ends)} of the values on the end levels")
    return "\n".join(lines)
