"""A function in a child process: its result, and what becomes of one that takes too much or ends the process."""

from __future__ import annotations

import signal as signal_module
import sys
from pathlib import Path
from typing import Any

import hostile_functions
import pytest

from gguf_forge.errors import InputError
from gguf_forge.foreign.limited import LimitError, run_limited


def run(function: Any, argument: Any = None, *, memory: int = 64 << 20, seconds: int = 1, most: int = 1 << 20) -> Any:
    return run_limited(function, argument, memory=memory, seconds=seconds, most_output=most)


def test_the_result_comes_back() -> None:
    assert run(hostile_functions.echo, {"a": [1, "\ud800", None, 2.5], "b": "🚀"}) == {
        "a": [1, "\ud800", None, 2.5],
        "b": "🚀",
    }


def test_large_arguments_and_results_pass(tmp_path: Path) -> None:
    assert run(hostile_functions.length, b"x" * (20 << 20)) == 20 << 20
    assert len(run(hostile_functions.text_of, 5 << 20, most=6 << 20)) == 5 << 20


def test_an_exception_gives_its_message() -> None:
    with pytest.raises(InputError, match=r"^no such thing$") as raised:
        run(hostile_functions.fail, "no such thing")
    assert not isinstance(raised.value, LimitError)


def test_a_long_message_is_cut() -> None:
    with pytest.raises(InputError) as raised:
        run(hostile_functions.fail, "x" * 100_000)
    assert len(raised.value.problem) == 500


def test_too_much_memory() -> None:
    with pytest.raises(LimitError, match=r"needs more than 64 MiB of memory$"):
        run(hostile_functions.text_of, 100 << 20)


def test_too_much_time() -> None:
    with pytest.raises(LimitError, match="needs more than 1 second"):
        run(hostile_functions.loop)


def test_too_much_output() -> None:
    with pytest.raises(LimitError, match="the result has more than 1,024 KiB"):
        run(hostile_functions.text_of, 2 << 20)


@pytest.mark.parametrize(("signal", "message"), [("SIGABRT", "or is nested too deeply"), ("SIGTERM", "code -15")])
def test_a_process_that_ends(signal: str, message: str) -> None:
    with pytest.raises(LimitError, match=message):
        run(hostile_functions.end_by, signal)


def test_a_process_whose_end_nobody_hears_of() -> None:
    """A program that ignores SIGCHLD gets no exit codes."""
    before = signal_module.signal(signal_module.SIGCHLD, signal_module.SIG_IGN)
    try:
        assert run(hostile_functions.echo, 1) == 1
        with pytest.raises(LimitError, match="ended"):
            run(hostile_functions.end_by, "SIGABRT")
    finally:
        signal_module.signal(signal_module.SIGCHLD, before)


def test_what_is_printed_is_thrown_away(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(hostile_functions.shout, "loud") == "loud"
    assert capfd.readouterr() == ("", "")


def test_a_module_in_the_current_folder_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(tmp_path)
    assert run(hostile_functions.echo, 1) == 1


def test_a_child_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(LimitError, match="no process can be started that reads it: No such file"):
        run(hostile_functions.echo)
