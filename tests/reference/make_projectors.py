"""Makes the digests in descriptions of projectors (tests/projectors/*.json) with llama.cpp's own tools.

    python make_projectors.py LLAMA_CPP_SOURCE_TREE LLAMA_QUANTIZE_BINARY NAME...

Needs what convert_hf_to_gguf.py needs (torch, transformers 4.57.6).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from make_expected import digest, quantized
from projectors import PROJECTORS, read, write

FLOAT_TYPES = ("auto", "F32", "F16")


def expected(tree: Path, quantize: Path, name: str) -> dict[str, object]:
    files: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = write(name, Path(scratch) / "hf")
        for kind in FLOAT_TYPES:
            out = Path(scratch) / f"{kind}.gguf"
            converter = [sys.executable, str(tree / "convert_hf_to_gguf.py"), str(checkpoint), "--mmproj"]
            command = [*converter, "--outtype", kind.lower(), "--outfile", str(out)]
            subprocess.run(command, check=True, capture_output=True)
            files[kind] = digest(out)
        out = Path(scratch) / "out.gguf"
        if quantized(quantize, Path(scratch) / "auto.gguf", out, "Q8_0"):
            files["Q8_0"] = digest(out)
    return files


def main(tree: str, quantize: str, *names: str) -> None:
    for name in names:
        print(name, flush=True)
        found = {**read(name), "expected": expected(Path(tree), Path(quantize), name)}
        (PROJECTORS / f"{name}.json").write_text(written(found))


def written(description: dict[str, object]) -> str:
    """JSON with a line for each file, tensor and digest."""
    parts = []
    for key, values in description.items():
        assert isinstance(values, dict)
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items())
        parts.append(f" {json.dumps(key)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
