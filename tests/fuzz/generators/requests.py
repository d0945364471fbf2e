"""What a user or a plan asks for: options, patterns, plans of jobs, and what an earlier run seems to have left."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from random import Random
from zlib import crc32

import seeds
from generators.texts import changed, nasty

NUMBERS = (
    "0",
    "-1",
    "1",
    "3",
    "1e9",
    "99999999999999999999",
    "9" * 5000,
    "٣",
    "0x10",
    "1_000",
    "",
    " 1",
    "nan",
    "2G",
    "-0",
)
TEXT_OPTIONS = (
    *("--model-name", "--pre-tokenizer", "--override-kv", "--tensor-type", "--output-tensor-type", "--prune-layers"),
    *("--split-max-size", "--split-max-tensors", "--max-memory", "--threads", "--token-embedding-type", "--outtype"),
    *(
        "--imatrix",
        "--metadata",
        "--tensor-type-file",
        "--include-weights",
        "--exclude-weights",
        "--backend",
        "--base-type",
    ),
    *("--drop-tensor", "--outfile", "--base-type"),
)
ATOMS = (
    "a",
    "blk",
    r"\.",
    ".",
    "[0-9]",
    r"\d",
    "attn",
    "x",
    "^",
    "$",
    r"\b",
    "",
    "(?=a)",
    "(?!b)",
    "[[:digit:]]",
    "[^a]",
)
UNLAWFUL = (
    *("\\", "[", "(", ")", "{", "*", "\udcff", "é", r"\x41", r"\1", "(?i)", "[z-a]", "a{2,1}", "a{999999}"),
    *(r"[a-\d]", "[[:x:]]", "[[.a.]]", "**", "a{1"),
)


def pattern(source: Random, depth: int = 0) -> str:
    """A regular expression, lawful or not; some nest deeply or go on for long."""
    if depth > 6 or source.random() < 0.3:
        return source.choice(UNLAWFUL if source.random() < 0.02 else ATOMS)
    inner = "".join(pattern(source, depth + 1) for _ in range(source.randint(1, 4)))
    count = source.choice((1,) * 20 + (2, 5, 12, 60))
    opening = source.choice(("(", "(?:", "(?=", "(?!", "(?=.*", "(?!.*"))
    repeat = source.choice(("", "*", "+", "?", "{0,63}", "{3,}", "*?", "|x") if opening in ("(", "(?:") else ("", "|x"))
    return opening * count + inner + (")" + repeat) * count


def patterns(source: Random, folder: Path) -> list[str]:
    """Patterns of --tensor-type and --drop-tensor."""
    words = seeds.on(seeds.checkpoint(folder), source)
    for _ in range(source.randint(1, 3)):
        words += (
            ["--tensor-type", f"{pattern(source)}=q8_0"]
            if source.random() < 0.8
            else ["--drop-tensor", pattern(source)]
        )
    return [word.replace("\0", "") for word in words]


def command_lines(source: Random, folder: Path) -> list[str]:
    """Options with values that are hardly ever given."""
    (folder.parent / "here" / "empty").mkdir(parents=True)  # an output may go into it, and not into the input's folder
    is_folder = source.random() < 0.7
    words = seeds.on(seeds.checkpoint(folder) if is_folder else seeds.gguf(folder, source), source)
    for _ in range(source.randint(1, 3)):
        option = source.choice(TEXT_OPTIONS)
        value = source.choice((nasty(source), source.choice(NUMBERS), f"{nasty(source)}={nasty(source)}", "empty"))
        words += [option, value]
    return [os.fsdecode(word.replace("\0", "").encode(errors="replace")) for word in words]


def plans(source: Random, folder: Path) -> list[str]:
    """A plan of a job with strange values in it."""
    from gguf_forge import Request, plan_work

    model = seeds.checkpoint(folder)
    here = folder.parent / "here"
    here.mkdir()
    file = here / "plan.json"
    request = Request(source=str(model), out=str(here / "out.gguf"), types=("Q8_0",), tensor_type=("attn=q4_0",))
    plan_work(request, file, tasks=source.randint(1, 3))
    plan = json.loads(file.read_text())
    for _ in range(source.randint(1, 3)):
        plan = changed(plan, source)
    if source.random() < 0.4:
        field = source.choice(
            ("imatrix", "metadata", "tensor_type_file", "model_name", "prune_layers", "split_max_size")
        )
        if isinstance(plan.get("request"), dict):
            plan["request"][field] = nasty(source)
    file.write_text(json.dumps(plan))
    return source.choice((["work", str(file), "--task", "0"], ["job", "finish", str(file)], ["finish", str(file)]))


def journals(source: Random, folder: Path) -> list[str]:
    """What an earlier run left beside the output: with right checksums, and with any words."""
    model = seeds.checkpoint(folder)
    here = folder.parent / "here"
    here.mkdir()
    name = hashlib.sha256(b"o.gguf").hexdigest()[:16]
    (here / f".gguf-forge-{name}.partial").write_bytes(source.randbytes(source.choice((0, 10, 5000))))
    words = (
        "0-10",
        "5-5",
        "9" * 5000 + "-1",
        "1" * source.choice((1, 400_000)),
        "",
        "0-99999999",
        " ",
        "-",
        nasty(source),
    )
    lines = ["gguf-forge-journal-1 x=1"] * (source.random() < 0.9)
    lines += [" ".join(source.choice(words) for _ in range(source.randint(1, 4))) for _ in range(source.randint(0, 20))]
    raw = (line.encode(errors="replace") for line in lines)
    journal = here / f".gguf-forge-{name}.journal"
    journal.write_bytes(b"".join(b"%s %08x\n" % (line, crc32(line)) for line in raw))
    if source.random() < 0.2:
        os.truncate(journal, 8 << 30)
    return ["convert", str(model), "-t", "Q8_0", "-o", "o.gguf", "--resume"]


GENERATORS = (patterns, command_lines, plans, journals)
