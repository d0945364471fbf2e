"""Makes the digests in tests/fused.json with llama.cpp's converter: files whose tensors are joined by an option.

    python make_fused.py LLAMA_CPP_SOURCE_TREE

Needs what convert_hf_to_gguf.py needs (torch, transformers 4.57.6).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from make_expected import convert, digest
from synthetic import FAMILIES, read_description, write_checkpoint

PINNED = Path(__file__).parents[1] / "fused.json"


def main(tree: str) -> None:
    pinned = json.loads(PINNED.read_text())
    for run in pinned:
        family = FAMILIES / run["family"]
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint, out = write_checkpoint(family, Path(scratch) / "hf"), Path(scratch) / "out.gguf"
            convert(Path(tree), checkpoint, out, "auto", read_description(family).pre_tokenizer, run["option"])
            run["file"] = digest(out)
        print(run["family"], run["option"], flush=True)
    PINNED.write_text("[\n" + ",\n".join(f" {json.dumps(run)}" for run in pinned) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
