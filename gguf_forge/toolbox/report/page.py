"""The page: one HTML file that needs no other and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files as package_files
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gguf_forge.toolbox.report import charts, ladder_charts, words
from gguf_forge.toolbox.report.data import BlockError, Report, Tensor
from gguf_forge.toolbox.report.heat import (
    BITS,
    COLOURS,
    ENDS,
    ERROR,
    UNUSED,
    WORST,
    against_type,
    heat_map,
    role_order,
)
from gguf_forge.toolbox.report.svg import HALF, words_of
from gguf_forge.types.levels import Grid
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType

_NOTES = {
    "Q4_0": "symmetric: one step, and zero is a level",
    "Q4_1": "asymmetric: step and offset, 16 bits each",
    "Q4_K": "asymmetric: step and offset, 6 bits each",
    "IQ4_NL": "symmetric, levels denser near zero",
}
_ROLES = 12
_OTHER_MODEL = 0.9  # a relative error that no type reaches, so the source must be another model
_MOST_TENSORS, _MOST_KEYS, _MOST_LAYERS = 4000, 1000, 512  # the most that a page lists; real models have fewer
_FEW_LAYERS = 8  # up to this number of layers, two charts fit next to each other


def page(report: Report) -> str:
    """The report as HTML. All text from files is escaped, and a policy in the page forbids it to load anything."""
    return _environment().get_template("page.html.j2").render(_shown(report))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gguf_forge.toolbox.report", "template"),
        autoescape=True,
        finalize=words_of,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {name: getattr(words, name) for name in ("size", "count", "percent", "decibels", "bits", "three", "weight")}
    )
    environment.globals.update(
        charts=charts,
        ladders=ladder_charts,
        tip_of=tip_of,
        shape=charts.shape_text,
        describe=describe_type,
        notes=_NOTES,
        heat_colours=range(COLOURS),
        tensor_types=TENSOR_TYPES,
    )
    return environment


def _asset(name: str) -> tuple[Markup, str]:
    """A style sheet or script of the page, and its hash for the page's policy."""
    content = package_files("gguf_forge.toolbox.report").joinpath("template").joinpath(name).read_text()
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return Markup(content), f"sha256-{digest}"


def _shown(report: Report) -> Mapping[str, Any]:
    style, style_hash = _asset("page.css")
    script, script_hash = _asset("page.js")
    metrics = (ERROR, against_type(report.tensors), WORST, ENDS, BITS) if report.source else (ENDS, UNUSED, BITS)
    types, layers, listed = _types(report), _layers(report), _listed(report)
    symmetry = report.lessons.symmetry if report.lessons else None
    return {
        "report": report,
        "listed": listed,
        "keys": list(report.model.metadata.items())[:_MOST_KEYS],
        "style": style,
        "style_hash": style_hash,
        "script": script,
        "script_hash": script_hash,
        "types": types,
        "colours_of": charts.paint({name: bits for name, bits, _, _ in types}),
        "half": HALF,
        "layers": layers,
        "all_layers": len({tensor.layer for tensor in report.tensors} - {None}),
        "few_layers": len(layers) <= _FEW_LAYERS,
        "roles": _roles(report),
        "findings": tuple(_findings(report)),
        "maps": [found for metric in metrics if (found := heat_map(listed, metric))],
        "stand_ins": _stand_ins(report),
        "is_mix": len({tensor.type for tensor in report.tensors if len(tensor.shape) > 1}) > 1,
        "exact_types": _not_drawn(report),
        "is_packed": any(tensor.levels for tensor in report.tensors),
        "levels": {tensor.name: tensor.levels for tensor in report.tensors},
        "k_quant": symmetry.overall.get("Q4_K") if symmetry else None,
    }


def _not_drawn(report: Report) -> list[str]:
    """Types of the file's matrices that the comparison of types leaves out."""
    drawn = {one.type for one in report.lessons.alternatives} if report.lessons else set()
    return sorted({tensor.type for tensor in report.tensors if len(tensor.shape) > 1} - drawn)


def _listed(report: Report) -> list[Tensor]:
    """The tensors that are drawn and listed, in file order: all, or the largest of very many."""
    largest = sorted(range(len(report.tensors)), key=lambda at: -report.tensors[at].nbytes)[:_MOST_TENSORS]
    return [report.tensors[at] for at in sorted(largest)]


def tip_of(tensor: Tensor) -> str:
    """The text that appears when the mouse is over a tensor."""
    lines = [
        tensor.name,
        f"{tensor.type}, {words.bits(tensor.bits_per_weight)} bits for each weight",
        f"{charts.shape_text(tensor.shape)}, {words.size(tensor.nbytes)}",
    ]
    error, use = tensor.error, tensor.levels
    if error and error.relative:
        ratio = f" ({words.decibels(error.snr_db)})" if error.snr_db is not None else ""
        lines.append(f"error {words.percent(error.relative)}{ratio}")
    elif error:
        lines.append("every weight is exact")
    if error and error.worst:
        place = f"row {error.worst.row}, block {error.worst.block}"
        lines.append(f"worst block {words.percent(error.worst.relative)}: {place}")
    if use:
        lines.append(f"{words.percent(use.at_ends)} of the values on the end levels")
    return "\n".join(lines)


def _types(report: Report) -> list[tuple[str, float, int, int]]:
    """Types of the file, few bits first: name, bits for each weight, bytes, tensors."""
    nbytes: Counter[str] = Counter()
    number: Counter[str] = Counter()
    for tensor in report.tensors:
        nbytes[tensor.type] += tensor.nbytes
        number[tensor.type] += 1
    rows = [(name, _bits(name), nbytes[name], number[name]) for name in nbytes]
    return sorted(rows, key=lambda row: row[1])


def _bits(name: str) -> float:
    tensor_type = TensorType.named(name)
    return 8 * tensor_type.block_bytes / tensor_type.block_elements


def _stacked(tensors: Iterable[Tensor], key: Callable[[Tensor], Any]) -> dict[Any, dict[str, int]]:
    """The bytes of tensors of equal key, by type."""
    stacks: dict[Any, dict[str, int]] = {}
    for tensor in sorted(tensors, key=lambda tensor: _bits(tensor.type)):
        stack = stacks.setdefault(key(tensor), {})
        stack[tensor.type] = stack.get(tensor.type, 0) + tensor.nbytes
    return stacks


def _layers(report: Report) -> list[tuple[str, dict[str, int]]]:
    stacks = _stacked((tensor for tensor in report.tensors if tensor.layer is not None), lambda tensor: tensor.layer)
    return [(str(layer), stacks[layer]) for layer in sorted(stacks)[:_MOST_LAYERS]]


def _roles(report: Report) -> list[tuple[str, dict[str, int]]]:
    """The largest roles; the others as one."""
    stacks = _stacked(report.tensors, lambda tensor: tensor.role)
    largest = sorted(stacks, key=lambda role: -sum(stacks[role].values()))[:_ROLES]
    other = _stacked((tensor for tensor in report.tensors if tensor.role not in largest), lambda tensor: "others")
    return [*((role, stacks[role]) for role in sorted(largest, key=role_order)), *other.items()]


def _stand_ins(report: Report) -> list[tuple[str, str, int, list[Tensor]]]:
    """Tensors that got another type than the one wanted: wanted, given, row length, tensors."""
    groups: dict[tuple[str, str, int], list[Tensor]] = {}
    for tensor in report.fallbacks:
        groups.setdefault((tensor.wanted or "", tensor.type, tensor.shape[0]), []).append(tensor)
    return [(*key, members) for key, members in groups.items()]


def _findings(report: Report) -> Iterator[tuple[str, str]]:
    """The main results as (mood, sentence)."""
    for problem in report.problems or ():
        yield "bad", f"{problem.file}: {problem.tensor + ': ' if problem.tensor else ''}{problem.what}."
    if report.problems == ():
        yield "good", "No block of the file is invalid, and no scale is infinite or not a number."
    if report.error and report.error.nonfinite:
        yield "bad", f"{report.error.nonfinite:,} values are infinite or not a number, in the file or in the source."
    if report.missing:
        yield "warn", f"{_number(len(report.missing), 'tensor')} could not be compared: the source has no such tensor."
    if report.fallbacks:
        share = sum(tensor.parameters for tensor in report.fallbacks) / report.model.parameters
        yield (
            "warn",
            f"{_number(len(report.fallbacks), 'tensor')} with {words.percent(share)} of the weights could not have the "
            f"type that {report.model.file_type} means them to have, because of the length of their rows.",
        )
    yield from _errors_found(report)
    full = 2 * report.model.parameters
    if 0 < report.model.tensor_bytes < full:
        saved = words.percent(1 - report.model.tensor_bytes / full)
        yield "plain", f"With 16 bits for each weight it would take {words.size(full)}: {saved} are saved."


def _errors_found(report: Report) -> Iterator[tuple[str, str]]:
    compared = [
        (tensor, tensor.error)
        for tensor in report.tensors
        if tensor.error and tensor.error.relative > 0 and len(tensor.shape) > 1
    ]
    if report.error and report.error.relative == 0:
        yield "good", f"Every weight equals that of {report.source}."
    if not compared:
        return
    if median(error.relative for _, error in compared) > _OTHER_MODEL:
        yield "bad", f"{report.source} seems to be another model: most tensors differ by as much as they are large."
    tensor, error = max(compared, key=lambda pair: pair[1].relative)
    yield (
        "hot",
        f"Of the matrices, {tensor.name} ({tensor.type}) has the largest error: {words.percent(error.relative)}.",
    )
    peers = against_type(report.tensors)
    hard, _ = max(compared, key=lambda pair: peers.value(pair[0]) or 0)
    if hard is not tensor and (ratio := peers.value(hard) or 0) > 1.05:
        yield (
            "hot",
            f"The hardest for its type is {hard.name}: {ratio:.2f} times the median error of {hard.type} tensors.",
        )
    worst, place = max(
        ((tensor, error.worst) for tensor, error in compared if error.worst), key=_loss, default=(None, None)
    )
    if worst is not None and place is not None:
        yield (
            "hot",
            f"The largest error of a block is in {worst.name}, row {place.row}, block {place.block}: "
            f"{words.percent(place.relative)}.",
        )


def _loss(found: tuple[Tensor, BlockError]) -> float:
    return found[1].relative


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def describe_type(name: str) -> str:
    """A description of a type in a few sentences."""
    tensor_type = TensorType.named(name)
    scheme = tensor_type.levels
    if scheme is None:
        return f"{name} keeps every weight as a number of its own."
    sharing, count = scheme.values_per_scale, len(scheme.rungs)
    spacing = "evenly" if scheme.is_uniform else "unevenly"
    sets = tensor_type.block_elements // sharing
    number = "one set of levels" if sets == 1 else f"{sets} sets of levels"
    symmetry = (
        "The levels have a step and an offset, so they can be where the weights are: the type is asymmetric."
        if scheme.has_offset
        else "The levels have a step but no offset, so they are always around zero: the type is symmetric."
    )
    grid = (
        f" {scheme.codes.size} weights at a time are an entry of a codebook, so not all combinations occur."
        if isinstance(scheme.codes, Grid)
        else ""
    )
    return (
        f"Blocks of {name} hold {tensor_type.block_elements} weights on {number}: {sharing} weights share {count} "
        f"{spacing} spaced levels. {symmetry}{grid}"
    )
