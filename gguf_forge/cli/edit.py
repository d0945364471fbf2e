"""`gguf-forge edit`: other keys for a GGUF file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gguf_forge.cli.options import MODEL, OUTPUT, MessageOptions, Overwrite, add_command, flag, value
from gguf_forge.cli.shown import escaped, json_value, type_text, value_text
from gguf_forge.cli.streams import console, logging_to
from gguf_forge.errors import ForgeError, InputError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from gguf_forge.gguf_file.values import Metadata, Value
    from gguf_forge.toolbox.edit.edit import Change, EditPlan, Edits

log = logging.getLogger(__name__)

_TEXT = 80
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class EditRequest(MessageOptions):
    """The command line of `edit`."""

    file: Annotated[
        Path, typer.Argument(metavar="FILE", show_default=False, help="A GGUF file, or the first one of a split.")
    ]
    out: Annotated[
        Path | None,
        value("-o", "--outfile", metavar="OUT", panel=OUTPUT, help="The file to be. [default: FILE itself]"),
    ] = None
    overwrite: Overwrite = False
    dry_run: Annotated[bool, flag("--dry-run", panel=OUTPUT, help="Only show what would change.")] = False
    set: Annotated[
        list[str] | None,
        value(
            "--set",
            "--override-kv",
            metavar="KEY=TYPE:VALUE",
            panel=MODEL,
            help="Set a key; TYPE is int, float, bool, str, u8 to u64, i8 to i64, f32, f64, or [TYPE] for a list in "
            "JSON. A key that is there keeps its type without TYPE. Repeatable.",
        ),
    ] = None
    remove: Annotated[
        list[str] | None,
        value("--remove", "--remove-metadata", metavar="KEY", panel=MODEL, help="Remove a key. Repeatable."),
    ] = None
    rename: Annotated[
        list[str] | None, value("--rename", metavar="OLD=NEW", panel=MODEL, help="Rename a key. Repeatable.")
    ] = None
    chat_template: Annotated[
        Path | None,
        value(
            "--chat-template",
            "--chat-template-file",
            "--chat-template-config",
            metavar="FILE",
            panel=MODEL,
            help="Swap the chat template: a Jinja file, or tokenizer_config.json with one or several of them.",
        ),
    ] = None
    pre_tokenizer: Annotated[
        str | None,
        value("--pre-tokenizer", metavar="NAME", panel=MODEL, help="How text is split before BPE, such as llama-bpe."),
    ] = None
    special_token: Annotated[
        list[str] | None,
        value(
            "--special-token",
            metavar="KIND=TOKEN",
            panel=MODEL,
            help="Make a token of the vocabulary the bos, eos, eot, pad, ... token. Repeatable.",
        ),
    ] = None
    special_token_by_id: Annotated[
        list[str] | None,
        value("--special-token-by-id", metavar="KIND=ID", panel=MODEL, help="The same, by the token's number."),
    ] = None


def register(app: typer.Typer) -> None:
    add_command(app, "edit", EditRequest, edit)


def edit(request: EditRequest) -> None:
    """Change the keys of a GGUF file, in place or as a new file; the tensors stay as they are.

    There is the old file or the complete new one, at any time. Removals come first, then new names, then values.

    Examples:

    - `gguf-forge edit model.gguf --set 'general.name=My model' --dry-run`
    - `gguf-forge edit model.gguf --chat-template chat_template.jinja --special-token 'eos=<|im_end|>'`
    - `gguf-forge edit model.gguf -o longer.gguf --set llama.context_length=131072`
    - `gguf-forge edit model.gguf --set 'general.tags=[str]:["text-generation"]' --remove general.url`
    """
    from gguf_forge.cli.progress import counting
    from gguf_forge.gguf_file.reader import read_header
    from gguf_forge.storage.source import SourceFile
    from gguf_forge.toolbox.edit.edit import plan_edit, write_edit

    edits = _edits(request)
    quiet, verbose = request.quiet, request.verbose
    with SourceFile(request.file) as file:
        with logging_to(console(sys.stderr), quiet=quiet, verbose=verbose):
            header = read_header(file)
            plan = plan_edit(file, header, edits, request.out)
            if request.dry_run:
                _say_what_would_stop(plan, overwrite=request.overwrite)
        if not request.dry_run:
            with counting("copying", plan.size, quiet=quiet, verbose=verbose) as progress:
                write_edit(plan, file, header, overwrite=request.overwrite, progress=progress)
        _show(plan, request)


def _say_what_would_stop(plan: EditPlan, *, overwrite: bool) -> None:
    from gguf_forge.toolbox.edit.edit import check_edit

    try:
        check_edit(plan, overwrite=overwrite)
    except ForgeError as error:
        log.warning("editing would be refused: %s", error)


def _edits(request: EditRequest) -> Edits:
    from gguf_forge.toolbox.edit.edit import Edits
    from gguf_forge.toolbox.edit.settings import parse_setting

    special = [_pair(text, "--special-token", "eos=<|im_end|>") for text in request.special_token or ()]
    by_id = [_pair(text, "--special-token-by-id", "eos=2") for text in request.special_token_by_id or ()]
    rename = (_pair(text, "--rename", "general.url=general.repo_url") for text in request.rename or ())
    edits = Edits(
        remove=tuple(request.remove or ()),
        rename=_unique("--rename", rename),
        chat_templates=_templates(request.chat_template) if request.chat_template is not None else None,
        pre_tokenizer=request.pre_tokenizer,
        special_tokens=_unique("--special-token", [*special, *((kind, _id(text)) for kind, text in by_id)]),
        set=_unique("--set", map(parse_setting, request.set or ())),
    )
    if edits == Edits():
        raise UsageError("there is nothing to change", hint="for example --set general.name=str:Mine")
    return edits


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    left, separator, right = text.partition("=")
    if not left or not separator or not right:
        raise UsageError(f"{option} {escaped(text)!r} has no = between two words", hint=f"for example {example}")
    return left, right


def _unique(option: str, pairs: Iterable[tuple[str, _T]]) -> dict[str, _T]:
    found: dict[str, _T] = {}
    for name, item in pairs:
        if name in found:
            raise UsageError(f"{option} names {escaped(name)} twice", hint="name it once")
        found[name] = item
    return found


def _id(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(f"{escaped(text)!r} is no number of a token")
    return int(text)


def _templates(file: Path) -> Metadata:
    """The template in a Jinja file, or those in a tokenizer_config.json."""
    from gguf_forge.storage.json_file import read_json_object
    from gguf_forge.tokenizer.chat_template import templates_of
    from gguf_forge.tokenizer.checks import Place

    place = Place(file)
    if file.suffix == ".json":
        return templates_of(read_json_object(file).get("chat_template"), place / "chat_template")
    try:
        return templates_of(file.read_text(encoding="utf-8"), place)
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror}", file=file) from error
    except UnicodeDecodeError as error:
        raise InputError(f"not valid UTF-8 at byte {error.start}", file=file) from error


def _show(plan: EditPlan, request: EditRequest) -> None:
    from gguf_forge.cli.streams import print_data, print_json

    is_written = plan.is_needed and not request.dry_run
    if request.json:
        print_json(_object(plan, is_written=is_written))
    elif not request.quiet:
        print_data(*_text(plan, is_written=is_written))


def _object(plan: EditPlan, *, is_written: bool) -> dict[str, Any]:
    return {
        "file": str(plan.source),
        "path": str(plan.path),
        "written": is_written,
        "size": plan.size,
        "header_bytes": {"old": plan.old_header, "new": len(plan.header)},
        "changes": [
            {
                "key": change.key,
                **({"renamed_from": change.renamed_from} if change.renamed_from is not None else {}),
                "old": _value_object(change.old),
                "new": _value_object(change.new),
            }
            for change in plan.changes
        ],
    }


def _value_object(value: Value | None) -> dict[str, Any] | None:
    return {"type": type_text(value), "value": json_value(value)} if value is not None else None


def _text(plan: EditPlan, *, is_written: bool) -> Iterator[RenderableType]:
    from rich.filesize import decimal
    from rich.text import Text

    for change in plan.changes:
        yield _change_text(change)
    if not plan.changes:
        yield Text("nothing changes")
    if plan.is_needed:
        verb = "written" if is_written else "to be written"
        where = f"{escaped(str(plan.path))}: {decimal(plan.size)} {verb}"
        yield from ("", Text(where, "bold green" if is_written else "", no_wrap=True))


def _change_text(change: Change) -> Text:
    from rich.text import Text

    name = escaped(change.key)
    if change.renamed_from is not None:
        name = f"{escaped(change.renamed_from)} -> {name}"
    lines = [Text(name, "bold")]
    if change.renamed_from is None or change.old != change.new:
        for sign, style, value in (("-", "red", change.old), ("+", "green", change.new)):
            if value is not None:
                lines.append(Text(f"  {sign} {value_text(value, _TEXT)}  ({type_text(value)})", style))
    text = Text("\n").join(lines)
    text.no_wrap = True
    return text
