"""`gguf-forge edit`: other keys for a GGUF file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from gguf_forge.cli.help import CHANGE
from gguf_forge.cli.options import Messages, add_command, only
from gguf_forge.cli.shown import json_value, type_text, value_text
from gguf_forge.cli.streams import logging_to
from gguf_forge.cli.tables import line, lines
from gguf_forge.errors import ForgeError, UsageError, printable
from gguf_forge.foreign_text import natural
from gguf_forge.option import MODEL, OUTPUT, Option
from gguf_forge.run_settings import RunSettings
from gguf_forge.wording import log_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from gguf_forge.gguf_file.values import Metadata, Value
    from gguf_forge.toolbox.edit.edit import Change, EditPlan, Edits

log = log_of(__name__)

_TEXT = 80
_K = TypeVar("_K")
_T = TypeVar("_T")
_MOST_LINES = 20


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What `edit` changes, in the words of the command line."""

    set: Annotated[
        tuple[str, ...],
        Option(
            "--set --override-kv",
            "Set a key; TYPE is int, float, bool, str, u8 to u64, i8 to i64, f32, f64, or [TYPE] for a list in "
            "JSON. An existing key keeps its type without TYPE. KEY[N] is one item of a list; the value @FILE.json "
            "is read from a file. Repeatable.",
            MODEL,
            metavar="KEY=TYPE:VALUE",
        ),
    ] = ()
    remove: Annotated[
        tuple[str, ...],
        Option(
            "--remove --remove-metadata",
            "Remove a key; of several keys of this name, keep the first. Repeatable.",
            MODEL,
            metavar="KEY",
        ),
    ] = ()
    rename: Annotated[tuple[str, ...], Option("--rename", "Rename a key. Repeatable.", MODEL, metavar="OLD=NEW")] = ()
    chat_template: Annotated[
        Path | None,
        Option(
            "--chat-template --chat-template-file --chat-template-config",
            "Swap the chat template: a Jinja file, or tokenizer_config.json with one or several of them.",
            MODEL,
            metavar="FILE",
        ),
    ] = None
    pre_tokenizer: Annotated[
        str | None,
        Option(
            "--pre-tokenizer",
            "How text is split before BPE, such as llama-bpe.",
            MODEL,
            metavar="NAME",
            values="pre-tokenizers",
        ),
    ] = None
    special_token: Annotated[
        tuple[str, ...],
        Option(
            "--special-token",
            "Make a token of the vocabulary the bos, eos, eot, pad, ... token. Repeatable.",
            MODEL,
            metavar="KIND=TOKEN",
        ),
    ] = ()
    special_token_by_id: Annotated[
        tuple[str, ...],
        Option("--special-token-by-id", "The same, by the token's number.", MODEL, metavar="KIND=ID"),
    ] = ()
    token_type: Annotated[
        tuple[str, ...],
        Option(
            "--token-type",
            "Make a token, by its text or number, normal, unknown, control, user_defined, unused or byte. Repeatable.",
            MODEL,
            metavar="TOKEN=TYPE",
        ),
    ] = ()
    drop_tensor: Annotated[
        tuple[str, ...],
        Option(
            "--drop-tensor",
            "Leave out the tensors in whose names this regular expression is found. Repeatable.",
            MODEL,
            metavar="PATTERN",
        ),
    ] = ()
    rename_tensor: Annotated[
        tuple[str, ...],
        Option(
            "--rename-tensor",
            "Replace the first match of a regular expression in the names of tensors, the longest there. Repeatable.",
            MODEL,
            metavar="PATTERN=TEXT",
        ),
    ] = ()
    force: Annotated[
        bool,
        Option(
            "--force", "Also set standard keys to what no reader takes, and templates that cannot be parsed.", MODEL
        ),
    ] = False


def register(app: typer.Typer) -> None:
    add_command(app, "edit", edit, panel=CHANGE)


def edit(
    file: Annotated[Path, Option("FILE", "A GGUF file, or the first one of a split.")],
    changes: Changes,
    run: Annotated[RunSettings, only("overwrite")],
    messages: Messages,
    out: Annotated[
        Path | None, Option("-o --outfile", "Output file. [default: FILE itself]", OUTPUT, metavar="OUT")
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", "Only show what would change.", OUTPUT)] = False,
) -> None:
    """Change the keys of a GGUF file, in place or as a new file, and which tensors it has; their bytes stay.

    There is the old file or the complete new one, at any time. Removals come first, then new names, then values.
    Files that llama.cpp does not load can be edited, too.

    Examples:

    - `gguf-forge edit model.gguf --set 'general.name=My model' --dry-run`
    - `gguf-forge edit model.gguf --chat-template chat_template.jinja --special-token 'eos=<|im_end|>'`
    - `gguf-forge edit model.gguf -o longer.gguf --set llama.context_length=131072`
    - `gguf-forge edit model.gguf --token-type '<|tool_call>=control' --set 'tokenizer.ggml.token_type[7]=3'`
    - `gguf-forge edit both.gguf -o text.gguf --drop-tensor '^(v|mm)\\.' --rename-tensor '^model\\.='`
    - `gguf-forge edit model.gguf --set 'general.tags=[str]:["text-generation"]' --remove general.url`
    """
    from gguf_forge.cli.progress import counting
    from gguf_forge.gguf_file.reader import read_header
    from gguf_forge.storage.local.source_file import SourceFile
    from gguf_forge.toolbox.edit.edit import plan_edit, write_edit

    edits = _edits(changes)
    with SourceFile(file) as source:
        with logging_to(messages):
            header = read_header(source, lenient=True)
            plan = plan_edit(source, header, edits, out)
            if dry_run:
                _say_what_would_stop(plan, overwrite=run.overwrite)
        if not dry_run:
            with counting("copying", plan.size, messages) as progress:
                write_edit(plan, source, header, overwrite=run.overwrite, progress=progress)
        _show(plan, messages, is_written=plan.is_needed and not dry_run)


def _say_what_would_stop(plan: EditPlan, *, overwrite: bool) -> None:
    from gguf_forge.toolbox.edit.edit import check_edit

    try:
        check_edit(plan, overwrite=overwrite)
    except ForgeError as error:
        log.warning("editing would be refused: %s", error.as_written)


def _edits(changes: Changes) -> Edits:
    from gguf_forge.toolbox.edit.edit import Edits
    from gguf_forge.toolbox.edit.settings import parse_setting

    special = [_pair(text, "--special-token", "eos=<|im_end|>") for text in changes.special_token]
    by_id = [_pair(text, "--special-token-by-id", "eos=2") for text in changes.special_token_by_id]
    rename = (_pair(text, "--rename", "general.url=general.repo_url") for text in changes.rename)
    edits = Edits(
        remove=changes.remove,
        rename=_unique("--rename", rename),
        chat_templates=_templates(changes.chat_template) if changes.chat_template is not None else None,
        pre_tokenizer=changes.pre_tokenizer,
        special_tokens=_unique("--special-token", [*special, *((kind, _id(text)) for kind, text in by_id)]),
        token_types=_unique("--token-type", map(_token_type, changes.token_type)),
        set=_unique("--set", map(parse_setting, changes.set)),
        drop_tensor=changes.drop_tensor,
        rename_tensor=_unique("--rename-tensor", map(_tensor_renaming, changes.rename_tensor)),
        force=changes.force,
    )
    if edits in (Edits(), Edits(force=True)):
        raise UsageError("there is nothing to change", hint="for example --set general.name=str:Mine")
    return edits


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    left, separator, right = text.partition("=")
    if not left or not separator or not right:
        raise UsageError(f"{option} {text!r} has no = between two words", hint=f"for example {example}")
    return left, right


def _token_type(text: str) -> tuple[str | int, str]:
    """The text of a token may have a = in it, and the name of a type has none."""
    token, separator, kind = text.rpartition("=")
    if not token or not separator or not kind:
        raise UsageError(
            f"--token-type {text!r} is not TOKEN=TYPE", hint="for example --token-type '<|im_end|>=control'"
        )
    return int(token) if token.isascii() and token.isdecimal() and len(token) < 10 else token, kind


def _tensor_renaming(text: str) -> tuple[str, str]:
    """The pattern may have a = in it, and the name of a tensor has none."""
    pattern, separator, replacement = text.rpartition("=")
    if not pattern or not separator:
        hint = r"for example --rename-tensor '^model\.='"
        raise UsageError(f"--rename-tensor {text!r} is not PATTERN=TEXT", hint=hint)
    return pattern, replacement


def _unique(option: str, pairs: Iterable[tuple[_K, _T]]) -> dict[_K, _T]:
    found: dict[_K, _T] = {}
    for name, item in pairs:
        if name in found:
            raise UsageError(f"{option} names {printable(str(name))} twice", hint="name it once")
        found[name] = item
    return found


def _id(text: str) -> int:
    number = natural(text)
    if number is None:
        raise UsageError(f"{text!r} is not the number of a token")
    return number


def _templates(file: Path) -> Metadata:
    """The template in a Jinja file, or those in a tokenizer_config.json."""
    from gguf_forge.storage.folder import read_text
    from gguf_forge.storage.json_file import read_json_object
    from gguf_forge.storage.limits import limit_of
    from gguf_forge.storage.local.folder import located
    from gguf_forge.tokenizer.chat_template import templates_of
    from gguf_forge.tokenizer.checks import Place

    place = Place(file)
    if file.suffix == ".json":
        return templates_of(read_json_object(*located(file)).get("chat_template"), place / "chat_template")
    return templates_of(read_text(*located(file), limit_of("template.jinja")), place)


def _show(plan: EditPlan, messages: Messages, *, is_written: bool) -> None:
    from gguf_forge.cli.streams import print_data, print_json

    if messages.json:
        print_json(_object(plan, is_written=is_written))
    elif not messages.quiet:
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
                **({"items": [vars(item) for item in change.items]} if change.items is not None else {}),
                "old": _value_object(change.old),
                "new": _value_object(change.new),
            }
            for change in plan.changes
        ],
        "tensors": [vars(change) for change in plan.tensors],
    }


def _value_object(value: Value | None) -> dict[str, Any] | None:
    return {"type": type_text(value), "value": json_value(value)} if value is not None else None


def _text(plan: EditPlan, *, is_written: bool) -> Iterator[RenderableType]:
    from rich.filesize import decimal

    for change in plan.changes:
        yield _change_text(change)
    for tensor in plan.tensors[:_MOST_LINES]:
        what = "dropped" if tensor.new_name is None else f"-> {tensor.new_name}"
        yield line((tensor.name, "bold"), " ", what, no_wrap=True)
    if len(plan.tensors) > _MOST_LINES:
        yield line((f"and {len(plan.tensors) - _MOST_LINES} more tensors: --json lists them", "dim"))
    if not plan.changes and not plan.tensors:
        yield line("nothing changes")
    if plan.is_needed:
        verb = "written" if is_written else "to be written"
        where = f"{plan.path}: {decimal(plan.size)} {verb}" + (" in place" if plan.in_place else "")
        yield from ("", line((where, "bold green" if is_written else ""), no_wrap=True))


def _change_text(change: Change) -> Text:
    name = change.key
    if change.renamed_from is not None:
        name = f"{change.renamed_from} -> {name}"
    shown = [line((name, "bold"))]
    if change.items is not None:
        shown += [line(f"  [{item.index}] {item.old} -> {item.new}") for item in change.items[:_MOST_LINES]]
        if len(change.items) > _MOST_LINES:
            shown.append(line((f"  and {len(change.items) - _MOST_LINES} more items: --json lists them", "dim")))
    elif change.renamed_from is None or change.old != change.new:
        for sign, style, value in (("-", "red", change.old), ("+", "green", change.new)):
            if value is not None:
                shown.append(line((f"  {sign} {value_text(value, _TEXT)}  ({type_text(value)})", style)))
    return lines(shown, no_wrap=True)
