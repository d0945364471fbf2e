"""Makes the digests in tests/qwen3_tts.json with llama.cpp's own tools.

    python make_qwen3_tts.py LLAMA_CPP_SOURCE_TREE LLAMA_QUANTIZE_BINARY

Needs what convert_hf_to_gguf.py needs (torch, transformers 4.57.6).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from make_expected import convert, digest, quantized
from qwen3_tts import write_checkpoint

PINNED = Path(__file__).parents[1] / "qwen3_tts.json"


def main(tree: str, quantize: str) -> None:
    files = {}
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, out = write_checkpoint(Path(scratch) / "hf"), Path(scratch) / "out.gguf"
        for kind in ("F32", "F16", "auto"):
            convert(Path(tree), checkpoint, out, kind.lower(), "qwen2")
            files[kind] = digest(out)
        base = out.rename(out.with_name("base.gguf"))
        for kind in ("Q8_0", "Q4_0"):
            if quantized(Path(quantize), base, out, kind):
                files[kind] = digest(out)
    PINNED.write_text(json.dumps(files, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
