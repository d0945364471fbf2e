"""Terminals, pipes, full disks and signals, with real processes."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import Forge, listing

from gguf_forge.cli import app

FORGE = (sys.executable, "-m", "gguf_forge")
# Each task takes a while, so that a signal meets a conversion at work.
SLOW = """
import sys, time
import gguf_forge.engine.forge as forge
pack = forge.pack
def slow(*arguments, **options):
    time.sleep(0.3)
    return pack(*arguments, **options)
forge.pack = slow
from gguf_forge.cli import main
sys.exit(main(sys.argv[1:]))
"""


def heed_signals() -> None:
    """What the runner of the tests ignores, as nohup and background jobs do, would be ignored by a child, too."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_nothing_behind(model: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    command = [sys.executable, "-c", SLOW, "convert", model, "-o", tmp_path / "out.gguf", "-j", "1", "--json"]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals
    )
    while not listing(tmp_path) and running.poll() is None:
        time.sleep(0.01)
    assert [name.endswith(".partial") for name in listing(tmp_path)] == [True]
    running.send_signal(number)
    out, err = running.communicate()
    assert running.returncode == code
    assert "error: stopped" in err
    assert "Traceback" not in err
    assert f'"code": {code}' in out
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("convert", "model"), "stopped; no unfinished file is left behind"),
        (("convert", "model", "--resume"), "stopped; run the same command again to continue"),
        (("verify", "model.gguf"), "stopped"),
        (("compare", "a.gguf", "b.gguf"), "stopped"),
    ],
)
def test_a_command_that_makes_no_files_speaks_of_none(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    def stop(arguments: list[str]) -> int:
        raise app.StopSignal(signal.SIGTERM)

    monkeypatch.setattr(app, "_run", stop)
    ran = forge(*words)
    assert (ran.code, ran.err) == (143, f"error: {said}\n")


def test_a_signal_keeps_the_old_file(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"old")
    command = [sys.executable, "-c", SLOW, "convert", model, "-o", out, "-j", "1", "--overwrite"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while len(listing(tmp_path)) < 2 and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    running.communicate()
    assert running.returncode == 143
    assert listing(tmp_path) == ["out.gguf"]
    assert out.read_bytes() == b"old"


def test_a_closed_pipe_is_no_error_message(model: Path) -> None:
    types = "Q8_0,Q4_0,Q4_1,Q5_0,Q5_1,Q2_K,Q3_K_S,Q3_K_M,Q3_K_L,Q4_K_S,Q4_K_M,Q5_K_S,Q5_K_M,Q6_K,F16,F32"
    command = [*FORGE, "plan", model, "-t", types, "--json"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None and running.stderr is not None
    running.stdout.read(1)
    running.stdout.close()
    assert running.stderr.read() == b""
    assert running.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_standard_output_that_is_full(model: Path, options: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([*FORGE, "plan", model, *options], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 5
    assert done.stderr.startswith("error: standard output cannot be written")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def terminal(command: list[object], **environment: str) -> tuple[int, str]:
    """Exit code, and what a terminal of 80 columns is sent."""
    main_end, other_end = pty.openpty()
    ours = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    running = subprocess.Popen(
        [str(part) for part in command],
        stdout=other_end,
        stderr=other_end,
        env={**ours, "TERM": "xterm-256color", "COLUMNS": "80", **environment},
    )
    os.close(other_end)
    sent = b""
    while True:
        try:
            part = os.read(main_end, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        sent += part
    os.close(main_end)
    return running.wait(), sent.decode()


def test_a_terminal_gets_a_bar_with_speed_and_colours(model: Path, tmp_path: Path) -> None:
    code, sent = terminal([sys.executable, "-c", SLOW, "convert", model, "-o", tmp_path / "out.gguf", "-t", "Q8_0"])
    assert code == 0
    assert "\x1b[1mQ8_0\x1b[0m" in sent
    assert "━" in sent
    assert "B/s" in sent
    assert {"31", "91"}.isdisjoint(re.findall(r"\x1b\[(?:[0-9]+;)*([0-9]+)m", sent))  # red is for errors


def test_no_color_keeps_the_bar_without_colours(model: Path, tmp_path: Path) -> None:
    code, sent = terminal([*FORGE, "convert", model, "-o", tmp_path / "out.gguf"], NO_COLOR="1")
    assert code == 0
    assert "━" in sent
    assert "\x1b[3" not in sent


def test_a_dumb_terminal_gets_plain_lines(model: Path, tmp_path: Path) -> None:
    code, sent = terminal([*FORGE, "convert", model, "-o", tmp_path / "out.gguf"], TERM="dumb")
    assert code == 0
    assert "writing" in sent
    assert "\x1b" not in sent
    assert "━" not in sent


def test_lines_fit_the_columns(model: Path) -> None:
    code, sent = terminal([*FORGE, "plan", model], NO_COLOR="1", COLUMNS="60")
    assert code == 0
    assert max(map(len, sent.split("\x1b[0m")[0].splitlines())) <= 60


def test_closed_standard_output(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    script = 'exec "$0" -m gguf_forge convert "$1" -o "$2" >&-'
    done = subprocess.run(["sh", "-c", script, sys.executable, model, out], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert out.exists()


@pytest.mark.parametrize("command", ["convert", "plan", "types", "info"])
def test_json_for_a_closed_standard_output_is_an_error(model: Path, tmp_path: Path, command: str) -> None:
    options = {"convert": [model, "-o", tmp_path / "out.gguf"], "info": []}.get(command, [model])
    script = 'exec "$0" -m gguf_forge "$@" --json >&-'
    words = ["sh", "-c", script, sys.executable, command, *options]
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 5
    assert "error: standard output is closed" in done.stderr
    assert (tmp_path / "out.gguf").exists() == (command == "convert")
