"""The page: one HTML file that needs no other and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files as package_files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gguf_forge.tensor_types import TENSOR_TYPES, tensor_type
from gguf_forge.toolbox.report import charts, words
from gguf_forge.toolbox.report.data import Report, Tensor
from gguf_forge.toolbox.report.heat import BITS, COLOURS, ENDS, ERROR, UNUSED, WORST, heat_map, tip_of
from gguf_forge.toolbox.report.ladder import scheme_of

_NOTES = {
    "Q4_0": "symmetric: one step",
    "Q4_1": "asymmetric: step and offset, 16 bits each",
    "Q4_K": "asymmetric: step and offset, 6 bits each",
    "IQ4_NL": "symmetric, rungs denser near zero",
}
_GRIDS = {"IQ1": 8, "IQ2": 8, "IQ3": 4}


def page(report: Report) -> str:
    """The report as HTML. All text from files is escaped, and a policy in the page forbids it to load anything."""
    return _environment().get_template("page.html.j2").render(_shown(report))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gguf_forge.toolbox.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {name: getattr(words, name) for name in ("size", "count", "percent", "decibels", "bits", "three", "weight")}
    )
    environment.globals.update(
        charts=charts, type_class=charts.type_class, shape=charts.shape_text, colours=range(COLOURS), tip_of=tip_of
    )
    return environment


def _asset(name: str) -> tuple[Markup, str]:
    """A style sheet or script of the page, and its hash for the page's policy."""
    content = package_files("gguf_forge.toolbox.report").joinpath("template", name).read_text()
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return Markup(content), f"sha256-{digest}"


def _shown(report: Report) -> Mapping[str, Any]:
    style, style_hash = _asset("page.css")
    script, script_hash = _asset("page.js")
    metrics = (ERROR, WORST, ENDS, BITS) if report.source else (ENDS, UNUSED, BITS)
    own = {tensor.type for tensor in report.tensors if tensor.levels}
    return {
        "report": report,
        "style": style,
        "style_hash": style_hash,
        "script": script,
        "script_hash": script_hash,
        "types": _types(report),
        "layers": _layers(report),
        "findings": tuple(_findings(report)),
        "maps": [found for metric in metrics if (found := heat_map(report.tensors, metric))],
        "shares": _fallback_groups(report),
        "invalid": [tensor for tensor in report.tensors if tensor.invalid is not None],
        "own": frozenset(own),
        "describe": describe_type,
        "levels": {tensor.name: tensor.levels for tensor in report.tensors},
        "types_by_name": TENSOR_TYPES,
        "type_bars": [(name, bits, nbytes) for name, bits, nbytes, _ in _types(report)],
        "notes": _NOTES,
    }


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
    kind = tensor_type(name)
    return 8 * kind.block_bytes / kind.block_elements


def _layers(report: Report) -> list[tuple[str, dict[str, tuple[float, int]]]]:
    """The bytes of each layer by type."""
    layers: dict[int, dict[str, tuple[float, int]]] = {}
    for tensor in report.tensors:
        if tensor.layer is not None:
            stack = layers.setdefault(tensor.layer, {})
            bits, nbytes = stack.get(tensor.type, (_bits(tensor.type), 0))
            stack[tensor.type] = (bits, nbytes + tensor.nbytes)
    return [(str(layer), layers[layer]) for layer in sorted(layers)]


def _fallback_groups(report: Report) -> list[tuple[str, str, int, list[Tensor]]]:
    """Tensors that got another type than the one wanted: wanted, given, row length, tensors."""
    groups: dict[tuple[str, str, int], list[Tensor]] = {}
    for tensor in report.fallbacks:
        groups.setdefault((tensor.wanted or "", tensor.type, tensor.shape[0]), []).append(tensor)
    return [(*key, members) for key, members in groups.items()]


def _findings(report: Report) -> Iterator[tuple[str, str]]:
    """What stands out: (mood, sentence)."""
    invalid = [tensor for tensor in report.tensors if tensor.invalid is not None]
    if invalid:
        yield "bad", f"{_number(len(invalid), 'tensor')} with a scale or weight that is infinite or not a number."
    else:
        yield "good", "No scale and no 16-bit weight is infinite or not a number."
    fallbacks = report.fallbacks
    if fallbacks:
        share = sum(t.parameters for t in fallbacks) / max(report.model.parameters, 1)
        yield (
            "warn",
            f"{_number(len(fallbacks), 'tensor')} with {words.percent(share)} of the weights could not have the type "
            f"of {report.model.file_type}, because of the length of their rows.",
        )
    if report.missing:
        yield "warn", f"{_number(len(report.missing), 'tensor')} that the source does not have could not be compared."
    compared = [t for t in report.tensors if t.error and t.error.snr_db is not None and len(t.shape) > 1]
    if compared:
        hottest = max(compared, key=lambda t: t.error.relative if t.error else 0.0)
        if hottest.error:
            yield "hot", f"{hottest.name} lost most: {words.percent(hottest.error.relative)} of its size ({hottest.type})."
    if report.error and report.error.relative == 0:
        yield "good", "Every weight equals that of the source."
    if report.error and report.error.nonfinite:
        yield "bad", f"{report.error.nonfinite:,} values are infinite or not a number, here or in the source."


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def describe_type(name: str) -> str:
    """A type in two sentences, for people."""
    kind = tensor_type(name)
    scheme = scheme_of(kind)
    if scheme is None:
        return f"{name} keeps every weight as a number of its own."
    count = kind.block_elements // scheme.values_per_scale
    spacing = "evenly spaced levels" if scheme.is_uniform else "unevenly spaced levels"
    ladders = "one ladder" if count == 1 else f"{count} ladders, one for each {scheme.values_per_scale}"
    symmetry = (
        "Each ladder has a step and an offset of its own, so it can lie where the weights are: it is asymmetric."
        if scheme.has_offset
        else "A ladder has a step but no offset, so it always lies around zero: it is symmetric."
    )
    codebook = next((n for prefix, n in _GRIDS.items() if name.startswith(prefix)), None)
    grid = f" {codebook} weights at a time share an entry of a codebook, so not all combinations occur." if codebook else ""
    return f"A {name} block holds {kind.block_elements} weights on {ladders} of {len(scheme.rungs)} {spacing}. {symmetry}{grid}"
