"""Places where the program can hardly run or speak: each ends in one clear message, and none in an internal error."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import NARROW, tiny_llama
from command_line import Forge

from gguf_forge import UsageError, convert
from gguf_forge.cli import LEAST_ADDRESS_SPACE
from gguf_forge.cli.options import Messages
from gguf_forge.cli.streams import logging_to
from gguf_forge.foreign_text import LONGEST_MESSAGE
from gguf_forge.request import Request

FORGE = f"{sys.executable} -m gguf_forge"
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")


def shell(script: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = ["bash", "-c", script.replace("FORGE", FORGE)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **environment}, check=False)
    for words in (b"Traceback", b"this is a bug", b"Exception ignored"):
        assert words not in done.stderr
    return done


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_standard_output_that_is_not_utf_8(model: Path, environment: dict[str, str]) -> None:
    convert(model, "Größe-√.gguf", types="F16")
    done = shell(
        "FORGE inspect Gr*.gguf && FORGE inspect Gr*.gguf --tensor output.weight && FORGE --help", **environment
    )
    assert done.returncode == 0
    assert b"\\u221a.gguf" in done.stdout or b"\\udc88\\udc9a.gguf" in done.stdout  # as the locale reads names
    assert "Größe".encode() not in done.stdout


@FULL
@pytest.mark.parametrize("words", ["--help", "--version", "convert --help", "info", "info --json"])
def test_a_full_disk(words: str) -> None:
    done = shell(f"FORGE {words} > /dev/full")
    assert done.returncode == 5
    assert done.stderr.startswith(b"error: standard output cannot be written")
    assert shell(f"FORGE {words} > /dev/full 2> /dev/full").returncode == 5


@FULL
def test_warnings_to_a_full_disk(model: Path) -> None:
    """What is told on standard error is not worth the work, so the work goes on."""
    for words in (f"plan {model} -t Q8_0 --tensor-type nothing=q4_0", f"convert {model} -o out.gguf -v"):
        assert shell(f"FORGE {words} > /dev/null 2> /dev/full").returncode == 0
    assert Path("out.gguf").exists()
    assert shell("FORGE plan nowhere 2> /dev/full").returncode == 4


@pytest.mark.parametrize("words", ["--help", "convert --help", "--version", "info"])
def test_a_pipe_that_nobody_reads(words: str) -> None:
    # The reader is gone before the program writes.
    done = shell(f"{{ sleep 0.1; FORGE {words}; echo $? >&2; }} | exec true")
    assert done.stderr == b"141\n"


def test_little_address_space(model: Path) -> None:
    least = LEAST_ADDRESS_SPACE >> 20
    for allowed in (60_000, 150_000):
        done = shell(f"ulimit -v {allowed}; FORGE plan {model}")
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: this process may have only {allowed >> 10} MiB".encode())
        assert f"needs {least} MiB".encode() in done.stderr
        assert done.stdout == b""
        error = json.loads(shell(f"ulimit -v {allowed}; FORGE plan {model} --json").stdout)["error"]
        assert (error["code"], error["kind"]) == (1, "MemoryError")
        assert done.stderr.decode() == f"error: {error['message']}\nhint: {error['hint']}\n"
    page = Path(__file__).parents[2] / "docs" / "guide" / "scripting.md"
    assert f"{least} MiB of address space" in page.read_text()
    assert shell(f"ulimit -v {LEAST_ADDRESS_SPACE >> 10}; FORGE plan {model} -q").returncode in (0, 2)


@pytest.mark.parametrize("width", ["abc", "", "-1", "0", "00", "9" * 15, "9" * 5000])
def test_a_width_that_is_no_number(width: str) -> None:
    done = shell("FORGE --help", TERMINAL_WIDTH=width, COLUMNS=width)
    assert done.returncode == 0 and b"convert" in done.stdout
    assert b"there is no such folder" in shell("FORGE plan nowhere", COLUMNS=width).stderr


def test_a_current_folder_that_was_removed(model: Path) -> None:
    done = shell(f"mkdir gone && cd gone && rmdir ../gone && FORGE plan {model} --save-plan plan.json")
    assert done.returncode == 5
    assert b"the current folder no longer exists" in done.stderr
    for words in (f"plan {model}", f"convert {model}", "inspect model.gguf", f"verify {model}", "edit . --set a=b"):
        assert shell(f"mkdir -p gone && cd gone && rmdir ../gone && FORGE {words}").returncode in {0, 4, 5, 8}


def test_a_name_that_is_not_utf_8(model: Path) -> None:
    convert(model, os.fsdecode(b"a\xff.gguf"), types="F16")
    done = shell("FORGE verify a*.gguf --write-sums sums.txt && FORGE verify a*.gguf --check-sums sums.txt")
    assert done.returncode == 0
    assert b"  a\xff.gguf\n" in Path("sums.txt").read_bytes()


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "x" * 5000])
@pytest.mark.parametrize("field", ["metadata", "imatrix", "tensor_type_file", "override_kv", "tensor_type", "source"])
def test_text_in_a_plan_that_no_command_line_can_have(model: Path, forge: Forge, field: str, text: str) -> None:
    assert forge("job", "plan", model, "-o", "out.gguf").code == 0
    plan = json.loads(Path("plan.json").read_text())
    plan["request"][field] = [f"{text}=q8_0"] if field in ("override_kv", "tensor_type") else text
    Path("plan.json").write_text(json.dumps(plan))
    for command in (("work", "plan.json", "--task", "0"), ("finish", "plan.json")):
        done = forge(*command)
        assert done.code == 4
        assert f"the request's {field}" in done.err


def test_a_request_has_no_text_that_no_command_line_can_have() -> None:
    assert Request(source=os.fsdecode(b"\xff")).source == "\udcff"
    with pytest.raises(UsageError, match="imatrix has 4,097 characters"):
        Request(source="x", imatrix="x" * 4097)


@pytest.mark.parametrize("digits", [19, 5000])
def test_numbers_of_very_many_digits(model: Path, forge: Forge, digits: int) -> None:
    number = "9" * digits
    convert(model, "in.gguf", types="F16")
    for words in (
        ("convert", model, "--prune-layers", number),
        ("quantize", "in.gguf", "out.gguf", "Q8_0", number),
        ("inspect", "in.gguf", "--tensor", "*", "--block", number),
        ("inspect", "in.gguf", "--tensor", "*", "--bins", number),
        ("edit", "in.gguf", "--special-token-by-id", f"eos={number}"),
        ("plan", model, "--threads", number),
        ("work", "plan.json", "--task", number),
    ):
        done = forge(*words)
        assert done.code in {0, 2, 4}, done.err  # a plan needs no threads
        assert "this is a bug" not in done.err
        assert len(done.err) < 2 * LONGEST_MESSAGE + 500


def test_too_many_bins(model: Path, forge: Forge) -> None:
    convert(model, "in.gguf", types="F16")
    done = forge("inspect", "in.gguf", "--tensor", "output.weight", "--bins", "100000000")
    assert done.code == 2
    assert "1000" in done.err


def endless(model: Path, change: dict[str, object]) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **change}))


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": ["L" * 2_000_000]},
        {"quantization_config": {"quant_method": "Q" * 2_000_000}},
        {"model_type": "m" * 2_000_000, "rope_scaling": {"type": "r" * 2_000_000}},
        {"torch_dtype": "d" * 2_000_000, "hidden_size": "h" * 2_000_000},
    ],
)
def test_a_message_has_an_upper_size(tmp_path: Path, forge: Forge, change: dict[str, object]) -> None:
    made = tiny_llama(tmp_path, NARROW)
    endless(made, change)
    done = forge("plan", made, "-v")
    assert len(done.err) < 20 * LONGEST_MESSAGE
    done = forge("plan", made, "--json")
    assert len(done.err) < 20 * LONGEST_MESSAGE and len(done.out) < 100_000


def test_warnings_of_one_kind_are_counted(capfd: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("gguf_forge.somewhere")
    with logging_to(Messages()):
        for number in range(2_000):
            log.warning("token %d is strange", number)
        log.warning("something else")
    err = capfd.readouterr().err
    assert err.count("warning: token") == 10
    assert "1,990 more like this one: token 0 is strange" in err
    assert err.count("something else") == 1


def test_a_message_of_a_log_has_an_upper_size(capfd: pytest.CaptureFixture[str]) -> None:
    with logging_to(Messages()):
        logging.getLogger("gguf_forge.somewhere").warning("%s", "x" * 3_000_000)
    assert len(capfd.readouterr().err) < 2 * LONGEST_MESSAGE
