"""Changes the keys of a GGUF file, and which tensors it has. The bytes of tensors are copied unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from stat import S_IMODE
from typing import Any

from gguf_forge.errors import InputError, RefusedError, UsageError, printable
from gguf_forge.gguf_file.header import alignment_of, encode_header
from gguf_forge.gguf_file.key_types import problem_of
from gguf_forge.gguf_file.reader import MAX_KEY, GgufHeader, read_header
from gguf_forge.gguf_file.rules import GGML, WIDEST, FormatRule
from gguf_forge.gguf_file.split import SPLIT_COUNT, SPLIT_NO, PartName
from gguf_forge.gguf_file.tensor import GgufTensor
from gguf_forge.gguf_file.values import Metadata, Value, ValueType, string, u32
from gguf_forge.planning.file_plan import refuse_part_name
from gguf_forge.recipe.overrides import LAYOUT_KEYS
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.held_folder import HeldFolder, made_folder
from gguf_forge.storage.local.output_errors import output_errors
from gguf_forge.storage.local.publish import check_output, published
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.tokenizer.chat_template import KEY as CHAT_TEMPLATE
from gguf_forge.tokenizer.checks import encodable
from gguf_forge.tokenizer.pre_tokenizers import checked_name
from gguf_forge.toolbox.edit.effects import check_effects
from gguf_forge.toolbox.edit.settings import UntypedValue, typed, with_item
from gguf_forge.toolbox.edit.tensors import (
    Copy,
    TensorChange,
    as_they_lie,
    changes_of_tensors,
    moved_together,
    renamed,
)
from gguf_forge.toolbox.edit.vocabulary import special_token, with_token_types
from gguf_forge.wording import log_of

log = log_of(__name__)

_ARCHITECTURE = "general.architecture"
_COPY_PIECE = 1 << 28


@dataclass(frozen=True)
class Edits:
    """The changes to make, in the order in which they are made.

    Attributes:
        remove: Keys to leave out.
        rename: Key -> its new name, in its old place.
        chat_templates: Keys that replace all of `tokenizer.chat_template*`; None leaves those.
        pre_tokenizer: The name of a pre-tokenizer.
        special_tokens: Kind (bos, eos, ...) -> a token's text or id.
        token_types: A token's text or id -> normal, control, user_defined, ...
        set: Key -> value, in its old place or at the end. `KEY[N]` is one item of a list. See
            `gguf_forge.toolbox.edit.settings.typed`.
        drop_tensor: Patterns of names of tensors to leave out.
        rename_tensor: Pattern -> what takes the place of its first match in names of tensors.
        force: Also set standard keys to what no reader takes, and templates that cannot be parsed.
    """

    remove: Sequence[str] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    chat_templates: Metadata | None = None
    pre_tokenizer: str | None = None
    special_tokens: Mapping[str, str | int] = field(default_factory=dict)
    token_types: Mapping[str | int, str] = field(default_factory=dict)
    set: Mapping[str, Value | UntypedValue | Any] = field(default_factory=dict)
    drop_tensor: Sequence[str] = ()
    rename_tensor: Mapping[str, str] = field(default_factory=dict)
    force: bool = False

    @property
    def change_keys(self) -> bool:
        return replace(self, drop_tensor=(), rename_tensor={}, force=False) != Edits()


@dataclass(frozen=True)
class ItemChange:
    """An item of a list of numbers that changes."""

    index: int
    old: Any
    new: Any


@dataclass(frozen=True)
class Change:
    """A key that changes: its value before and after (None where the file lacks the key), and its old name."""

    key: str
    old: Value | None
    new: Value | None
    renamed_from: str | None = None

    @property
    def items(self) -> tuple[ItemChange, ...] | None:
        """The items that change, if both values are lists of numbers of one type and length; else None."""
        old, new = self.old, self.new
        if old is None or new is None or old.element in (None, ValueType.STRING, ValueType.ARRAY):
            return None
        if old.element is not new.element or len(old.data) != len(new.data):
            return None
        pairs = enumerate(zip(old.data, new.data, strict=True))
        return tuple(ItemChange(index, a, b) for index, (a, b) in pairs if repr(a) != repr(b))


@dataclass(frozen=True)
class EditPlan:
    """The plan of an edited file, which decides all its bytes.

    Attributes:
        source: The file as it is.
        path: The new file; the same path as the source for an edit in place.
        changes: In the order of the new file, keys that were removed first.
        tensors: The tensors that are left out or get another name.
        header: The new header.
        old_header: Bytes of the old one.
        copies: The bytes that are taken from the old file.
        size: Bytes of the new file.
    """

    source: Path
    path: Path
    changes: tuple[Change, ...]
    tensors: tuple[TensorChange, ...]
    header: bytes
    old_header: int
    copies: tuple[Copy, ...]
    size: int

    def __repr__(self) -> str:
        changed = [*(change.key for change in self.changes), *(f"tensor {change.name}" for change in self.tensors)]
        named = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        return f"<EditPlan {self.path}: {named or 'nothing changes'}, {self.size} bytes>"

    @property
    def in_place(self) -> bool:
        """Whether the source itself is changed."""
        return self.path == self.source

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.changes or self.tensors) or not self.in_place


def edit_gguf(
    source: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    remove: Iterable[str] = (),
    rename: Mapping[str, str] | None = None,
    chat_template: str | None = None,
    pre_tokenizer: str | None = None,
    special_tokens: Mapping[str, str | int] | None = None,
    token_types: Mapping[str | int, str] | None = None,
    set: Mapping[str, Any] | None = None,
    drop_tensor: Iterable[str] = (),
    rename_tensor: Mapping[str, str] | None = None,
    force: bool = False,
    overwrite: bool = False,
) -> EditPlan:
    """Changes a GGUF file: there is the old file or the complete new one, at any time.

    An edit in place gives the name a new file; other hard links to the old file keep the old contents. The bytes of the
    tensors are copied unchanged.

    Args:
        source: The file; of a split one the first, which has the keys. llama.cpp need not be able to load it.
        out: The output file; None for the same file.
        remove: Keys to leave out. Of a key that is there several times, the first one stays.
        rename: Key -> its new name.
        chat_template: A Jinja template, in place of all that the file has.
        pre_tokenizer: A name that llama.cpp knows, such as "llama-bpe".
        special_tokens: Kind ("bos", "eos", "eot", "pad", ...) -> the text of a token, or its id.
        token_types: A token's text or id -> "normal", "unknown", "control", "user_defined", "unused" or "byte".
        set: Key -> a number, text, bool or list, stored in the type that the key has, or a `Value` of any type. The key
            `KEY[N]` is item N of a list, from 0.
        drop_tensor: Patterns of names, as in `--tensor-type`; tensors with such names are left out.
        rename_tensor: Pattern -> what takes the place of its first match in names of tensors.
        force: Also set standard keys to what no reader takes, and templates that cannot be parsed.
        overwrite: `out` may be replaced.

    Returns:
        What was changed. Nothing was written if that is nothing.

    Raises:
        UsageError: a key that is not there, a value that does not fit, a change that would break the file.
        ForgeError: what was wrong, where, and what to do; the file is as it was.

    Example:
        >>> edit_gguf("m.gguf", set={"general.name": "Mine"}, special_tokens={"eos": "<|im_end|>"})  # doctest: +SKIP
    """
    edits = Edits(
        tuple(remove),
        rename or {},
        {CHAT_TEMPLATE: string(chat_template)} if chat_template is not None else None,
        pre_tokenizer,
        special_tokens or {},
        token_types or {},
        set or {},
        tuple(drop_tensor),
        rename_tensor or {},
        force,
    )
    with SourceFile(Path(source)) as file:
        header = read_header(file, lenient=True)
        plan = plan_edit(file, header, edits, Path(out) if out is not None else None)
        write_edit(plan, file, header, overwrite=overwrite)
        return plan


def plan_edit(file: SourceFile, header: GgufHeader, edits: Edits, out: Path | None = None) -> EditPlan:
    """What editing an opened file comes to. Arguments as for `edit_gguf`; the header is read leniently.

    Raises:
        UsageError: see `edit_gguf`.
        InputError: this is a later part of a split, the file breaks a rule and would still do so, or a new template
            cannot be parsed.
        RefusedError: tensors of one part of a split are dropped, or a file that is cut short is edited in place.
    """
    _check_part(file, header, edits)
    metadata = edited(header.metadata, edits, header.repeated)
    check_effects(header.metadata, metadata, force=edits.force)
    tensors = changes_of_tensors(header.tensors, edits.drop_tensor, edits.rename_tensor)
    kept = renamed(header.tensors, tensors)
    _check_broken(header, edits, metadata, [tensor for tensor, _ in kept], in_place=out in (None, file.path))
    alignment = alignment_of(metadata)
    first = header.data_offset
    if len(kept) == len(header.tensors):
        offsets, copies = as_they_lie(header.tensors, first, file.size)
        nbytes = sum(copy.nbytes for copy in copies)
    else:
        offsets, copies, nbytes = moved_together([tensor for tensor, _ in kept], alignment)
    # a file with a vocabulary alone may end with its last key
    padding = alignment if header.tensors or file.size > first else 1
    bounds = WIDEST if header.broken else GGML
    encoded = encode_header(metadata, [info for _, info in kept], offsets, padding, header.byte_order, bounds)
    if out not in (None, file.path):
        refuse_part_name(out, encoded)
        _refuse_whole_name(out, metadata)
    removed = [Change(key, value, None) for key, value in header.repeated if key in edits.remove]
    changes = (*removed, *_changes(header.metadata, metadata, _old_names(edits.rename)))
    size = len(encoded) + nbytes
    return EditPlan(file.path, out or file.path, changes, tensors, encoded, first, tuple(copies), size)


def _refuse_whole_name(out: Path, metadata: Metadata) -> None:
    """Raises UsageError if a part of a split would have the name of a whole file: readers find parts by their names."""
    number, count = (metadata[key].data if key in metadata else 0 for key in (SPLIT_NO, SPLIT_COUNT))
    name = PartName.read(out.name)
    are_numbers = isinstance(number, int) and isinstance(count, int)
    if are_numbers and count > 1 and (name is None or name[1:] != (number, count)):
        raise UsageError(
            f"the output is one of {count} parts of a split, and readers find parts by their names",
            file=out,
            hint=f"choose a name that ends in -{number + 1:05}-of-{count:05}.gguf, or merge the parts first",
        )


def _check_part(file: SourceFile, header: GgufHeader, edits: Edits) -> None:
    """Raises an error if the header is cut short, and for edits that one part of a split cannot take."""
    for broken in header.broken:
        if broken.rule is FormatRule.HEADER:
            raise broken.everywhere()
    number, count = header.metadata.get(SPLIT_NO), header.metadata.get(SPLIT_COUNT)
    if number is not None and number.data and edits.change_keys:
        raise InputError("only the first file of a split has the keys of the model", file=file.path)
    if edits.drop_tensor and count is not None and count.data not in (0, 1):
        hint = "make one file of the parts with `gguf-forge merge` first"
        raise RefusedError("tensors of one part of a split cannot be dropped", file=file.path, hint=hint)


def _check_broken(
    header: GgufHeader, edits: Edits, metadata: Metadata, kept: Sequence[GgufTensor], *, in_place: bool
) -> None:
    """Refuses what would make a broken file worse, and says what is still wrong with the new one."""
    names = {*map(printable, metadata), *(printable(tensor.name) for tensor in kept)}
    for broken in header.broken:
        rule = broken.rule
        if rule is FormatRule.KEY_TWICE:
            if any(key not in edits.remove for key, _ in header.repeated):
                raise broken.everywhere()
        elif rule is FormatRule.CUT and in_place:
            hint = "name another file with -o; a download can go on if this one stays as it is"
            raise RefusedError("the file is cut short, so it is not edited in place", file=broken.error.file, hint=hint)
        elif rule is FormatRule.CUT and len(kept) < len(header.tensors):
            if not names.isdisjoint(broken.names):
                raise broken.everywhere()
        elif not names.isdisjoint(broken.names):
            log.warning("%s", broken.everywhere())


def check_edit(plan: EditPlan, *, overwrite: bool = False, folder: HeldFolder | None = None) -> None:
    """Raises the errors of `write_edit` that can be known before any work. The file's folder may be held open."""
    inputs = () if plan.in_place else (plan.source,)
    check_output(plan.path, plan.size, inputs, overwrite=overwrite or plan.in_place, folder=folder)


def write_edit(
    plan: EditPlan,
    file: SourceFile,
    header: GgufHeader,
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda n_bytes: None,
) -> None:
    """Writes a planned file, if there is anything to write.

    Raises:
        RefusedError: the file exists and may not be replaced, or is the source under another name.
        OutputError: it cannot be written. The old file is as it was.
        InputError: the source changed while it was read.
    """
    if not plan.is_needed:
        return
    replaces = overwrite or plan.in_place
    with ExitStack() as opened:
        folder = opened.enter_context(made_folder(plan.path.parent))
        check_edit(plan, overwrite=overwrite, folder=folder)
        mode = _mode(plan, file)
        out = opened.enter_context(published(plan.path, plan.size, overwrite=replaces, mode=mode, folder=folder))
        for begin, target, nbytes in _placed(plan):
            for done in range(0, nbytes, _COPY_PIECE):
                piece = min(_COPY_PIECE, nbytes - done)
                out.copy_from(file, begin + done, target + done, piece)
                progress(piece)
        out.write_at(0, memoryview(plan.header))
        file.check_unchanged()


def _placed(plan: EditPlan) -> Iterable[Copy]:
    """The copies at their places in the file. If all data keeps its offset, the whole file is copied, so that file
    systems with reflinks share its blocks."""
    base = len(plan.header)
    if base == plan.old_header and [(copy.start, copy.target) for copy in plan.copies] == [(base, 0)]:
        return [Copy(0, 0, base + plan.copies[0].nbytes)]
    return [copy._replace(target=base + copy.target) for copy in plan.copies]


def _mode(plan: EditPlan, file: SourceFile) -> int | None:
    """The permissions of a file that is edited in place. The new file has them from the start, so it is never readable
    by more users than the old one."""
    if not plan.in_place or file.descriptor is None:
        return None
    with output_errors(plan.path):
        return S_IMODE(disk.status_of_open(file.descriptor).st_mode)


def edited(metadata: Metadata, edits: Edits, repeated: Sequence[tuple[str, Value]] = ()) -> Metadata:
    """The keys of the edited file. Removing a key that is `repeated` leaves its first value.

    Raises:
        UsageError: a key that is not there, a value that does not fit.
        RefusedError: a change that would break the file.

    Example:
        >>> list(edited({"general.name": string("a")}, Edits(rename={"general.name": "general.basename"})))
        ['general.basename']
    """
    result = dict(metadata)
    twice = {key for key, _ in repeated}
    for key in edits.remove:
        if key in twice:
            twice.remove(key)
            continue
        _check_there(key, result)
        _check_free_to_change(key)
        if key == _ARCHITECTURE:
            raise RefusedError(f"{key} cannot be removed", hint="no reader would take the file without it")
        del result[key]
    for old, new in edits.rename.items():
        result = _rename(result, old, new, force=edits.force)
    if edits.chat_templates is not None:
        result = _with_templates(result, edits.chat_templates)
    if edits.pre_tokenizer is not None:
        result["tokenizer.ggml.pre"] = string(checked_name(edits.pre_tokenizer))
    for kind, token in edits.special_tokens.items():
        key, id = special_token(kind, token, result)
        result[key] = u32(id)
    if edits.token_types:
        result = with_token_types(result, edits.token_types)
    for key, value in edits.set.items():
        item = with_item(key, value, result)
        if item is not None:
            result[item[0]] = _checked(*item, result[item[0]], architecture_of(result), edits.force)
            continue
        _check_name(key)
        _check_free_to_change(key)
        before = result.get(key)
        result[key] = _checked(key, typed(key, value, before), before, architecture_of(result), edits.force)
    return result


def architecture_of(metadata: Metadata) -> str:
    """The architecture that the keys name; empty if they name none."""
    value = metadata.get(_ARCHITECTURE)
    return str(value.data) if value is not None else ""


def _check_there(key: str, metadata: Metadata) -> None:
    if key not in metadata:
        near = get_close_matches(key, metadata, 3)
        hint = f"there is {', '.join(map(printable, near))}" if near else "`gguf-forge inspect` lists the keys"
        raise UsageError(f"there is no key {printable(key)}", hint=hint)


def _check_free_to_change(key: str) -> None:
    if key in LAYOUT_KEYS:
        raise RefusedError(f"{key} cannot be changed", hint=LAYOUT_KEYS[key])


def _check_name(key: str) -> None:
    if not key or "\0" in key or not encodable(key) or len(key.encode()) > MAX_KEY:
        raise UsageError(f"{printable(key)!r} cannot be the name of a key", hint="text of 1 to 65535 bytes can")


def _rename(metadata: Metadata, old: str, new: str, *, force: bool) -> Metadata:
    _check_there(old, metadata)
    _check_name(new)
    for key in (old, new):
        _check_free_to_change(key)
    if old == _ARCHITECTURE:
        raise RefusedError(f"{old} cannot be renamed", hint="no reader would take the file without it")
    if new in metadata:
        raise UsageError(f"there is a key {printable(new)} already", hint="remove it first")
    _checked(new, metadata[old], None, architecture_of(metadata), force)
    return {new if key == old else key: value for key, value in metadata.items()}


def _old_names(rename: Mapping[str, str]) -> Mapping[str, str]:
    """Each new name -> the name that the key had in the source file."""
    names: dict[str, str] = {}
    for old, new in rename.items():
        names[new] = names.pop(old, old)
    return names


def _with_templates(metadata: Metadata, templates: Metadata) -> Metadata:
    """The keys with the new templates where the file had its first template, or at the end if it had none."""
    if not any(value.data for value in templates.values()):
        raise UsageError("the chat template is empty", hint=f"remove {CHAT_TEMPLATE} instead")
    result: Metadata = {}
    for key, value in metadata.items():
        result |= templates if key.startswith(CHAT_TEMPLATE) else {key: value}
    return result | templates


def _checked(key: str, value: Value, old: Value | None, architecture: str, force: bool) -> Value:
    """The value, if readers take it for this key."""
    problem = problem_of(key, value, architecture)
    if problem is not None and not force:
        raise UsageError(printable(problem), hint="give another value, or add --force")
    if key == _ARCHITECTURE:
        if not value.data:
            raise UsageError(f"{key} cannot be empty")
        if old is not None and old.data != value.data:
            log.warning("%s: the keys that begin with %s. keep their names", key, printable(str(old.data)))
    if old is not None and (old.type, old.element) != (value.type, value.element):
        log.warning("%s was %s and will be %s", printable(key), _kind(old), _kind(value))
    return value


def _kind(value: Value) -> str:
    return f"a list of {value.element.name}" if value.element is not None else value.type.name


def _changes(old: Metadata, new: Metadata, old_names: Mapping[str, str]) -> tuple[Change, ...]:
    gone = [key for key in old if key not in new and key not in old_names.values()]
    found = [Change(key, old[key], None) for key in gone]
    for key, value in new.items():
        before = old_names.get(key)
        previous = old.get(before if before is not None else key)
        if before is not None or previous is None or (previous is not value and not _same(previous, value)):
            found.append(Change(key, previous, value, before))
    return tuple(found)


def _same(one: Value, other: Value) -> bool:
    """Whether two values have the same bits. 0 and -0 differ, and so do 1 and True."""
    return (one.type, one.element) == (other.type, other.element) and _digits(one) == _digits(other)


def _digits(value: Value) -> str:
    return repr(tuple(value.data) if value.element is not None else value.data)
