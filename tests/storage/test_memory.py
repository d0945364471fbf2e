"""What is read before any weight fits into the memory that the run may take, or is refused before it is parsed."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.errors import InputError
from gguf_forge.storage import memory
from gguf_forge.storage.json_file import read_json
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.storage.memory import SMALL_NEED, check_memory, json_cost, memory_bound

VALUES = (
    b"[]", b"{}", b'{"":0}', b'"ab"', b"300", b"3e8", b"[[[[[]]]]]", b'{"a":{"b":{}}}', '"a🚀"'.encode(),
    ('"' + "a" * 1000 + '🚀"').encode(), ('"' + "a" * 1000 + 'é"').encode(), b'{"a":0,"b":0,"c":0}',
    b"[[0],[0]]", b'["",[],{}]', b'"\\u0100"', b"null", b"-1.5",
)  # fmt: skip


def taken(text: bytes) -> int:
    tracemalloc.start()
    try:
        json.loads(text.decode())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", VALUES)
def test_the_estimate_for_a_list_is_enough(value: bytes) -> None:
    text = b"[" + b",".join([value] * (300_000 // len(value))) + b"]"
    assert taken(text) <= json_cost(text)


@pytest.mark.parametrize("value", VALUES)
def test_the_estimate_for_an_object_is_enough(value: bytes) -> None:
    text = b"{" + b",".join(b'"%x":%s' % (number, value) for number in range(200_000 // len(value))) + b"}"
    assert taken(text) <= json_cost(text)


SCALARS = st.none() | st.integers() | st.text()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_the_estimate_for_any_value_is_enough(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        raw = text.encode(errors="replace")
        assert taken(raw) <= json_cost(raw) + 4096


def test_the_estimate_for_a_vocabulary_is_not_far_off() -> None:
    vocabulary = {f"Ġtoken{number}": number for number in range(20_000)}
    text = json.dumps({"model": {"vocab": vocabulary, "merges": [[key, key] for key in vocabulary]}}).encode()
    assert taken(text) <= json_cost(text) <= 3 * taken(text)


def test_a_need_that_fits_and_one_that_does_not(held: int) -> None:
    file = Path("config.json")
    check_memory(SMALL_NEED - 1, "its JSON", file)
    with memory_bound(held + (64 << 20)):
        check_memory(32 << 20, "its JSON", file)
        with pytest.raises(InputError, match=r"config\.json: its JSON would take about 100 MiB.*max_memory=\"\d+M"):
            check_memory(100 << 20, "its JSON", file)
    check_memory(100 << 20, "its JSON", file)


def test_without_a_bound_a_process_may_hold_a_gigabyte_or_a_little_more_than_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for held, need in ((1 << 20, 1000 << 20), (8 << 30, 256 << 20)):
        monkeypatch.setattr(memory, "resident_bytes", lambda held=held: held)
        check_memory(need, "its JSON", Path("x"))
        with pytest.raises(InputError, match="more than the run may take"):
            check_memory(need + (64 << 20), "its JSON", Path("x"))


def test_json_that_does_not_fit_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    (tmp_path / "config.json").write_bytes(b"[" + b"[]," * (2 << 20) + b"0]")

    def parsed(text: str) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(json, "loads", parsed)
    with memory_bound(held + (64 << 20)), pytest.raises(InputError, match="its JSON would take about"):
        read_json(LocalFolder(tmp_path), "config.json")
