"""The judge of the fuzzer: each thing that a command may not do is noticed, and ordinary outcomes are not."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    file = Path(__file__).with_name("harness.py")
    spec = importlib.util.spec_from_file_location("harness", file)
    assert spec is not None and spec.loader is not None
    module = sys.modules["harness"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"code": None}, "did not end"),
        ({"code": -9}, "SIGKILL"),
        ({"code": 1}, "exit code 1"),
        ({"err": b"Traceback (most recent call last):\n"}, "errors: Traceback"),
        ({"err": b"error: this is a bug in gguf-forge: ValueError\n"}, "this is a bug"),
        ({"out": b"a\x1b[2Jb"}, "output: control characters"),
        ({"out": "a\x9bb".encode()}, "output: control characters"),
        ({"err": "a\u202eb".encode()}, "errors: control characters"),
        ({"err": b"a\xffb"}, "errors: control characters"),
        ({"err": b"x" * 100_000}, "errors: 100000 bytes"),
        ({"out": b"x" * 2_000_000}, "output: 2000000 bytes"),
        ({"names": ("-rf.gguf",)}, "'-rf.gguf'"),
        ({"names": (".partial",)}, "'.partial'"),
        ({"names": ("a\u202eb",)}, "\\u202e"),
        ({"changed": True}, "changed its input"),
        ({"outside": ("x",)}, "left 'x' outside"),
        ({"peak": 2 << 30}, "held 2048 MiB"),
        ({"left_running": 1}, "1 processes behind"),
        ({"unreadable": ("out.gguf",)}, "cannot read its output 'out.gguf'"),
    ],
)
def test_what_no_command_may_do(harness: ModuleType, changed: dict[str, object], fault: str) -> None:
    outcome = harness.Outcome(4, b"", b"error: x\n", 100, ("out.gguf",), False)
    assert list(harness.faults_of(outcome)) == []
    [found] = harness.faults_of(replace(outcome, **changed))
    assert fault in found


def test_a_name_that_the_command_line_gives_is_not_judged(harness: ModuleType) -> None:
    made = [Path("here/-1"), Path("here/-rf.gguf")]
    for asked in ("-1", "-1/inner.gguf"):
        assert harness.unasked(["convert", "/input/-rf", "-o", asked], made) == ("-rf.gguf",)
    assert harness.unasked(["-o", "a\n{}{ftype}.gguf"], [Path("a\nf16f16.gguf"), Path("b\nf16.gguf")]) == (
        "b\nf16.gguf",
    )


def test_every_exit_code_of_an_error_is_known(harness: ModuleType) -> None:
    assert harness.documented_codes() == {0, 2, 3, 4, 5, 7, 8}


def test_fixed_numbers_give_the_same_attacks(harness: ModuleType) -> None:
    names, end = ["a", "b"], float("inf")
    assert list(harness._numbered(names, range(7, 9), end)) == [("a", 7), ("b", 7), ("a", 8), ("b", 8)]
    assert list(harness._numbered(names, range(7, 9), 0)) == []


@pytest.mark.parametrize("size", [200, 5000])
def test_the_worst_files_are_as_large_as_files_may_be(harness: ModuleType, size: int) -> None:
    worst_files = importlib.import_module("worst_files")
    for kind in (*worst_files.FILLINGS, worst_files.NAMED):
        assert size - 40 <= len(worst_files.filling(kind, size)) <= size


def test_holes_of_a_find_stay_holes(harness: ModuleType, tmp_path: Path) -> None:
    """A shard of a terabyte would fill the disk."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "small").write_bytes(b"x")
    with (inside / "large").open("wb") as file:
        file.truncate(1 << 40)
    harness.keep_copy(inside, tmp_path / "finds" / "bombs-1")
    kept = (tmp_path / "finds" / "bombs-1" / "large").stat()
    assert kept.st_size == 1 << 40
    assert kept.st_blocks < 100
    assert (tmp_path / "finds" / "bombs-1" / "small").read_bytes() == b"x"
