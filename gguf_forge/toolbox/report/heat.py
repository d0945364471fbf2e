"""Numbers of tensors as colours, in a table of roles and layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, log2
from statistics import median

from gguf_forge.toolbox.report import words
from gguf_forge.toolbox.report.data import Tensor

COLOURS = 9
_MOST_LAYERS, _MOST_ROLES = 512, 64  # rows and columns of a map; real models have fewer
_LOOKS = {"few": 4, "some": 10, "many": 24}  # the most layers whose numbers fit on a phone, a tablet, a desk
_LEAST = 0.001  # errors up to this get the coolest colour; each further colour is a factor of two
_ORDER = (
    *("attn_qkv", "attn_q", "attn_q_a", "attn_q_b", "attn_k", "attn_kv_a_mqa", "attn_kv_b", "attn_k_b", "attn_v"),
    *("attn_v_b", "attn_gate", "attn_output", "ffn_gate_inp", "ffn_gate", "ffn_up", "ffn_down"),
    *("ffn_gate_up_exps", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"),
    *("ffn_gate_inp_shexp", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"),
)


@dataclass(frozen=True)
class Cell:
    """One tensor: the class of its colour, its number in words, and its place in the list of tensors."""

    colour: str
    words: str
    tensor: int


@dataclass(frozen=True)
class HeatMap:
    """One number of all matrices.

    Attributes:
        key: For the page's own use.
        title: What the number is called, and `explanation` what it means.
        cool, hot: The numbers at the ends of the range of colours.
        rows: For each role a cell for each layer; None where there is no such tensor.
        all_layers, all_roles: How many the model has; `layers` and `rows` are the first of very many.
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
    all_layers: int
    all_roles: int

    @property
    def look(self) -> str:
        """The class of the table: how wide a screen must be for cells that have room for their numbers."""
        fits = (look for look, most in _LOOKS.items() if len(self.layers) <= most)
        return next(fits, "dense")


@dataclass(frozen=True)
class Metric:
    """A number of a tensor.

    Attributes:
        value: The number; None where there is none.
        heat: Where it is between cool and hot: 0 to 1. Always the same, so that pages can be compared.
        cool, hot: What these ends mean.
        is_exact_at: The number that means that nothing was lost.
    """

    key: str
    title: str
    explanation: str
    value: Callable[[Tensor], float | None]
    heat: Callable[[float], float]
    shown: Callable[[float], str]
    cool: str
    hot: str
    is_exact_at: float | None = None


def _relative(tensor: Tensor) -> float | None:
    return tensor.error.relative if tensor.error and isfinite(tensor.error.relative) else None


def _worst(tensor: Tensor) -> float | None:
    if tensor.error is None:
        return None
    return tensor.error.worst.relative if tensor.error.worst else 0.0


def _doublings(relative: float) -> float:
    return log2(relative / _LEAST) / COLOURS


def _unused(tensor: Tensor) -> float | None:
    if tensor.levels is None:
        return None
    return 1 - tensor.levels.entropy / log2(len(tensor.levels.rungs))


_FACTOR_OF_TWO = "Each colour is a factor of two, about what one bit is worth; equal colours are equal on all pages."
ERROR = Metric(
    "error",
    "error",
    f"RMSE of the tensor's weights, divided by their RMS. {_FACTOR_OF_TWO}",
    _relative,
    _doublings,
    words.percent,
    "0.1 %",
    "51 %",
    0.0,
)
WORST = Metric(
    "worst",
    "worst block",
    f"The error of the block that lost most: its RMSE, divided by the RMS of the whole tensor. {_FACTOR_OF_TWO}",
    _worst,
    _doublings,
    words.percent,
    "0.1 %",
    "51 %",
    0.0,
)
ENDS = Metric(
    "ends",
    "on the end levels",
    "Share of the values on the first or last level of their block. Symmetric types put at least one of each block "
    "there; with few levels it is many.",
    lambda tensor: tensor.levels.at_ends if tensor.levels else None,
    lambda share: share / 0.6,
    words.percent,
    "0 %",
    "60 %",
)
BITS = Metric(
    "bits",
    "bits for each weight",
    "What a weight of the tensor takes in the file, scales included.",
    lambda tensor: tensor.bits_per_weight,
    lambda bits: (4 - log2(bits)) / 3.5 if bits else 0.0,
    words.bits,
    "16",
    "1.5",
)
UNUSED = Metric(
    "unused",
    "unused bits",
    "How far the levels are from being used equally often: the share of their bits that carries nothing.",
    _unused,
    lambda share: share / 0.3,
    words.percent,
    "0 %",
    "30 %",
)


def against_type(tensors: Sequence[Tensor]) -> Metric:
    """The error of a tensor as a multiple of the median of its type. It shows which tensors are hard to round."""
    errors: dict[str, list[float]] = {}
    for tensor in tensors:
        if len(tensor.shape) > 1 and (error := _relative(tensor)):
            errors.setdefault(tensor.type, []).append(error)
    medians = {kind: median(found) for kind, found in errors.items()}

    def value(tensor: Tensor) -> float | None:
        error = _relative(tensor)
        return error / medians[tensor.type] if error else None

    return Metric(
        "peers",
        "relative to its type",
        "The error as a multiple of the median of the tensors of the same type: hot ones are harder to round than "
        "others, and would gain most from more bits.",
        value,
        lambda ratio: 0.5 + log2(ratio) / 2 if ratio > 0 else 0.0,
        lambda ratio: f"\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}{ratio:.2f}",
        "half",
        "double",
    )


def heat_map(tensors: Sequence[Tensor], metric: Metric) -> HeatMap | None:
    """The map of one number; None if no tensor has it."""
    valued = [(at, tensor, metric.value(tensor)) for at, tensor in enumerate(tensors) if len(tensor.shape) > 1]
    if all(value is None or value == metric.is_exact_at for _, _, value in valued):
        return None
    cells = {(tensor.layer, tensor.role): _cell(at, value, metric) for at, tensor, value in valued}
    all_layers = sorted({layer for layer, _ in cells if layer is not None})
    all_roles = sorted({role for layer, role in cells if layer is not None}, key=role_order)
    layers, roles = tuple(all_layers[:_MOST_LAYERS]), all_roles[:_MOST_ROLES]
    return HeatMap(
        key=metric.key,
        title=metric.title,
        explanation=metric.explanation,
        cool=metric.cool,
        hot=metric.hot,
        layers=layers,
        rows=tuple((role, tuple(cells.get((layer, role)) for layer in layers)) for role in roles),
        outside=tuple((role, cell) for (layer, role), cell in cells.items() if layer is None)[:_MOST_ROLES],
        all_layers=len(all_layers),
        all_roles=len(all_roles),
    )


def role_order(role: str) -> tuple[int, str]:
    """The place of a role in a list: attention first, in the order of computation."""
    return (_ORDER.index(role) if role in _ORDER else len(_ORDER), role)


def _cell(at: int, value: float | None, metric: Metric) -> Cell:
    if value is None:
        return Cell("none", "", at)
    if value == metric.is_exact_at:
        return Cell("exact", "=", at)
    colour = min(max(int(metric.heat(value) * COLOURS), 0), COLOURS - 1)
    return Cell(f"h{colour}", metric.shown(value), at)
