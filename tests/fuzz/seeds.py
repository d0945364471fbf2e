"""Valid models that generators damage. They are made once for a run, by `make`, and copied for each attack."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

_made = Path()

# What reads a folder of a model, and what reads a GGUF file. `{}` is the input.
FOLDER_COMMANDS = (
    ("plan", "{}"),
    ("plan", "{}", "-t", "Q4_K_M,Q8_0", "-v"),
    ("plan", "{}", "--json"),
    ("convert", "{}", "-t", "Q4_K_M"),
    ("convert", "{}", "--vocab-only", "-t", "F16"),
    ("plan", "{}", "--save-plan", "plan.json"),
)
FILE_COMMANDS = (
    ("inspect", "{}"),
    ("inspect", "{}", "--json-array"),
    ("inspect", "{}", "--key", "*"),
    ("inspect", "{}", "--tensor", "*"),
    ("compare", "{}", "{}"),
    ("verify", "{}"),
    ("verify", "{}", "--write-sums", "sums.txt"),
    ("plan", "{}", "-t", "Q8_0", "--allow-requantize"),
    ("quantize", "--allow-requantize", "{}", "out.gguf", "Q8_0"),
    ("quantize", "--dry-run", "--allow-requantize", "{}", "Q4_K_M"),
    ("dequantize", "{}", "-o", "out.gguf"),
    ("dequantize", "--dry-run", "{}"),
    ("split", "{}", "parts", "--split-max-tensors", "2"),
    ("edit", "{}", "-o", "out.gguf", "--set", "general.name=x"),
    ("report", "{}"),
    ("report", "{}", "--json"),
    ("imatrix", "show", "{}"),
)


def make(folder: Path) -> None:
    """Makes the models in `folder`."""
    from checkpoints import NARROW, TINY, tiny_llama

    from gguf_forge import convert

    global _made
    _made = folder
    tiny_llama(folder, TINY)
    (folder / "narrow").mkdir()
    narrow = tiny_llama(folder / "narrow", NARROW)
    for kind in ("Q4_0", "F16"):
        convert(narrow, folder / f"{kind}.gguf", types=kind)


def checkpoint(folder: Path, name: str = "model") -> Path:
    """A copy of a small checkpoint with all its files."""
    return Path(shutil.copytree(_made / "narrow" / "Tiny", folder / name))


def gguf(folder: Path, source: Random, name: str = "model.gguf") -> Path:
    """A copy of a small GGUF file."""
    return Path(shutil.copyfile(_made / f"{source.choice(['Q4_0', 'F16'])}.gguf", folder / name))


def on(path: Path, source: Random) -> list[str]:
    """The command line of some command that reads `path`."""
    commands = FOLDER_COMMANDS if path.is_dir() else FILE_COMMANDS
    return [word.replace("{}", str(path)) for word in source.choice(commands)]
