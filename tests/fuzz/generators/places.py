"""Where files lie: clashing, long and deep names, linked folders, and what stands where outputs go."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from random import Random

import seeds
from generators.models import _line

LONG = ("x" * 255, "é" * 127, "x" * 251 + ".txt", "." + "x" * 254, "\u202e" * 85)
OUTPUTS = ("out.gguf", "o" * 250 + ".gguf", "sub/out.gguf", "./out.gguf", "link/out.gguf", "a//b/../out.gguf", "out")
COMMANDS = (
    ("convert", "{}", "-t", "Q8_0", "-o", "{out}"),
    ("convert", "{}", "-t", "Q8_0,F16", "-o", "{out}"),
    ("convert", "{}", "-t", "F16", "-o", "{out}", "--split-max-tensors", "3"),
    ("convert", "{}", "-t", "Q8_0", "-o", "{out}", "--overwrite"),
    ("convert", "{}", "-t", "Q8_0", "-o", "{out}", "--resume"),
    ("convert", "{}", "-t", "F16", "-o", "{out}", "--partial", "0.5"),
    ("convert", "{}", "-o", "{out}", "--profile"),
    ("plan", "{}", "--save-plan", "{text}", "--tasks", "2"),
)
FILE_COMMANDS = (
    ("quantize", "{}", "{out}", "Q8_0", "--allow-requantize"),
    ("quantize", "{}", "-t", "Q8_0,Q4_0", "--output-dir", "{out}", "--allow-requantize"),
    ("edit", "{}", "-o", "{out}", "--set", "general.name=x"),
    ("report", "{}", "-o", "{text}"),
    ("report", "{}", "-o", "{text}", "--overwrite"),
    ("verify", "{}", "--write-sums", "{text}"),
    ("split", "{}", "{out}", "--split-max-tensors", "2", "--overwrite"),
    ("merge", "{}", "{out}"),
    ("dequantize", "{}", "--safetensors", "-o", "{out}"),
    ("dequantize", "{}", "-o", "{out}", "--overwrite"),
)


def clashing(source: Random, folder: Path) -> list[str]:
    """Files of a model under names that differ in case or form only, are very long, or lie very deep."""
    model = seeds.checkpoint(folder)
    for _ in range(source.randint(1, 3)):
        file = source.choice([path for path in sorted(model.iterdir()) if path.is_file()])
        kind = source.randrange(6)
        if kind == 0:
            name = source.choice(
                (file.name.upper(), file.name.title(), file.name + " ", file.name + ".", "\u200b" + file.name)
            )
            shutil.copyfile(file, model / name)
        elif kind == 1:
            long = source.choice(LONG)
            ending = source.choice(("", ".safetensors", ".json", ".jinja"))
            (model / (long[: 250 // len(long[-1].encode()) - len(ending)] + ending)).write_bytes(file.read_bytes())
        elif kind == 2:
            inside = model / source.choice(("chat_templates", "1_Pooling", "original", "deep"))
            for _ in range(source.choice((10, 100, 400))):
                inside /= "d" * 3
            inside.mkdir(parents=True, exist_ok=True)
        elif kind == 3:
            target = model / "moved"
            target.mkdir(exist_ok=True)
            file.rename(target / file.name)
            file.symlink_to(Path("moved") / file.name)
        elif kind == 4:
            for at in range(source.choice((10, 5000))):
                (model / f"extra-{at:05}{source.choice(('.safetensors', '.json', '.txt', '.jinja'))}").touch()
        elif file.stat().st_size and file.name != "model.safetensors":
            file.unlink()
            file.mkdir()
    place = model
    if source.random() < 0.4:
        place = folder / source.choice(("link", "-link", "l" * 255, "a b", "..."))
        place.symlink_to(source.choice((model, model, Path("model"), Path(f"{folder}/model/../model"))))
        if source.random() < 0.2:
            (folder / "again").symlink_to(place)
            place = folder / "again"
    return _line(place, source)


def outputs(source: Random, folder: Path) -> list[str]:
    """What stands in the output's place already: a link, a pipe, a folder, an input, a stranger's unfinished file."""
    here = folder.parent / "here"
    here.mkdir()
    name = source.choice(OUTPUTS)
    is_file = source.random() < 0.5
    path = seeds.gguf(folder, source) if is_file else seeds.checkpoint(folder)
    (here / "sub").mkdir()
    (here / "a").mkdir()
    (here / "link").symlink_to(source.choice((here, Path("sub"), Path("/nowhere"), Path("link"))))
    for _ in range(source.randint(0, 2)):
        place = here / Path(os.path.normpath(name))
        kind = source.randrange(8)
        if kind >= 5:  # what a run before this one seems to have left
            digest = hashlib.sha256(os.fsencode(Path(name).name)).hexdigest()[:16]
            place = here / f".gguf-forge-{digest}.{source.choice(('partial', 'journal', 'lock', 'profile'))}"
        if place.is_symlink() or place.exists() or not place.parent.is_dir():
            continue
        a_file = path if path.is_file() else path / "config.json"  # a link to a folder is followed, lawfully
        target = source.choice((a_file, "/dev/full", "/dev/null", "/etc/passwd", place, "a", "nowhere", "/dev/zero"))
        if kind in (0, 5):
            place.symlink_to(target)
        elif kind in (1, 6):
            os.mkfifo(place)
        elif kind == 2:
            place.mkdir()
        elif kind == 3:
            source_file = path if path.is_file() else path / "model.safetensors"
            os.link(source_file, place)
        else:
            place.write_bytes(source.choice((b"", b"GGUF", b"x" * 5000)))
            place.chmod(source.choice((0o600, 0o666, 0o400, 0o000, 0o777)))
    if source.random() < 0.1:
        (here / "sub").chmod(0o500)
    words = source.choice(FILE_COMMANDS if is_file else COMMANDS)
    given = {"{}": str(path), "{out}": name, "{text}": name.removesuffix(".gguf")}
    return [given.get(word, word) for word in words]


GENERATORS = (clashing, outputs)
