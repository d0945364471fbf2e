"""`gguf-forge inspect`: what is in a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from gguf_forge.cli.help import LOOK
from gguf_forge.cli.options import Messages, add_command, only
from gguf_forge.cli.shown import json_value, rule_object, type_text, value_text
from gguf_forge.cli.tables import facts_text, line, lines, table_of
from gguf_forge.foreign_text import as_text, escaped
from gguf_forge.option import MESSAGES, Option
from gguf_forge.run_settings import RunSettings
from gguf_forge.wording import log_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from gguf_forge.cli.tables import Table
    from gguf_forge.gguf_file.opened import GgufFile
    from gguf_forge.gguf_file.tensor import GgufTensor
    from gguf_forge.gguf_file.values import Value
    from gguf_forge.toolbox.inspect.inspect import DecodedBlock, Overview, TensorEntry, TensorView

log = log_of(__name__)

Keys: TypeAlias = "Sequence[tuple[str, Value]]"

_SHOWN = "What is shown"
_TEXT = 80  # characters of a value
_BAR = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"
_ORDERS = {"<": "little-endian", ">": "big-endian"}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What `inspect` shows of a file."""

    no_metadata: Annotated[bool, Option("--no-metadata", "Leave out the keys.", _SHOWN)] = False
    no_tensors: Annotated[bool, Option("--no-tensors", "Leave out the tensors.", _SHOWN)] = False
    key: Annotated[
        tuple[str, ...],
        Option("--key", "Show only these keys, in full, such as 'tokenizer.*'. Repeatable.", _SHOWN, metavar="NAME"),
    ] = ()
    tensor: Annotated[
        tuple[str, ...],
        Option(
            "--tensor",
            "Show only the values of these tensors, such as 'blk.0.attn_*.weight'. Repeatable.",
            _SHOWN,
            metavar="NAME",
        ),
    ] = ()
    block: Annotated[
        str | None,
        Option(
            "--block",
            "With --tensor: also show one block: number N of the tensor, or ROW:N, number N of a row, from 0.",
            _SHOWN,
            metavar="N",
        ),
    ] = None
    bins: Annotated[
        int,
        Option(
            "--bins",
            "With --tensor: bars of the histogram, up to 1000. [default: 16]",
            _SHOWN,
            metavar="N",
            least=3,
            most=1000,
        ),
    ] = 16
    template: Annotated[
        bool,
        Option("--template", "Show only the chat templates, rendered for a sample chat, and what is wrong.", _SHOWN),
    ] = False
    json_array: Annotated[bool, Option("--json-array", "The JSON object, with all items of arrays.", MESSAGES)] = False


def register(app: typer.Typer) -> None:
    add_command(app, "inspect", inspect, panel=LOOK)


def inspect(
    file: Annotated[Path, Option("FILE", "A GGUF file, or the first one of a split.")],
    shown: Shown,
    run: Annotated[RunSettings, only("threads")],
    messages: Annotated[Messages, only("json")],
) -> None:
    """Show what is in a GGUF file: keys, tensors, types and sizes; or the values of some tensors.

    Reads the header alone, unless values are asked for. Files that llama.cpp would not load are shown too, with what is
    wrong: tensor types of a fork, one part of a split, the beginning of a download.

    Examples:

    - `gguf-forge inspect model.gguf`
    - `gguf-forge inspect model.gguf --key tokenizer.chat_template`
    - `gguf-forge inspect model.gguf --template`
    - `gguf-forge inspect model.gguf --tensor 'blk.0.ffn_*.weight'`
    - `gguf-forge inspect model.gguf --tensor blk.0.attn_q.weight --block 12:0`
    - `gguf-forge inspect model.gguf --no-tensors --json-array | jq '.metadata."tokenizer.ggml.tokens".value[:9]'`
    """
    from gguf_forge.cli.streams import print_data, print_json
    from gguf_forge.errors import UsageError
    from gguf_forge.gguf_file.opened import open_gguf
    from gguf_forge.toolbox.inspect.inspect import overview_of

    if shown.block is not None and not shown.tensor:
        raise UsageError("--block shows a block of a tensor", hint="name it with --tensor")
    as_json = messages.json or shown.json_array
    with open_gguf(file, lenient=True) as gguf:
        if shown.tensor:
            views = _views(gguf, shown, run)
            if as_json:
                print_json({"filename": str(file), "tensors": list(map(_view_object, views))})
                return
            for view in views:
                print_data(*_view_text(view))
            return
        if shown.template:
            _show_templates(gguf, as_json=as_json)
            return
        overview = overview_of(gguf)
        keys = [] if shown.no_metadata else _chosen_keys(overview, shown.key)
        tensors = () if shown.no_tensors or shown.key else overview.tensors
        if as_json:
            print_json(_object(overview, keys, tensors, with_arrays=shown.json_array))
        elif shown.key:
            print_data(*_keys_in_full(keys))
        else:
            print_data(*_text(overview, keys, tensors))


def _show_templates(gguf: GgufFile, *, as_json: bool) -> None:
    """Prints each chat template as it comes out for a sample chat, and says what is wrong with it."""
    from gguf_forge.cli.streams import logging_to, print_data, print_json
    from gguf_forge.errors import InputError
    from gguf_forge.tokenizer import template_problems
    from gguf_forge.toolbox.inspect.template import rendered_templates

    rendered = rendered_templates(gguf.typed_metadata)
    file = gguf.paths[0]
    if not rendered:
        hint = "`gguf-forge edit --chat-template` gives it one"
        raise InputError("the file has no chat template", file=file, hint=hint)
    problems = template_problems(gguf.typed_metadata)
    if as_json:
        templates = {one.name: {"rendered": one.text, "problem": one.problem} for one in rendered}
        print_json({"filename": str(file), "templates": templates, "problems": problems})
        return
    if all(one.text is None for one in rendered):
        problem = f"the chat template cannot be rendered: {rendered[0].problem}"
        raise InputError(problem, file=file, hint="`gguf-forge edit --chat-template` replaces it")
    with logging_to(Messages()):
        for problem in problems:
            log.warning("%s: %s", file, problem)
        for one in rendered:
            if one.problem is not None:
                what = "fails" if one.text is None else "takes no message of the system"
                log.warning("%s: the chat template %s %s: %s", file, one.name, what, one.problem)
    for one in rendered:
        if one.text is not None:
            heading = [f"[{escaped(one.name)}]\n"] if len(rendered) > 1 else []
            print_data(line(*heading, one.text, no_wrap=True, keep="\n\t"))


def _chosen_keys(overview: Overview, wanted: Sequence[str]) -> Keys:
    """Keys with their values. A key that is there several times comes again at the end."""
    from gguf_forge.errors import UsageError, printable
    from gguf_forge.gguf_file.rules import FormatRule

    every = [*overview.metadata.items(), *overview.repeated]
    is_cut = any(broken.rule is FormatRule.HEADER for broken in overview.broken)
    if not wanted:
        return every
    for text in wanted:
        if not any(fnmatchcase(key, text) for key in overview.metadata):
            hint = "the file ends in its header, and has not all keys" if is_cut else "without --key, all are listed"
            raise UsageError(f"no key is called {printable(text)}", hint=hint)
    return [(key, value) for key, value in every if any(fnmatchcase(key, text) for text in wanted)]


def _views(gguf: GgufFile, shown: Shown, run: RunSettings) -> Iterator[TensorView]:
    from gguf_forge.toolbox.inspect.inspect import matching_tensors

    return (_view(tensor, shown, run) for tensor in matching_tensors(gguf, shown.tensor))


def _view(tensor: GgufTensor, shown: Shown, run: RunSettings) -> TensorView:
    from gguf_forge.cli.progress import counting
    from gguf_forge.toolbox.inspect.inspect import parse_block, view_tensor

    place = parse_block(shown.block, tensor.info) if shown.block is not None else None
    total = 4 * tensor.info.n_elements  # as numbers
    with counting(tensor.name, total, Messages()) as advance:

        def progress(n_values: int) -> None:
            advance(4 * n_values)

        return view_tensor(tensor, bins=shown.bins, block=place, threads=run.threads, progress=progress)


def _object(overview: Overview, keys: Keys, tensors: Sequence[TensorEntry], *, with_arrays: bool) -> dict[str, Any]:
    """The names are those of gguf-py's gguf_dump, where it has them."""
    chosen = {key for key, _ in keys}
    metadata = {
        key: {"index": index, **_value_object(item, with_arrays=with_arrays)}
        for index, (key, item) in enumerate(overview.metadata.items())
        if key in chosen
    }
    repeated = [
        {"key": key, **_value_object(item, with_arrays=with_arrays)} for key, item in overview.repeated if key in chosen
    ]
    types = {
        kind: {"tensors": share.tensors, "weights": share.weights, "nbytes": share.nbytes}
        for kind, share in overview.types.items()
    }
    return {
        "filename": str(overview.paths[0]),
        "files": list(map(str, overview.paths)),
        "version": overview.version,
        "endian": _ORDERS[overview.byte_order].removesuffix("-endian").upper(),
        "size": overview.size,
        "alignment": overview.alignment,
        "data_offset": overview.data_offset,
        "weights": overview.weights,
        "bits_per_weight": round(overview.bits_per_weight, 4),
        "types": types,
        "broken_rules": list(map(rule_object, overview.broken)),
        "metadata": metadata,
        **({"repeated_keys": repeated} if repeated else {}),
        "tensors": {entry.name: {"index": index, **_entry_object(entry)} for index, entry in enumerate(tensors)},
    }


def _value_object(item: Value, *, with_arrays: bool) -> dict[str, Any]:
    return {
        "type": item.type.name,
        **({"array_types": [item.element.name], "count": len(item.data)} if item.element is not None else {}),
        **({"value": json_value(item)} if with_arrays or item.element is None else {}),
    }


def _entry_object(entry: TensorEntry) -> dict[str, Any]:
    info = entry.info
    return {
        "shape": info.shape,
        "type": info.type.name,
        "nbytes": info.nbytes,
        "bits_per_weight": round(entry.bits_per_weight, 4),
        "file": str(entry.path),
        "offset": entry.offset,
        **({} if entry.is_whole else {"whole": False}),
    }


def _view_object(view: TensorView) -> dict[str, Any]:
    spread = view.spread
    return {
        "name": view.entry.name,
        **_entry_object(view.entry),
        "values": spread.count,
        "nonfinite": spread.nonfinite,
        "min": float(spread.minimum),
        "max": float(spread.maximum),
        "mean": spread.mean,
        "std": spread.deviation,
        "zeros": spread.zeros,
        "histogram": {"edges": view.edges, "counts": spread.histogram},
        **({"block": _block_object(view.block)} if view.block is not None else {}),
    }


def _block_object(block: DecodedBlock) -> dict[str, Any]:
    return {
        "row": block.place.row,
        "block": block.place.block,
        "columns": block.columns,
        "fields": {name: _finite(stored.tolist()) for name, stored in block.fields.items()},
        "levels": None if block.levels is None else block.levels.tolist(),
        "values": _finite(block.values.tolist()),
    }


def _finite(data: Any) -> Any:
    """The value for JSON. Numbers that JSON cannot express, such as infinity, become text."""
    if isinstance(data, list):
        return [_finite(item) for item in data]
    return str(data) if isinstance(data, float) and not abs(data) < float("inf") else data


def _text(overview: Overview, keys: Keys, tensors: Sequence[TensorEntry]) -> Iterator[RenderableType]:

    yield facts_text(_facts(overview))
    for broken in overview.broken:
        yield line(("note: ", "bold yellow"), broken.everywhere().as_written)
    if keys:
        yield from ("", _keys_table(keys))
    if tensors:
        yield from ("", _tensors_table(overview, tensors))
    if len(overview.types) > 1:
        yield from ("", _types_table(overview))


def _facts(overview: Overview) -> Mapping[str, str]:
    from rich.filesize import decimal

    n_files = len(overview.paths)
    facts = {
        "file": str(overview.paths[0]) + (f" and {n_files - 1} more" if n_files > 1 else ""),
        "format": f"GGUF version {overview.version}, {_ORDERS[overview.byte_order]}",
        "size": f"{decimal(overview.size)} ({overview.size:,} bytes)",
        "tensors": f"{len(overview.tensors):,}",
    }
    if overview.tensors:
        facts["weights"] = f"{_short(overview.weights)} ({overview.weights:,})"
        facts["bits per weight"] = f"{overview.bits_per_weight:.3f}"
    if overview.data_offset is not None:
        facts["data"] = f"from byte {overview.data_offset:,}, aligned to {overview.alignment} bytes"
    return facts


def _short(number: int) -> str:
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def _keys_table(keys: Keys) -> Table:
    table = table_of("key", "type", "items", "value", right=("items",), folding=("value",), spare=("items",))
    for key, item in keys:
        count = f"{len(item.data):,}" if item.element is not None else ""
        table.add_row(key, type_text(item), count, value_text(item, _TEXT))
    return table


def _keys_in_full(keys: Keys) -> Iterator[Text]:
    """Shows keys in full, with the line breaks of text. A single key is shown as its bare value, for other programs."""
    for key, item in keys:
        text = as_text(item.data) if item.type.name == "STRING" else value_text(item)
        yield line(*([] if len(keys) == 1 else [f"{escaped(key)} = "]), text, no_wrap=True, keep="\n\t")


def _tensors_table(overview: Overview, tensors: Sequence[TensorEntry]) -> Table:
    from rich.filesize import decimal

    is_split = len(overview.paths) > 1
    right = ("shape", "weights", "size", "bits", "file")
    columns = ("tensor", "shape", "type", "weights", "size", "bits", *(["file"] if is_split else []))
    table = table_of(*columns, right=right, spare=("weights", "bits", "shape"))
    numbers = {path: str(number) for number, path in enumerate(overview.paths, 1)}
    for entry in tensors:
        info = entry.info
        table.add_row(
            entry.name,
            " x ".join(map(str, info.shape)),
            line((info.type.name, "dim" if info.type.is_float else "")),
            _short(info.n_elements),
            decimal(info.nbytes) + ("" if entry.is_whole else ", cut short"),
            f"{entry.bits_per_weight:.2f}",
            *([numbers[entry.path]] if is_split else []),
        )
    return table


def _types_table(overview: Overview) -> Table:
    from rich.filesize import decimal

    table = table_of("type", "tensors", "weights", "size", right=("tensors", "weights", "size"))
    total = max(1, overview.weights)
    for kind, share in overview.types.items():
        table.add_row(kind, f"{share.tensors:,}", f"{share.weights / total:.1%}", decimal(share.nbytes))
    return table


def _view_text(view: TensorView) -> Iterator[RenderableType]:
    from rich.filesize import decimal

    entry, spread = view.entry, view.spread
    info = entry.info
    facts = {
        "shape": f"{' x '.join(map(str, info.shape))} ({info.n_elements:,} values)",
        "type": f"{info.type}, {entry.bits_per_weight:.2f} bits per weight, {decimal(info.nbytes)}",
        "data": f"byte {entry.offset:,} of {entry.path}",
        "range": f"{spread.minimum:.6g} to {spread.maximum:.6g}",
        "mean": f"{spread.mean:.6g}, standard deviation {spread.deviation:.6g}",
        "zeros": f"{spread.zeros:,} ({spread.zeros / max(1, spread.count):.2%})",
    }
    if spread.nonfinite:
        facts["not finite"] = f"{spread.nonfinite:,}: infinite or NaN; the other numbers here leave them out"
    yield from (line((entry.name, "bold green")), "", facts_text(facts))
    if view.edges:
        yield from ("", _histogram(view))
    if view.block is not None:
        yield from ("", *_block_text(view.block, info.type.name))
    yield ""


def _histogram(view: TensorView) -> Text:
    edges = [f"{edge:.3g}" for edge in (view.spread.minimum, *view.edges, view.spread.maximum)]
    counts = view.spread.histogram
    width, most = max(map(len, edges)), max(1, *counts)
    total = max(1, sum(counts))
    rows = [
        f"{low:>{width}} to {high:<{width}}  {_bar(count / most):<{_BAR}}  {count / total:6.2%}"
        for (low, high), count in zip(pairwise(edges), counts, strict=True)
    ]
    return lines(map(line, rows), no_wrap=True)


def _bar(share: float) -> str:
    """A bar that can end in a part of a character. A count above zero always shows at least the smallest part."""
    eighths = max(round(share * _BAR * 8), share > 0)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def _block_text(block: DecodedBlock, kind: str) -> Iterator[RenderableType]:
    from gguf_forge.cli.streams import standard_output

    first, stop = block.columns
    place = f"block {block.place.block} of row {block.place.row}"
    yield line((f"{place}: columns {first} to {stop - 1} ({kind}; bytes in hexadecimal)", "bold"))
    grids = {name: [_digits(item) for item in stored.reshape(-1)] for name, stored in block.fields.items()}
    if block.levels is not None:
        grids["levels"] = [str(level) for level in block.levels]
    grids["values"] = [f"{item:.6g}" for item in block.values]
    label = max(map(len, grids)) + 2
    room = standard_output().width - label
    for name, items in grids.items():
        rows = _in_columns(items, 8 if name == "values" else 16, room)
        yield lines(line(f"{name if number == 0 else '':<{label}}{row}") for number, row in enumerate(rows))


def _digits(item: Any) -> str:
    """A number as text. Unsigned integers hold bits, so they are shown in hexadecimal."""
    return f"{item:0{2 * item.itemsize}x}" if item.dtype.kind == "u" else str(item)


def _in_columns(items: Sequence[str], most: int, room: int) -> Iterator[str]:
    """Items in columns: `most` columns, halved until the lines fit."""
    width = max(map(len, items))
    while most > 1 and most * (width + 1) - 1 > room:
        most //= 2
    for at in range(0, len(items), most):
        yield " ".join(f"{item:>{width}}" for item in items[at : at + most])
