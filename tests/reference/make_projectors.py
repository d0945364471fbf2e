"""Makes the digests in descriptions of projectors and drafts with llama.cpp's own tools.

    python make_projectors.py LLAMA_CPP_SOURCE_TREE LLAMA_QUANTIZE_BINARY DESCRIPTION...

The descriptions are the files of tests/projectors and tests/drafts. The script needs what convert_hf_to_gguf.py needs
(torch, transformers 4.57.6).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from make_expected import convert, digest, quantized
from projectors import options, read, write

FLOAT_TYPES = ("auto", "F32", "F16")


def expected(tree: Path, quantize: Path, description: Path) -> dict[str, object]:
    files: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = write(description, Path(scratch) / "hf")
        how = options(description, Path(scratch))
        target = how.get("target_model_dir")
        chosen = ("--target-model-dir", str(target)) if target else ("--mmproj",)
        chosen += ("--dspark",) if how.get("dspark") else ()
        for kind in FLOAT_TYPES:
            out = Path(scratch) / f"{kind}.gguf"
            convert(tree, checkpoint, out, kind.lower(), how.get("pre_tokenizer"), *chosen)
            files[kind] = digest(out)
        out = Path(scratch) / "out.gguf"
        if quantized(quantize, Path(scratch) / "auto.gguf", out, "Q8_0"):
            files["Q8_0"] = digest(out)
    return files


def main(tree: str, quantize: str, *descriptions: str) -> None:
    for path in map(Path, descriptions):
        print(path.stem, flush=True)
        found = {**read(path), "expected": expected(Path(tree), Path(quantize), path.resolve())}
        path.write_text(written(found))


def written(description: dict[str, object]) -> str:
    """JSON with a line for each file, tensor and digest."""
    parts = []
    for key, values in description.items():
        shown = json.dumps(values)
        if isinstance(values, dict):
            lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items())
            shown = f"{{\n{lines}\n }}"
        parts.append(f" {json.dumps(key)}: {shown}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
