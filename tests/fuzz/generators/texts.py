"""Text that acts on a terminal, in every place of a model that a message, a table or a name may quote."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from typing import Any

import seeds

NASTY = (
    "\x1b]0;title\x1b\\",
    "\x1b[2J",
    "\x9b31m",
    "\u202egnp.exe",
    "\u2066\u2069",
    "\r",
    "\n",
    "\nerror: something else",
    "\x00",
    "\x07\x08\x7f",
    "\u2028",
    "\ud800",
    "\udcff",
    "\ufeff",
    "-rf",
    "--help",
    ".hidden",
    "../../up",
    "/etc/passwd",
    "%s%n{0}{}",
    "[bold]x[/bold]:smile:",
    "<script>alert(1)</script>",
    "x" * 5000,
    "\N{COMBINING ACUTE ACCENT}" * 50,
    "\U000e0041",
)


def nasty(source: Random) -> str:
    return "".join(source.choice((*NASTY, "a", "model", " ")) for _ in range(source.randint(1, 4)))


def strange(source: Random) -> Any:
    """A JSON value that is hardly ever expected."""
    return source.choice(
        (
            nasty(source),
            [nasty(source)],
            {nasty(source): nasty(source)},
            None,
            True,
            -1,
            0,
            2**63,
            -(2**70),
            10**400,
            1e308,
            float("nan"),
            float("inf"),
            [],
            {},
            [[[[]]]],
            "",
            ["x"] * 3000,
            "A" * 300_000,
        )
    )


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything inside a JSON value, the first of 200 items of a list."""
    if isinstance(value, dict):
        items: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value[:200]))
    else:
        return [at]
    return [at, *(place for key, item in items for place in places(item, (*at, key)))]


def changed(value: Any, source: Random) -> Any:
    """The value with something strange in one place, or with a strange key."""
    *way, last = source.choice([place for place in places(value) if place])
    inside = value
    for key in way:
        inside = inside[key]
    if isinstance(inside, dict) and source.random() < 0.3:
        inside[nasty(source)] = inside.pop(last)
    else:
        inside[last] = strange(source)
    return value


def json_values(source: Random, folder: Path) -> list[str]:
    """One to three strange values in a JSON file of a checkpoint."""
    model = seeds.checkpoint(folder)
    files = sorted(model.glob("*.json"))
    file = source.choice(files)
    value = json.loads(file.read_text())
    for _ in range(source.randint(1, 3)):
        value = changed(value, source)
    file.write_text(json.dumps(value))
    return seeds.on(model, source)


def folder_names(source: Random, folder: Path) -> list[str]:
    """A checkpoint or a GGUF file whose name acts on a terminal, with a strange file in it."""
    name = nasty(source).replace("/", "").replace("\0", "")[:80] or "m"
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        name = ascii(name)
    name = os.fsdecode(os.fsencode(name)[:200])
    path = seeds.checkpoint(folder, "./" + name) if source.random() < 0.5 else seeds.gguf(folder, source, "./" + name)
    return seeds.on(path, source)


def gguf_names(source: Random, folder: Path) -> list[str]:
    """A GGUF file in which names and texts are replaced by others of the same length."""
    path = seeds.gguf(folder, source)
    raw = path.read_bytes()
    for old in source.sample(
        [
            b"blk.0.attn_q.weight",
            b"token_embd.weight",
            b"general.name",
            b"llama.block_count",
            b"output_norm.weight",
            b"tokenizer.ggml.model",
            b"general.architecture",
            b"llama\0",
            b"gpt2",
        ],
        source.randint(1, 2),
    ):
        new = nasty(source).encode(errors="surrogatepass")[: len(old)].ljust(len(old), b"A")
        raw = raw.replace(old, new, source.choice([1, -1]))
    path.write_bytes(raw)
    return seeds.on(path, source)


def index_names(source: Random, folder: Path) -> list[str]:
    """The names of tensors and files in safetensors files and their index."""
    model = seeds.checkpoint(folder)
    file = model / "model.safetensors"
    raw = file.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    name = source.choice(list(header))
    header[nasty(source)] = header[name] if source.random() < 0.5 else header.pop(name)
    if source.random() < 0.3:
        header = changed(header, source)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])
    if source.random() < 0.6:
        index = {"metadata": {"total_size": strange(source)}, "weight_map": dict.fromkeys(header, file.name)}
        if source.random() < 0.5:
            index["weight_map"][nasty(source)] = nasty(source)
        (model / "model.safetensors.index.json").write_text(json.dumps(index))
    return seeds.on(model, source)


def files_beside(source: Random, folder: Path) -> list[str]:
    """Files and folders with names that act on a terminal in a checkpoint, of every kind that is looked for there."""
    model = seeds.checkpoint(folder)
    endings = (
        *(".safetensors", "-00001-of-00002.safetensors", ".gguf", ".json", ".jinja", ".bin", ".model", ".py", ""),
        *(".safetensors.index.json", ".incomplete", ".lock", "~"),
    )
    (model / "chat_templates").mkdir()
    for _ in range(source.randint(1, 5)):
        parent = model / source.choice((".", ".", "chat_templates", "1_Pooling", "original", ".cache"))
        parent.mkdir(exist_ok=True)
        name = nasty(source).replace("/", "").replace("\0", "").encode(errors="replace") + source.choice((b"", b"\xff"))
        place = parent / os.fsdecode(name[:150] + source.choice(endings).encode())
        if place.exists() or place.is_symlink():
            continue
        kind = source.random()
        if kind < 0.2:
            place.mkdir()
        elif kind < 0.3:
            place.symlink_to(nasty(source).replace("\0", "").encode(errors="replace").decode()[:100] or "x")
        else:
            place.write_bytes(source.choice((b"", b"{}", b"{{ x }}", (model / "model.safetensors").read_bytes())))
    if source.random() < 0.3:
        (model / "config.json").rename(model / "config.json.bak")
    if source.random() < 0.3:
        (model / "tokenizer.json").unlink(missing_ok=True)
    return seeds.on(model, source)


def cards_and_overrides(source: Random, folder: Path) -> list[str]:
    """Texts of the model card and of --metadata, which become keys and the name of the file."""
    model = seeds.checkpoint(folder)
    fields = ("name", "base_model", "license", "tags", "datasets", "language", "author", "version", "organization")
    keys = source.sample(fields, source.randint(1, 4))
    card = "".join(f"{key}: {json.dumps(source.choice((nasty(source), [nasty(source)])))}\n" for key in keys)
    (model / "README.md").write_text(f"---\n{card}---\n{nasty(source)}", errors="replace")
    words = seeds.on(model, source)
    if source.random() < 0.5:
        metadata = folder / "metadata.json"
        names = (
            "general.name",
            "general.basename",
            "general.size_label",
            "general.version",
            "general.x",
            nasty(source),
        )
        metadata.write_text(json.dumps({source.choice(names): strange(source) for _ in range(3)}))
        words += ["--metadata", str(metadata)]
    return words


GENERATORS = (json_values, folder_names, gguf_names, index_names, files_beside, cards_and_overrides)
