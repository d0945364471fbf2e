"""Makes the digests in tests/quantized.json with llama-quantize and llama-gguf-split.

    python make_quantized.py LLAMA_QUANTIZE_BINARY LLAMA_GGUF_SPLIT_BINARY

The files that the runs start from are made by gguf-forge; tests/planning/test_families.py pins that they are those of
llama.cpp's converter. Outputs that are split by size or number are split by llama-gguf-split.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from quantized import PINNED, arguments_of, digests, make_base, name_of, pinned_runs

# Options for llama-gguf-split, and how many words they are.
SPLITS = {"--split-max-size": 2, "--split-max-tensors": 2, "--no-tensor-first-split": 1}


def run_step(quantize: str, gguf_split: str, step: str, start: Path, source: Path, folder: Path) -> None:
    arguments = arguments_of(step, source, folder / "out.gguf")
    split: list[str] = []
    for option, n_words in SPLITS.items():
        if option in arguments:
            at = arguments.index(option)
            split += arguments[at : at + n_words]
            del arguments[at : at + n_words]
    subprocess.run([quantize, *arguments], cwd=start, check=True, capture_output=True)
    if split:
        whole = (folder / "out.gguf").rename(folder / "whole.gguf")
        subprocess.run(
            [gguf_split, "--split", *split, str(whole), str(folder / "out")], check=True, capture_output=True
        )
        whole.unlink()


def main(quantize: str, gguf_split: str) -> None:
    runs = pinned_runs()
    for run in runs:
        with tempfile.TemporaryDirectory() as scratch:
            source = make_base(run["family"], run["base"], Path(scratch))
            for number, step in enumerate(run["steps"]):
                folder = Path(scratch) / str(number)
                folder.mkdir()
                run_step(quantize, gguf_split, step, Path(scratch), source, folder)
                source = min(folder.iterdir())
            run["files"] = digests(source.parent)
        print(name_of(run), len(run["files"]), flush=True)
    PINNED.write_text("[\n" + ",\n".join(map(json.dumps, runs)) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
