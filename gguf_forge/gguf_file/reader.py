"""Reads the header of a GGUF file, which may be hostile, and checks everything in it before it is used.

Nothing in it is trusted: every count, length, offset and product is compared with the size of the file, in integers
that cannot overflow, before anything is allocated or read. Whatever ggml refuses is refused here too, and a few things
more that no honest file has. A lenient reader takes the same steps, and notes the broken rules of rules.py where the
strict one refuses the file. Source: ggml's docs/gguf.md and ggml/src/gguf.cpp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import numpy as np

from gguf_forge.errors import ForgeError, InputError, UnsupportedError, printable
from gguf_forge.gguf_file.cursor import Cursor, HeaderEnds
from gguf_forge.gguf_file.header import (
    FORMATS,
    MAGIC,
    alignment_of,
    padded,
)
from gguf_forge.gguf_file.packed_items import LENGTH_BYTES, PackedNumbers, text_or_bytes
from gguf_forge.gguf_file.rules import GGML, WIDEST, WRITTEN_SO, BrokenRule, BrokenRules, FormatRule, refuse
from gguf_forge.gguf_file.tensor import GgufTensor
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import ByteOrder, Metadata, Value, ValueType
from gguf_forge.storage.json_file import IMPOSTOR_BYTES, refuse_impostor
from gguf_forge.storage.source import Source
from gguf_forge.types.foreign_type import ForeignType
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType

VERSIONS = (2, 3)

# Bounds far above any real file. A hostile file can really have as many items as it claims, so its own size does not
# bound the work of reading it.
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_ITEMS = 1 << 30  # items of an array; this is ggml's limit
MAX_KEY = 65535  # bytes, from docs/gguf.md

_KEY_BYTES = 8 + 1 + 4 + 1  # the fewest bytes that a key and its value take
_TENSOR_BYTES = 8 + 1 + 4 + 4 + 8
_ARRAY_BYTES = 4 + 8
_MAX_ELEMENTS = 2**63 - 1
# What Python's objects take: those of an array in an array, of a tensor, of a key, and of a number in an array, which
# becomes an object of its own if somebody looks at it.
_COST_OF_ARRAY, _COST_OF_TENSOR, _COST_OF_KEY, _COST_OF_NUMBER = 1024, 1024, 512, 32

_TYPE_BY_ID = {kind.id: kind for kind in TENSOR_TYPES.values()}
# Ids that ggml once used, and what it calls them.
_REMOVED = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}
_OLD_MAGICS = (b"lmgg", b"fmgg", b"tjgg", b"algg")  # ggml, ggmf, ggjt, ggla


@dataclass(frozen=True)
class GgufHeader:
    """The header of one file: everything before its tensor data.

    Attributes:
        version: 2 or 3.
        byte_order: "<" or ">".
        metadata: Typed values in file order.
        tensors: In file order.
        data_offset: The byte at which the data section begins.
        repeated: Further values of keys that are there several times; `metadata` has the first.
        broken: The rules that the file breaks; none unless it was read leniently.
    """

    version: int
    byte_order: ByteOrder
    metadata: Metadata
    tensors: tuple[GgufTensor, ...]
    data_offset: int
    repeated: tuple[tuple[str, Value], ...] = ()
    broken: tuple[BrokenRule, ...] = ()


def read_header(source: Source, *, lenient: bool = False) -> GgufHeader:
    """Reads and checks everything before the tensor data, and the offsets of that data.

    Args:
        source: The file.
        lenient: Note broken rules in the result, where the file can be read all the same.

    Raises:
        InputError: the file breaks a rule of the format, or ends too early; the message says which, and where.
        UnsupportedError: a version or tensor type that this version does not know.
    """
    header = _read_header(source)
    if not lenient:
        refuse(header.broken)
    return header


def _read_header(source: Source) -> GgufHeader:
    rules = BrokenRules()
    version, byte_order = _read_version(source)
    cursor = Cursor(source, byte_order, at=8)
    metadata: Metadata = {}
    repeated: list[tuple[str, Value]] = []
    described: list[tuple[TensorInfo, int]] = []
    try:
        n_tensors, n_keys = cursor.numbers("QQ", "the numbers of tensors and keys")
        cursor.checked_count(n_tensors, "tensors", each=_TENSOR_BYTES, limit=MAX_TENSORS)
        cursor.checked_count(n_keys, "keys", each=_KEY_BYTES, limit=MAX_KEYS)
        cursor.spend(n_tensors * _COST_OF_TENSOR + n_keys * _COST_OF_KEY, "its tensors and keys")
        _read_metadata(cursor, n_keys, rules, metadata, repeated)
        described = _read_tensor_infos(cursor, n_tensors, rules)
    except HeaderEnds as error:  # the keys that were read are true, and nothing is known of the data
        plain = InputError(error.words.problem, file=source.path, hint=error.words.hint)
        rules.note(FormatRule.HEADER, plain, printable(source.path.name))
    try:
        alignment = alignment_of(metadata)
    except InputError as error:
        raise InputError(error.words.problem, file=source.path, hint=error.words.hint) from None
    data_offset = padded(cursor.at, alignment) if described else cursor.at
    tensors = _place(described, data_offset, alignment, cursor, rules)
    return GgufHeader(version, byte_order, metadata, tensors, data_offset, tuple(repeated), rules.all())


def _read_version(source: Source) -> tuple[int, ByteOrder]:
    head = source.read(0, min(source.size, IMPOSTOR_BYTES)).tobytes()
    if not head:
        raise InputError("the file is empty", file=source.path, hint="download it again")
    if head[:4] != MAGIC:
        refuse_impostor(head, source.path)
        if head[:4] in _OLD_MAGICS:
            raise UnsupportedError(
                "this is a file of llama.cpp from before GGUF",
                file=source.path,
                hint="convert the original model again",
            )
        raise InputError(f"not a GGUF file: it begins with {repr(head[:4])[1:]}, not with 'GGUF'", file=source.path)
    if len(head) < 8:
        raise InputError(f"the file has only {len(head)} bytes", file=source.path, hint="download it again")
    order: ByteOrder = "<"
    version = int.from_bytes(head[4:8], "little")
    if version & 0xFFFF == 0:  # a small number whose bytes are reversed, so the file has the other byte order
        order, version = ">", int.from_bytes(head[4:8], "big")
    if version == 0 or version & 0xFFFF == 0:
        raise InputError(f"GGUF version {version} does not exist", file=source.path, hint="download it again")
    if version not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise UnsupportedError(
            f"this is GGUF version {version}; versions {known} are read",
            file=source.path,
            hint="convert the original model again" if version == 1 else "a newer gguf-forge may read it",
        )
    return version, order


def _read_metadata(
    cursor: Cursor, n_keys: int, rules: BrokenRules, metadata: Metadata, repeated: list[tuple[str, Value]]
) -> None:
    """Adds the first value of each key to `metadata`, and the others to `repeated`, as far as the header goes."""
    for number in range(n_keys):
        raw = cursor.string(f"key {number}", MAX_KEY)
        key = text_or_bytes(raw)
        if not isinstance(key, str):
            raise cursor.broken(f"key {number}, {raw[:100]!r}, is not valid UTF-8")
        shown = printable(key)
        if not key:
            rules.note(FormatRule.EMPTY_KEY, cursor.broken(f"key {number}, b'', is empty", hint=WRITTEN_SO), shown)
        if key in metadata:
            hint = f"{WRITTEN_SO}: `gguf-forge edit FILE --remove {shown}` keeps the first"
            rules.note(FormatRule.KEY_TWICE, cursor.broken(f"key {shown} is there twice", hint=hint), shown)
        value = _read_value(cursor, f"the value of {shown}")
        if value.element is ValueType.ARRAY:
            rules.note(FormatRule.NESTED, cursor.broken(_nested(f"the value of {shown}"), hint=WRITTEN_SO), shown)
        if key in metadata:
            repeated.append((key, value))
        else:
            metadata[key] = value


def _nested(what: str) -> str:
    return f"{what} is an array of arrays, which GGUF readers do not take"


def _read_value(cursor: Cursor, what: str) -> Value:
    kind = _value_type(cursor, what)
    if kind is ValueType.ARRAY:
        return _read_array(cursor, what)
    if kind is ValueType.STRING:
        return Value(kind, text_or_bytes(cursor.string(what)))
    data = cursor.number(FORMATS[kind], what)
    if kind is ValueType.FLOAT32 and math.isnan(data):
        # Python's floats are doubles, and converting a 32-bit NaN to one can change its bits.
        cursor.at -= 4
        data = cursor.take(4, what).view(f"{cursor.byte_order}f4").astype(np.float32)[0]
    return Value(kind, data)


def _read_array(cursor: Cursor, what: str, depth: int = 0) -> Value:
    element = _value_type(cursor, what)
    if element is ValueType.ARRAY:
        if depth == WIDEST.nesting:
            raise cursor.broken(_nested(what), hint=WRITTEN_SO)
        count = cursor.count(f"arrays in {what}", each=_ARRAY_BYTES, limit=MAX_ITEMS)
        cursor.spend(count * _COST_OF_ARRAY, what)
        return Value(ValueType.ARRAY, tuple(_read_array(cursor, what, depth + 1) for _ in range(count)), element)
    if element is ValueType.STRING:
        count = cursor.count(f"strings in {what}", each=LENGTH_BYTES, limit=MAX_ITEMS)
        return Value(ValueType.ARRAY, cursor.strings(count, what), element)
    dtype = np.dtype(cursor.byte_order + FORMATS[element])
    count = cursor.count(f"items in {what}", each=dtype.itemsize, limit=MAX_ITEMS)
    cursor.spend(count * _COST_OF_NUMBER, what)
    if element is ValueType.BOOL:
        numbers = cursor.held(count, what) != 0  # every byte except zero means true
    else:
        numbers = cursor.held(count * dtype.itemsize, what).view(dtype)
    return Value(ValueType.ARRAY, PackedNumbers(numbers), element)


def _value_type(cursor: Cursor, what: str) -> ValueType:
    number = cursor.number("I", f"the type of {what}")
    try:
        return ValueType(number)
    except ValueError:
        raise cursor.broken(f"{what} has the unknown type {number}") from None


def _read_tensor_infos(cursor: Cursor, n_tensors: int, rules: BrokenRules) -> list[tuple[TensorInfo, int]]:
    """Every tensor and the offset that the file gives it."""
    found = [_read_tensor_info(cursor, number, rules) for number in range(n_tensors)]
    names = set()
    for info, _ in found:
        if info.name in names:
            raise cursor.broken("two tensors have this name", printable(info.name), hint=WRITTEN_SO)
        names.add(info.name)
    return found


def _read_tensor_info(cursor: Cursor, number: int, rules: BrokenRules) -> tuple[TensorInfo, int]:
    raw = cursor.string(f"the name of tensor {number}", WIDEST.name_bytes)
    name = text_or_bytes(raw)
    if not isinstance(name, str) or not name or "\0" in name:
        raise cursor.broken(f"the name of tensor {number}, {raw!r:.200}, is empty, not valid UTF-8, or has a NUL in it")
    shown = printable(name)
    if len(raw) > GGML.name_bytes:
        problem = f"the name of tensor {number} has {len(raw)} bytes; {GGML.name_bytes} are allowed"
        rules.note(FormatRule.NAME, cursor.broken(problem, shown, hint=WRITTEN_SO), shown)
    n_dims = cursor.number("I", f"the number of dimensions of {shown}")
    if n_dims > GGML.dims:
        hint = "files with such tensors are for ComfyUI-GGUF or stable-diffusion.cpp; llama.cpp does not load them"
        error = cursor.broken(f"the tensor has {n_dims} dimensions; ggml has {GGML.dims}", shown, hint=hint)
        if n_dims > WIDEST.dims:
            raise error
        rules.note(FormatRule.DIMS, error, shown)
    *shape, type_id, offset = cursor.numbers(f"{n_dims}QIQ", f"the description of {shown}")
    # Empty tensors are allowed, but their other dimensions must still be in range.
    if prod(max(size, 1) for size in shape) > _MAX_ELEMENTS:
        raise cursor.broken(f"shape {tuple(shape)} has more elements than can be counted", shown)
    # ggml reads a tensor without dimensions as one value
    whole_shape = tuple(shape) or (1,)
    foreign = _type_problem(type_id, whole_shape[0], cursor, shown)
    if foreign is None:
        return TensorInfo(name, whole_shape, _TYPE_BY_ID[type_id]), offset
    rules.note(FormatRule.TYPE, foreign, shown)
    return TensorInfo(name, whole_shape, ForeignType.numbered(type_id)), offset


def _type_problem(type_id: int, n_per_row: int, cursor: Cursor, tensor: str) -> ForgeError | None:
    """Why a tensor with rows of this length cannot have the type that ggml knows by this number."""
    kind = _TYPE_BY_ID.get(type_id)
    if kind is not None:
        if n_per_row % kind.block_elements == 0:
            return None
        problem = f"a row of {n_per_row} values is not a whole number of {kind} blocks of {kind.block_elements}"
        return cursor.broken(problem, tensor, hint=_other_meaning(kind))
    old = _REMOVED.get(type_id)
    return UnsupportedError(
        f"tensor type {type_id} is " + (f"{old}, which llama.cpp removed" if old else "not known"),
        file=cursor.source.path,
        tensor=tensor,
        hint=f"{'convert the original model again' if old else 'it may come from a fork or newer release of llama.cpp'}"
        "; inspect, edit, split and merge work without knowing it",
    )


def _other_meaning(kind: TensorType) -> str:
    return (
        f"a fork of llama.cpp may use number {kind.id}, which is {kind} in llama.cpp, for another type; "
        "inspect, edit, split and merge work without knowing it"
    )


def _place(
    described: list[tuple[TensorInfo, int]], data_offset: int, alignment: int, cursor: Cursor, rules: BrokenRules
) -> tuple[GgufTensor, ...]:
    """Checks that the tensors lie one behind the other, padded to the alignment, and inside the file."""
    size = cursor.source.size
    starts = sorted({offset for _, offset in described})
    following = dict(pairwise([*starts, max(size - data_offset, *starts[-1:], 0)]))
    placed: list[GgufTensor] = []
    expected = 0
    for info, offset in described:
        shown = printable(info.name)
        if offset != expected:
            problem = f"the data is said to be at offset {offset}, but the tensors before it end at {expected}"
            before = _TYPE_BY_ID.get(placed[-1].type.id) if placed else None
            hint = _other_meaning(before) if before is not None and before.is_packed else WRITTEN_SO
            rules.note(FormatRule.OFFSET, cursor.broken(problem, shown, hint=hint), shown)
        sized = _sized(info, following[offset] - offset, alignment, is_last=offset == starts[-1])
        start = data_offset + offset
        if start + sized.nbytes > size:
            problem = f"the data ends at byte {start + sized.nbytes}, but the file has only {size}"
            hint = "the file is cut short: download it again"
            rules.note(FormatRule.CUT, InputError(problem, file=cursor.source.path, tensor=shown, hint=hint), shown)
        placed.append(GgufTensor(sized, cursor.source, start, cursor.byte_order))
        expected = offset + padded(info.nbytes if _is_known(info) else sized.nbytes, alignment)
    return tuple(placed)


def _is_known(info: TensorInfo) -> bool:
    return not isinstance(info.type, ForeignType)


def _sized(info: TensorInfo, distance: int, alignment: int, *, is_last: bool) -> TensorInfo:
    """The tensor with the bytes up to the next one, if its type does not tell them, or tells other ones."""
    is_taken = info.type.is_packed and info.nbytes > 0 and not is_last and padded(info.nbytes, alignment) != distance
    if _is_known(info) and not is_taken:
        return info
    return replace(info, type=ForeignType.numbered(info.type.id), foreign_bytes=distance)
