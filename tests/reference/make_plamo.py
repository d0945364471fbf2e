"""Makes the digest in tests/plamo.json with llama.cpp's own converter.

    python make_plamo.py LLAMA_CPP_SOURCE_TREE

Needs what convert_hf_to_gguf.py needs (torch, transformers 4.57.6, sentencepiece).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from make_expected import convert, digest
from plamo import write_checkpoint

PINNED = Path(__file__).parents[1] / "plamo.json"


def main(tree: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, out = write_checkpoint(Path(scratch) / "hf"), Path(scratch) / "out.gguf"
        convert(Path(tree), checkpoint, out, "auto", None)
        PINNED.write_text(json.dumps({"auto": digest(out)}, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
