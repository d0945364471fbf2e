"""GGUF files that lie: one for each attack, with what the strict reader says of it."""

from __future__ import annotations

import struct

from raw_gguf import ARRAY, STRING, U8, U32, RawTensor, key, raw_gguf, text, u32_key

DATA = bytes(range(128))
GOOD = RawTensor()
HUGE = 2**63


def array_of(kind: int, count: int, payload: bytes = b"") -> bytes:
    return key(b"k", ARRAY, struct.pack("<IQ", kind, count) + payload)


BROKEN = {
    "empty": (b"", "the file is empty"),
    "magic alone": (b"GGUF", "has only 4 bytes"),
    "wrong magic": (raw_gguf(magic=b"FUGG"), "not a GGUF file: it begins with 'FUGG'"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "web page": (b"<!DOCTYPE html><html></html>", "a web page"),
    "version 0": (raw_gguf(version=0), "version 0 does not exist"),
    "no counts": (raw_gguf()[:20], "the numbers of tensors and keys of 16 bytes does not fit"),
    "n_tensors of 2^63": (raw_gguf(n_tensors=HUGE), f"{HUGE} tensors are more than"),
    "n_keys of 2^63": (raw_gguf(n_keys=HUGE), f"{HUGE} keys are more than"),
    "n_tensors of 2^64-1": (raw_gguf(n_tensors=2**64 - 1), "tensors are more than"),
    "more tensors than fit": (raw_gguf(n_tensors=1000), "1000 tensors do not fit"),
    "more keys than fit": (raw_gguf(n_keys=1000), "1000 keys do not fit"),
    "one key more than there is": (raw_gguf([u32_key(b"a", 1)], n_keys=2), "2 keys do not fit|length of key 1"),
    "key of 2^63 bytes": (raw_gguf([struct.pack("<Q", HUGE) + bytes(32)]), f"key 0 has {HUGE} bytes"),
    "key beyond the file": (raw_gguf([struct.pack("<Q", 60000) + bytes(32)]), "key 0 of 60000 bytes does not fit"),
    "key too long": (raw_gguf([u32_key(b"k" * 65536, 1)]), "65535 are allowed"),
    "empty key": (raw_gguf([u32_key(b"", 1), u32_key(b"a", 1)]), "key 0, b'', is empty"),
    "key not UTF-8": (raw_gguf([u32_key(b"\xff", 1)]), r"key 0, b'\\xff', is not valid UTF-8"),
    "duplicate key": (raw_gguf([u32_key(b"a.b", 1), u32_key(b"a.b", 2)]), "key a.b is there twice"),
    "unknown value type": (raw_gguf([key(b"k", 13, bytes(8))]), "the value of k has the unknown type 13"),
    "value type of 2^32-1": (raw_gguf([key(b"k", 2**32 - 1, bytes(8))]), "unknown type 4294967295"),
    "value cut short": (raw_gguf([key(b"kk", U32, b"\0\0\0")]), "the value of kk of 4 bytes does not fit"),
    "string beyond the file": (raw_gguf([key(b"k", STRING, struct.pack("<Q", 99))]), "of 99 bytes does not fit"),
    "string of 2^64-1 bytes": (raw_gguf([key(b"k", STRING, struct.pack("<Q", 2**64 - 1))]), "are allowed"),
    "array of arrays": (raw_gguf([array_of(ARRAY, 1, bytes(20))]), "array of arrays"),
    "array of an unknown type": (raw_gguf([array_of(99, 1, bytes(20))]), "unknown type 99"),
    "array of 2^63 items": (raw_gguf([array_of(U8, HUGE)]), f"{HUGE} items"),
    "array whose size wraps": (raw_gguf([array_of(U32, 2**62 + 1, bytes(8))]), "items in the value of k"),
    "array beyond the file": (raw_gguf([array_of(U32, 100, bytes(8))]), "100 items in the value of k do not fit"),
    "2^63 strings": (raw_gguf([array_of(STRING, HUGE)]), f"{HUGE} strings"),
    "more strings than fit": (raw_gguf([array_of(STRING, 100, bytes(8))]), "100 strings in the value of k do not fit"),
    "string in an array beyond the file": (
        raw_gguf([array_of(STRING, 2, text(b"a") + struct.pack("<Q", 2**64 - 1))]),
        "has a string that does not fit",
    ),
    "string in an array that wraps to itself": (
        raw_gguf([array_of(STRING, 2, struct.pack("<QQ", 2**64 - 8, 0))]),
        "has a string that does not fit",
    ),
    "alignment 0": (raw_gguf([u32_key(b"general.alignment", 0)]), r"general.alignment is 0 \(UINT32\)"),
    "alignment 3": (raw_gguf([u32_key(b"general.alignment", 3)]), "general.alignment is 3"),
    "alignment of the wrong type": (raw_gguf([key(b"general.alignment", U8, b"\x20")]), r"is 32 \(UINT8\)"),
    "alignment a string": (raw_gguf([key(b"general.alignment", STRING, text(b"32"))]), r"\(STRING\)"),
    "alignment of 2^20": (raw_gguf([u32_key(b"general.alignment", 1 << 20)], [GOOD], DATA), "the file has only"),
    "alignment of 2^21": (raw_gguf([u32_key(b"general.alignment", 1 << 21)]), "general.alignment is 2097152"),
    "alignment other than the padding": (
        raw_gguf([u32_key(b"general.alignment", 128)], [GOOD, RawTensor(b"b", offset=32)], DATA * 4),
        "at offset 32, but the tensors before it end at 128",
    ),
    "tensor name of 64 bytes": (raw_gguf([], [RawTensor(b"a" * 64)], DATA), "has 64 bytes; 63 are allowed"),
    "tensor name of 2^63 bytes": (
        raw_gguf([], [], struct.pack("<Q", HUGE) + bytes(64), n_tensors=1),
        f"the name of tensor 0 has {HUGE} bytes",
    ),
    "tensor name empty": (raw_gguf([], [RawTensor(b"")], DATA), "is empty, not valid UTF-8, or has a NUL"),
    "tensor name not UTF-8": (raw_gguf([], [RawTensor(b"\xc3")], DATA), "is empty, not valid UTF-8, or has a NUL"),
    "tensor name with a NUL": (raw_gguf([], [RawTensor(b"a\0b")], DATA), "is empty, not valid UTF-8, or has a NUL"),
    "duplicate tensor": (raw_gguf([], [GOOD, RawTensor(offset=128)], DATA * 2), "two tensors have this name"),
    "five dimensions": (raw_gguf([], [RawTensor(shape=(1,) * 5)], DATA), "has 5 dimensions"),
    "2^32-1 dimensions": (raw_gguf([], [RawTensor(n_dims=2**32 - 1)], DATA), "has 4294967295 dimensions"),
    "more dimensions than there are": (raw_gguf([], [RawTensor(n_dims=4)]), "the description of a.weight"),
    "negative dimension": (raw_gguf([], [RawTensor(shape=(HUGE,), type_id=24)], DATA), "more elements than"),
    "elements beyond 2^63": (raw_gguf([], [RawTensor(shape=(2**32, 2**32))], DATA), "more elements than"),
    "elements that wrap to 0": (raw_gguf([], [RawTensor(shape=(2**32, 2**32, 4))], DATA), "more elements than"),
    "bytes beyond 2^64": (raw_gguf([], [RawTensor(shape=(2**62,), type_id=28)], DATA), "the file has only"),
    "bytes whose padding wraps": (
        raw_gguf([], [RawTensor(shape=(4, 2**30 - 1, 2**30 + 1))], DATA),
        "the file has only",
    ),
    "sum of sizes wraps": (
        raw_gguf([], [RawTensor(b"a", (2**63 - 64,), 24), RawTensor(b"b", (2**63 - 64,), 24, 2**63 - 64)], DATA),
        "the file has only",
    ),
    "row of no whole blocks": (
        raw_gguf([], [RawTensor(shape=(33, 2), type_id=2)], DATA),
        "whole number of Q4_0 blocks",
    ),
    "offset in the header": (raw_gguf([], [RawTensor(offset=2**64 - 32)], DATA), "is said to be at offset"),
    "offset not aligned": (raw_gguf([], [RawTensor(offset=8)], DATA), "offset 8, but the tensors before it end at 0"),
    "overlap": (raw_gguf([], [GOOD, RawTensor(b"b", offset=96)], DATA * 2), "offset 96, but the tensors .* end at 128"),
    "gap": (raw_gguf([], [GOOD, RawTensor(b"b", offset=160)], DATA * 3), "offset 160, but the tensors .* end at 128"),
    "data cut short": (raw_gguf([], [GOOD], DATA[:-1]), "data ends at byte .* but the file has only"),
    "no data at all": (raw_gguf([], [GOOD]), "data ends at byte .* but the file has only"),
}

UNSUPPORTED = {
    "version 1": (raw_gguf(version=1), "GGUF version 1; versions 2 and 3 are read"),
    "version 4": (raw_gguf(version=4), "GGUF version 4"),
    "version 1 big-endian": (raw_gguf(version=1, order=">"), "GGUF version 1;"),
    "version 4 big-endian": (raw_gguf(version=4, order=">"), "GGUF version 4"),
    "ggml": (b"lmgg" + bytes(64), "from before GGUF"),
    "ggjt": (b"tjgg" + bytes(64), "from before GGUF"),
    "removed type": (raw_gguf([], [RawTensor(type_id=4)], DATA), "type 4 is Q4_2, which llama.cpp removed"),
    "repacked type": (raw_gguf([], [RawTensor(type_id=31)], DATA), "type 31 is Q4_0_4_4, which llama.cpp removed"),
    "type of the future": (raw_gguf([], [RawTensor(type_id=43)], DATA), "tensor type 43 is not known"),
    "type of a fork": (raw_gguf([], [RawTensor(type_id=140)], DATA), "fork or newer release"),
    "type of 2^32-1": (raw_gguf([], [RawTensor(type_id=2**32 - 1)], DATA), "is not known"),
}
