"""Makes tests/packed_experts.json with llama.cpp's own tools.

    python make_packed_experts.py LLAMA_CPP_SOURCE_TREE LLAMA_QUANTIZE_BINARY

For each model in packed_experts.py, it has the digests of the converter's files, and of what `llama-quantize
--allow-requantize` makes of the `auto` file. Needs what make_expected.py needs, and gguf-forge on the path, of which
nothing is used.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from make_expected import convert, digest, quantized
from packed_experts import PACKED, SIZES, write_packed

TESTS = Path(__file__).parents[1]
CONVERTED, REQUANTIZED = ("auto", "F16", "F32"), ("Q4_K_M", "Q8_0")


def main(tree: Path, quantize: Path) -> None:
    found: dict[str, dict[str, object]] = {}
    for family, described in PACKED.items():
        for sizes in SIZES:
            files: dict[str, object] = {}
            with tempfile.TemporaryDirectory() as scratch:
                folder = write_packed(family, sizes, Path(scratch) / "hf")
                for kind in CONVERTED:
                    out = Path(scratch) / f"{kind}.gguf"
                    convert(tree, folder, out, kind.lower(), described.pre_tokenizer)
                    files[kind] = digest(out)
                for kind in REQUANTIZED:
                    out = Path(scratch) / f"{kind}.gguf"
                    if quantized(quantize, Path(scratch) / "auto.gguf", out, kind, "--allow-requantize"):
                        files[f"{kind} requantized"] = digest(out)
            found[f"{family} {sizes.width}"] = files
            print(family, sizes.width, *files, flush=True)
    (TESTS / "packed_experts.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
