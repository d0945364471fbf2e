from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.gguf_file.packed_items import PackedItems, PackedNumbers, PackedStrings
from gguf_forge.gguf_file.values import ByteOrder

TEXTS = st.lists(st.binary(max_size=6) | st.sampled_from([b"a\0b", b"\0", "▁".encode(), bytes(300)]), max_size=8)


def packed(words: list[bytes], order: ByteOrder = "<") -> PackedStrings:
    raw, starts = b"", [0]
    for word in words:
        raw += np.array(len(word), f"{order}u8").tobytes() + word
        starts.append(len(raw))
    return PackedStrings(np.frombuffer(raw, np.uint8), np.array(starts, np.int64), order)


@given(TEXTS)
def test_strings(words: list[bytes]) -> None:
    strings = packed(words)
    assert [word if isinstance(word, bytes) else word.encode() for word in strings] == words
    assert [strings[n] for n in range(len(words))] == list(strings)
    assert strings.has_nul == any(b"\0" in word for word in words)


@given(TEXTS)
def test_strings_change_their_byte_order(words: list[bytes]) -> None:
    little, big = packed(words, "<"), packed(words, ">")
    assert little.encoded("<") == big.encoded("<")
    assert little.encoded(">") == big.encoded(">")


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", "f4", "f8", "?"])
@pytest.mark.parametrize(("order", "other"), ["<>", "><"])
def test_numbers(dtype: str, order: ByteOrder, other: ByteOrder) -> None:
    stored = np.array([1, 0, 1], np.dtype(dtype).newbyteorder(order))
    numbers = PackedNumbers(stored)
    assert list(numbers) == [numbers[0], numbers[1], numbers[2]] == [1, 0, 1]
    assert numbers.encoded(order) == stored.tobytes()
    assert numbers.encoded(other) == stored.byteswap().tobytes()


def test_items_are_a_sequence_like_a_tuple() -> None:
    items: PackedItems[object] = packed([b"a", b"\xff", b"c"])
    assert items == ("a", b"\xff", "c") == items
    assert hash(items) == hash(("a", b"\xff", "c"))
    assert items[1:] == (b"\xff", "c")
    assert items[-1] == "c"
    assert items != ("a", b"\xff")
    assert items != "a"
    assert repr(packed([b"x"] * 5)) == "<5 items: 'x', 'x', 'x', ...>"
    with pytest.raises(IndexError):
        items[3]
