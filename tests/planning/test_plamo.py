"""PLaMo against llama.cpp's converter. The digest in tests/plamo.json was made by reference/make_plamo.py."""

from __future__ import annotations

import json
from pathlib import Path

from plamo import write_checkpoint
from quantized import digest

from gguf_forge import convert

PINNED = json.loads((Path(__file__).parents[1] / "plamo.json").read_text())


def test_the_file_is_the_one_of_the_reference(tmp_path: Path) -> None:
    (made,) = convert(write_checkpoint(tmp_path / "hf"), tmp_path / "m.gguf", types="auto")
    assert digest(made.path.read_bytes()) == [PINNED["auto"]["size"], PINNED["auto"]["sha256"]]
    for file in (made.path, tmp_path / "hf" / "model.safetensors"):
        file.unlink()  # each has 130 MB
