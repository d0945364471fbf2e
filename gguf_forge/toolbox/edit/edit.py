"""Changes the keys of a GGUF file. The bytes of the tensors are copied unchanged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from stat import S_IMODE
from typing import Any

from gguf_forge.errors import InputError, RefusedError, UsageError, printable
from gguf_forge.gguf_file.header import alignment_of, encode_header
from gguf_forge.gguf_file.reader import MAX_KEY, GgufHeader, read_header
from gguf_forge.gguf_file.split import SPLIT_KEYS, SPLIT_NO
from gguf_forge.gguf_file.values import Metadata, Value, ValueType, string, u32
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.output import output_errors
from gguf_forge.storage.local.publish import check_output, published
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.tokenizer.chat_template import KEY as CHAT_TEMPLATE
from gguf_forge.tokenizer.checks import encodable
from gguf_forge.tokenizer.pre_tokenizers import checked_name
from gguf_forge.toolbox.edit.settings import UntypedValue, typed

log = logging.getLogger(__name__)

_ARCHITECTURE = "general.architecture"
_TOKENS = "tokenizer.ggml.tokens"
# Keys that say how the rest of the file is laid out. Any other value would make the file unreadable.
_LAYOUT_KEYS = {
    "general.alignment": "it says where the tensor data lies",
    **dict.fromkeys(SPLIT_KEYS, "it says which files belong together: use `gguf-forge split` or `merge`"),
}
# Readers refuse a file in which one of these keys has another type.
_TYPES = {
    _ARCHITECTURE: ValueType.STRING,
    "general.file_type": ValueType.UINT32,
    "general.quantization_version": ValueType.UINT32,
    "tokenizer.ggml.model": ValueType.STRING,
    "tokenizer.ggml.pre": ValueType.STRING,
    CHAT_TEMPLATE: ValueType.STRING,
}
# The kinds of special tokens: the names of gguf_new_metadata.py, and other names in use.
_SPECIAL = (
    *("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "cls", "mask", "prefix", "suffix", "middle"),
    *(f"fim_{part}" for part in ("pre", "suf", "mid", "pad", "rep", "sep")),
)
_ALIASES = {"unk": "unknown", "sep": "seperator", "separator": "seperator", "pad": "padding"}
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
        set: Key -> value, in its old place or at the end. See `gguf_forge.toolbox.edit.settings.typed`.
    """

    remove: Sequence[str] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    chat_templates: Metadata | None = None
    pre_tokenizer: str | None = None
    special_tokens: Mapping[str, str | int] = field(default_factory=dict)
    set: Mapping[str, Value | UntypedValue | Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """A key that changes: its value before and after (None where the file lacks the key), and its old name."""

    key: str
    old: Value | None
    new: Value | None
    renamed_from: str | None = None


@dataclass(frozen=True)
class EditPlan:
    """The plan of an edited file, which decides all its bytes.

    Attributes:
        source: The file as it is.
        path: The new file; the same path as the source for an edit in place.
        changes: In the order of the new file, keys that were removed first.
        header: The new header.
        old_header: Bytes of the old one.
        size: Bytes of the new file.
    """

    source: Path
    path: Path
    changes: tuple[Change, ...]
    header: bytes
    old_header: int
    size: int

    @property
    def in_place(self) -> bool:
        return self.path == self.source

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.changes) or not self.in_place


def edit_gguf(
    source: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    remove: Iterable[str] = (),
    rename: Mapping[str, str] | None = None,
    chat_template: str | None = None,
    pre_tokenizer: str | None = None,
    special_tokens: Mapping[str, str | int] | None = None,
    set: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> EditPlan:
    """Changes keys of a GGUF file: there is the old file or the complete new one, at any time.

    An edit in place gives the name a new file; other hard links to the old file keep the old contents. The bytes of the
    tensors are copied unchanged.

    Args:
        source: The file; of a split one the first, which has the keys.
        out: The file to be; None for the same.
        remove: Keys to leave out.
        rename: Key -> its new name.
        chat_template: A Jinja template, in place of all that the file has.
        pre_tokenizer: A name that llama.cpp knows, such as "llama-bpe".
        special_tokens: Kind ("bos", "eos", "eot", "pad", ...) -> the text of a token, or its id.
        set: Key -> a number, text, bool or list, stored in the type that the key has, or a `Value` of any type.
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
        set or {},
    )
    with SourceFile(Path(source)) as file:
        header = read_header(file)
        plan = plan_edit(file, header, edits, Path(out) if out is not None else None)
        write_edit(plan, file, header, overwrite=overwrite)
        return plan


def plan_edit(file: SourceFile, header: GgufHeader, edits: Edits, out: Path | None = None) -> EditPlan:
    """What editing an opened file comes to. Arguments as for `edit_gguf`.

    Raises:
        UsageError: see `edit_gguf`.
        InputError: this is a later part of a split.
    """
    part = header.metadata.get(SPLIT_NO)
    if part is not None and part.data:
        raise InputError("only the first file of a split has the keys of the model", file=file.path)
    metadata = edited(header.metadata, edits)
    alignment = alignment_of(metadata)
    first = header.data_offset
    infos = [tensor.info for tensor in header.tensors]
    offsets = [tensor.offset - first for tensor in header.tensors]
    # a file with a vocabulary alone may end with its last key
    padding = alignment if infos or file.size > first else 1
    encoded = encode_header(metadata, infos, offsets, padding, header.byte_order)
    size = len(encoded) + (file.size - first if infos else 0)
    changes = _changes(header.metadata, metadata, _old_names(edits.rename))
    return EditPlan(file.path, out or file.path, changes, encoded, first, size)


def check_edit(plan: EditPlan, *, overwrite: bool = False) -> None:
    """Raises the errors of `write_edit` that can be known before any work."""
    inputs = () if plan.in_place else (plan.source,)
    check_output(plan.path, plan.size, inputs, overwrite=overwrite or plan.in_place)


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
    check_edit(plan, overwrite=overwrite)
    with published(plan.path, plan.size, overwrite=overwrite or plan.in_place, mode=_mode(plan, file)) as out:
        # If the data keeps its offset, the whole file is copied, so that file systems with reflinks share its blocks.
        shift = len(plan.header) - plan.old_header
        begin = 0 if shift == 0 else plan.old_header
        end = file.size if header.tensors else begin
        for start in range(begin, end, _COPY_PIECE):
            nbytes = min(_COPY_PIECE, end - start)
            out.copy_from(file, start, start + shift, nbytes)
            progress(nbytes)
        out.write_at(0, memoryview(plan.header))
        file.check_unchanged()


def _mode(plan: EditPlan, file: SourceFile) -> int | None:
    """The permissions of a file that is edited in place. The new file has them from the start, so it is never readable
    by more users than the old one."""
    if not plan.in_place or file.descriptor is None:
        return None
    with output_errors(plan.path):
        return S_IMODE(disk.status_of_open(file.descriptor).st_mode)


def edited(metadata: Metadata, edits: Edits) -> Metadata:
    """The keys of the edited file.

    Raises:
        UsageError: a key that is not there, a value that does not fit.
        RefusedError: a change that would break the file.

    Example:
        >>> list(edited({"general.name": string("a")}, Edits(rename={"general.name": "general.basename"})))
        ['general.basename']
    """
    result = dict(metadata)
    for key in edits.remove:
        _check_there(key, result)
        _check_free_to_change(key)
        if key == _ARCHITECTURE:
            raise RefusedError(f"{key} cannot be removed", hint="no reader would take the file without it")
        del result[key]
    for old, new in edits.rename.items():
        result = _rename(result, old, new)
    if edits.chat_templates is not None:
        result = _with_templates(result, edits.chat_templates)
    if edits.pre_tokenizer is not None:
        result["tokenizer.ggml.pre"] = string(checked_name(edits.pre_tokenizer))
    for kind, token in edits.special_tokens.items():
        key, id = _special(kind, token, result)
        result[key] = u32(id)
    for key, value in edits.set.items():
        _check_name(key)
        _check_free_to_change(key)
        result[key] = _checked(key, typed(key, value, result.get(key)), result.get(key))
    return result


def _check_there(key: str, metadata: Metadata) -> None:
    if key not in metadata:
        near = get_close_matches(key, metadata, 3)
        hint = f"there is {', '.join(map(printable, near))}" if near else "`gguf-forge inspect` lists the keys"
        raise UsageError(f"there is no key {printable(key)}", hint=hint)


def _check_free_to_change(key: str) -> None:
    if key in _LAYOUT_KEYS:
        raise RefusedError(f"{key} cannot be changed", hint=_LAYOUT_KEYS[key])


def _check_name(key: str) -> None:
    if not key or "\0" in key or not encodable(key) or len(key.encode()) > MAX_KEY:
        raise UsageError(f"{printable(key)!r} cannot be the name of a key", hint="text of 1 to 65535 bytes can")


def _rename(metadata: Metadata, old: str, new: str) -> Metadata:
    _check_there(old, metadata)
    _check_name(new)
    for key in (old, new):
        _check_free_to_change(key)
    if old == _ARCHITECTURE:
        raise RefusedError(f"{old} cannot be renamed", hint="no reader would take the file without it")
    if new in metadata:
        raise UsageError(f"there is a key {printable(new)} already", hint="remove it first")
    _checked(new, metadata[old], None)
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


def _special(kind: str, token: str | int, metadata: Metadata) -> tuple[str, int]:
    """The key for a kind of special token, and the id of the token chosen for it."""
    name = _ALIASES.get(kind, kind)
    if name not in _SPECIAL:
        raise UsageError(f"there is no special token {printable(kind)}", hint=f"there are {', '.join(_SPECIAL)}")
    tokens = metadata.get(_TOKENS)
    if tokens is None or tokens.element is not ValueType.STRING:
        raise UsageError("the file has no vocabulary", hint=f"it lacks {_TOKENS}")
    if isinstance(token, int):
        if not 0 <= token < len(tokens.data):
            raise UsageError(f"{token} is no token", hint=f"the vocabulary has tokens 0 to {len(tokens.data) - 1}")
        return f"tokenizer.ggml.{name}_token_id", token
    ids = [id for id, text in enumerate(tokens.data) if text == token]
    if not ids:
        raise UsageError(f"the vocabulary has no token {printable(token)}")
    if len(ids) > 1:
        log.warning("tokens %s are all %s; the first one is taken", ", ".join(map(str, ids)), printable(token))
    return f"tokenizer.ggml.{name}_token_id", ids[0]


def _checked(key: str, value: Value, old: Value | None) -> Value:
    """The value, if readers take its type for this key."""
    wanted = _TYPES.get(
        key, ValueType.UINT32 if key.startswith("tokenizer.ggml.") and key.endswith("_token_id") else None
    )
    if wanted is not None and value.type is not wanted:
        raise UsageError(f"{key} must be {wanted.name}, not {value.type.name}", hint="no reader takes another type")
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


def _changes(old: Metadata, new: Metadata, renamed: Mapping[str, str]) -> tuple[Change, ...]:
    gone = [key for key in old if key not in new and key not in renamed.values()]
    found = [Change(key, old[key], None) for key in gone]
    for key, value in new.items():
        before = renamed.get(key)
        previous = old.get(before if before is not None else key)
        if before is not None or previous is None or (previous is not value and not _same(previous, value)):
            found.append(Change(key, previous, value, before))
    return tuple(found)


def _same(one: Value, other: Value) -> bool:
    """Whether two values have the same bits. 0 and -0 differ, and so do 1 and True."""
    return (one.type, one.element) == (other.type, other.element) and _digits(one) == _digits(other)


def _digits(value: Value) -> str:
    return repr(tuple(value.data) if value.element is not None else value.data)
