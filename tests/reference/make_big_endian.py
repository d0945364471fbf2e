"""Makes the digests in tests/big_endian.json with llama.cpp's converter: files for big-endian machines.

    python make_big_endian.py LLAMA_CPP_SOURCE_TREE

For each run, "file" is what the converter writes with --bigendian. "right" is its little-endian file, turned by
gguf-py's gguf_convert_endian.py, where that can do it and gives something else: the converter leaves BF16 and the
scales of blocks as they are. Needs what convert_hf_to_gguf.py needs (torch, transformers 4.57.6).
"""

from __future__ import annotations

import argparse
import builtins
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from make_expected import convert, digest
from synthetic import FAMILIES, read_description, write_checkpoint

PINNED = Path(__file__).parents[1] / "big_endian.json"
BIG = "--bigendian"


def turned(tree: Path, path: Path) -> Path | None:
    """The file, turned to big-endian in place; None where gguf-py knows not how."""
    sys.path.insert(0, str(tree / "gguf-py"))
    from gguf import GGUFReader
    from gguf.scripts import gguf_convert_endian

    builtins.input = lambda prompt="": "YES"
    try:
        gguf_convert_endian.convert_byteorder(GGUFReader(path, "r+"), argparse.Namespace(order="big", dry_run=False))
    except ValueError:
        return None
    return path


def main(tree: str) -> None:
    pinned = json.loads(PINNED.read_text())
    for run in pinned:
        family, options = FAMILIES / run["family"], run.get("options", [])
        pre_tokenizer = read_description(family).pre_tokenizer
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint, out = write_checkpoint(family, Path(scratch) / "hf"), Path(scratch) / "out.gguf"
            kind = run["type"].lower()
            convert(Path(tree), checkpoint, out, kind, pre_tokenizer, BIG, *options)
            run["file"] = digest(out)
            convert(Path(tree), checkpoint, out, kind, pre_tokenizer, *options)
            right = turned(Path(tree), out)
            run.pop("right", None)
            if right is not None and digest(right) != run["file"]:
                run["right"] = digest(right)
        print(run["family"], run["type"], flush=True)
    PINNED.write_text("[\n" + ",\n".join(f" {json.dumps(run)}" for run in pinned) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
