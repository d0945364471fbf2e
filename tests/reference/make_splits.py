"""Makes the digests in tests/splits.json with llama-gguf-split.

    python make_splits.py LLAMA_GGUF_SPLIT_BINARY

The files that are split are made by gguf-forge. tests/planning/test_families.py pins that they are those of
llama.cpp's tools.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from quantized import digest, digests, make_base
from splits import PINNED, split_runs


def main(gguf_split: str) -> None:
    runs = split_runs()
    for run in runs:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            source = make_base(run["family"], run["base"], folder)
            (folder / "parts").mkdir()
            subprocess.run(
                [gguf_split, "--split", *run["options"], str(source), str(folder / "parts" / "out")],
                check=True,
                capture_output=True,
            )
            first = min((folder / "parts").iterdir())
            merged = folder / "merged.gguf"
            subprocess.run([gguf_split, "--merge", str(first), str(merged)], check=True, capture_output=True)
            run["parts"] = digests(folder / "parts")
            run["merged"] = digest(merged.read_bytes())
        print(run["family"], *run["options"], len(run["parts"]), flush=True)
    PINNED.write_text("[\n" + ",\n".join(map(json.dumps, runs)) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
