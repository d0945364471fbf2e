"""Parsers of the options that have a syntax of their own: --tensor-type, --override-kv, --prune-layers.

Source of the syntax: llama.cpp's tools/quantize/quantize.cpp and common/common.cpp. In some cases llama-quantize reads
a malformed number as zero or drops a sign; these raise a UsageError here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from itertools import takewhile
from os import PathLike
from pathlib import Path

from gguf_forge.errors import UsageError
from gguf_forge.foreign_text import natural
from gguf_forge.gguf_file.split import SPLIT_KEYS
from gguf_forge.gguf_file.values import Value, boolean, f32, string, u32
from gguf_forge.name_pattern import MOST_PATTERNS, NamePattern
from gguf_forge.recipe.options import KeyOverride, TypeOverride
from gguf_forge.storage.folder import read_text
from gguf_forge.storage.local.folder import located
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType

_MAX_BYTES = 127


def parse_target_type(name: str) -> TensorType:
    """The tensor type called `name`, in any case, if tensors can be quantized to it.

    Raises:
        UsageError: no such type, or one that is only computed with.

    Example:
        >>> parse_target_type("q6_k").name
        'Q6_K'
    """
    targets = {target.name: target for target in TENSOR_TYPES.values() if target.is_target}
    found = targets.get(name.upper())
    if found is None:
        raise UsageError(f"cannot quantize to tensor type {name!r}", hint=f"tensor types: {', '.join(targets)}")
    return found


def parse_tensor_type(text: str) -> TypeOverride:
    """Read `PATTERN=TYPE`, split at the first `=`.

    Raises:
        UsageError: a part is missing, the pattern is no regular expression, or the type is unknown.

    Example:
        >>> parse_tensor_type("attn_v=q8_0").type.name
        'Q8_0'
    """
    pattern, separator, name = text.partition("=")
    if not pattern or not separator or not name:
        raise UsageError(f"--tensor-type {text!r} is not PATTERN=TYPE", hint="for example attn_v=q8_0")
    return TypeOverride(NamePattern.compile(pattern), parse_target_type(name))


def parse_tensor_type_file(path: str | PathLike[str]) -> tuple[TypeOverride, ...]:
    """Read a file of `PATTERN=TYPE`, separated by blanks or newlines. A comment begins with a word that begins with #.

    Raises:
        InputError: the file cannot be read.
        UsageError: an entry is wrong, which the error names with its line; or there are more than 8,192.
    """
    found = []
    for number, line in enumerate(read_text(*located(Path(path))).splitlines(), 1):
        entries = takewhile(lambda word: not word.startswith("#"), line.split())
        try:
            found += [parse_tensor_type(entry) for entry in entries]
        except UsageError as error:
            raise UsageError(f"line {number}: {error.words.problem}", file=path, hint=error.words.hint) from error
        if len(found) > MOST_PATTERNS:
            hint = "write one pattern for many tensors, for example blk.*.attn_v=q8_0"
            raise UsageError(f"has more than {MOST_PATTERNS:,} patterns", file=path, hint=hint)
    return tuple(found)


def parse_prune_layers(text: str) -> tuple[int, ...]:
    """Read layer numbers separated by commas; the result is sorted and has no duplicates.

    Raises:
        UsageError: an item is not a layer number.

    Example:
        >>> parse_prune_layers("7,3,7")
        (3, 7)
    """
    found = {natural(item.strip()) for item in text.split(",")}
    layers = {layer for layer in found if layer is not None}
    if layers != found:
        raise UsageError(f"--prune-layers {text!r} is not a list of layers", hint="for example 20,21,22")
    return tuple(sorted(layers))


def parse_key_override(text: str) -> KeyOverride:
    """Read `KEY=TYPE:VALUE` where TYPE is int, float, bool or str. An int is stored as UINT32.

    Raises:
        UsageError: it is malformed, a value does not fit its type, or the key must not change.

    Example:
        >>> parse_key_override("general.name=str:Mine").value.data
        'Mine'
    """
    key, separator, typed = text.partition("=")
    kind, colon, raw = typed.partition(":")
    read = _READERS.get(kind)
    if not key or not separator or not colon or read is None:
        raise UsageError(
            f"--override-kv {text!r} is not KEY=TYPE:VALUE",
            hint="TYPE is int, float, bool or str, for example general.name=str:Mine",
        )
    if len(key.encode(errors="surrogateescape")) > _MAX_BYTES:
        raise UsageError(f"--override-kv {text!r} has a key longer than {_MAX_BYTES} bytes")
    if key in LAYOUT_KEYS:
        raise UsageError(f"--override-kv cannot change {key}", hint=LAYOUT_KEYS[key])
    value = read(raw)
    if value is None:
        raise UsageError(f"--override-kv {text!r}: {raw!r} is not a valid {kind}", hint=_LIMITS[kind])
    return KeyOverride(key, value)


def _read_int(raw: str) -> Value | None:
    try:
        number = int(raw)
    except ValueError:
        return None
    return u32(number) if 0 <= number < 2**32 and "_" not in raw else None


def _read_float(raw: str) -> Value | None:
    try:
        number = float(raw)
        struct.pack("<f", number)
    except (ValueError, OverflowError):
        return None
    return f32(number) if "_" not in raw else None


def _read_bool(raw: str) -> Value | None:
    return boolean(raw == "true") if raw in ("true", "false") else None


def _read_str(raw: str) -> Value | None:
    return string(raw) if len(raw.encode(errors="surrogateescape")) <= _MAX_BYTES else None


# What the keys say that the file's layout depends on. With any other value, nobody could read the file.
LAYOUT_KEYS: Mapping[str, str] = {
    "general.alignment": "it says where the tensor data begins",
    **dict.fromkeys(SPLIT_KEYS, "it says which files belong together: use `gguf-forge split` or `merge`"),
}
_READERS: dict[str, Callable[[str], Value | None]] = {
    "int": _read_int,
    "float": _read_float,
    "bool": _read_bool,
    "str": _read_str,
}
_LIMITS = {
    "int": "a whole number from 0 to 4294967295, because it is stored as UINT32",
    "float": "a number in the range of a 32-bit float",
    "bool": "true or false",
    "str": f"at most {_MAX_BYTES} bytes of text",
}
