"""Every command on a model and a file full of text that acts on terminals: none of it comes out again."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import NARROW, tiny_llama
from command_line import Forge, Run, listing

from gguf_forge import convert
from gguf_forge.cli.app import COMMANDS

EVIL = "-\x1b]0;t\x07\x1b[2J\x9b31m\u202e\u2066\u2028\x7f\nerror: feigned"
# Of the length of the name that it replaces in the file.
EVIL_TENSOR = b"\x1b[2J\xc2\x9b1m\xe2\x80\xae\nblk[/x]"
IN_FOLDER = [
    ("plan", "MODEL"),
    ("plan", "MODEL", "--json"),
    ("plan", "MODEL", "-v", "-t", "Q4_K_M,Q8_0"),
    ("convert", "MODEL", "-v"),
    ("convert", "MODEL", "--vocab-only", "--json"),
    ("job", "plan", "MODEL", "-o", "out.gguf"),
    ("imatrix", "show", "MODEL"),
    ("types", "MODEL", "-v"),
    ("verify", "GOOD", "--source", "MODEL"),
    ("report", "GOOD", "--source", "MODEL"),
]
ON_FILE = [
    ("inspect", "FILE"),
    ("inspect", "FILE", "--json-array"),
    ("inspect", "FILE", "--key", "general.*"),
    ("inspect", "FILE", "--key", "nothing\x1b[2J"),
    ("inspect", "FILE", "--tensor", "*", "--block", "0"),
    ("compare", "FILE", "GOOD", "--all"),
    ("plan", "FILE", "--allow-requantize"),
    ("quantize", "--allow-requantize", "FILE", "Q8_0"),
    ("quantize", "--dry-run", "--allow-requantize", "FILE", "Q8_0"),
    ("dequantize", "FILE", "-o", "floats.gguf"),
    ("dequantize", "FILE"),
    ("dequantize", "--safetensors", "FILE"),
    ("split", "FILE", "parts", "--split-max-tensors", "2"),
    ("merge", "FILE", "whole.gguf"),
    ("edit", "FILE", "-o", "edited.gguf", "--set", f"{EVIL}=str:{EVIL}"),
    ("edit", "FILE", "--dry-run", "--rename", "general.name=\x1b[2J"),
    ("verify", "FILE"),
    ("verify", "FILE", "--source", "GOOD"),
    ("verify", "FILE", "--write-sums", "sums"),
    ("report", "FILE"),
    ("report", "FILE", "--json"),
    ("imatrix", "show", "FILE"),
    ("job", "work", "FILE", "--task", "0"),
    ("job", "finish", "FILE"),
    ("work", "FILE", "--task", "0", "-v"),
    ("finish", "FILE"),
    ("convert", EVIL, "-v"),
    ("info", EVIL),
    ("bench", "--type", EVIL),
    ("demo", "-t", EVIL),
    (EVIL,),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint and a GGUF file in which all that others may choose is hostile, and a good file."""
    folder = tmp_path_factory.mktemp("inputs")
    good = folder / "good.gguf"
    checkpoint = tiny_llama(folder, NARROW)
    convert(checkpoint, good, types="F16")
    (checkpoint / "README.md").write_text(
        f"---\nname: {json.dumps(EVIL)}\ntags: [{json.dumps(EVIL)}]\nx: *\u202e\n---\n"
    )
    index = {"metadata": {"total_size": EVIL}, "weight_map": {}}
    header_of = (checkpoint / "model.safetensors").read_bytes()
    names = json.loads(header_of[8 : 8 + int.from_bytes(header_of[:8], "little")])
    index["weight_map"] = {name: "model.safetensors" for name in names if name != "__metadata__"}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(
        json.dumps({**config, "_name_or_path": EVIL, "rope_scaling": {"type": EVIL}})
    )
    raw = good.read_bytes()
    old = b"blk.0.attn_q.weight"
    assert len(EVIL_TENSOR) == len(old) and old in raw
    hostile = folder / os.fsdecode(EVIL.encode() + b"\xff.gguf")
    hostile.write_bytes(raw.replace(old, EVIL_TENSOR).replace(b"general.name", b"general.\x1b[2J"))
    return {"MODEL": checkpoint.rename(folder / EVIL), "FILE": hostile, "GOOD": good}


def harmless(text: str) -> bool:
    return all(char.isprintable() or char in "\n\t" for char in text) and "\nerror: feigned" not in text


@pytest.mark.parametrize(
    "words", IN_FOLDER + ON_FILE, ids=lambda words: " ".join(words)[:60].encode("unicode_escape").decode()
)
def test_nothing_acts_on_the_terminal(words: tuple[str, ...], inputs: dict[str, Path], forge: Forge) -> None:
    done: Run = forge(*(inputs.get(word, word) for word in words))
    assert done.code in {0, 2, 3, 4, 5, 7, 8}, done.err
    assert harmless(done.out), ascii(done.out)
    assert harmless(done.err), ascii(done.err)
    assert done.out or done.err
    for name in [*listing(Path()), *listing(inputs["GOOD"].parent)]:
        assert name in {path.name for path in inputs.values()} or (name.isprintable() and name[0] not in "-."), ascii(
            name
        )


def test_every_command_is_tried() -> None:
    tried = {words[0] for words in IN_FOLDER + ON_FILE}
    assert set(COMMANDS) <= tried


def test_a_warning_outside_of_a_run_is_harmless(inputs: dict[str, Path], forge: Forge) -> None:
    """Commands that show no progress have warnings, too, for example on the index of the model."""
    done = forge("verify", inputs["GOOD"], "--source", inputs["MODEL"])
    assert "total_size is" in done.err
    assert "warning: " in done.err


def test_a_bar_on_a_terminal_reads_no_markup(inputs: dict[str, Path]) -> None:
    main_end, other_end = pty.openpty()
    command = [sys.executable, "-m", "gguf_forge", "inspect", inputs["FILE"], "--tensor", "*bl*x*"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "NO_COLOR": "1"}
    running = subprocess.Popen(command, stdout=other_end, stderr=other_end, env=environment)
    os.close(other_end)
    sent = b""
    try:
        while part := os.read(main_end, 65536):
            sent += part
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(main_end)
    assert running.wait() == 0
    shown = sent.decode()
    assert "[/x]" in shown
    assert "\x1b[2J" not in shown and "\x9b" not in shown and "\u202e" not in shown
