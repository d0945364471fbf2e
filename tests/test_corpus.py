"""The conformance corpus, by the command line: every file that llama.cpp's tools made of every checkpoint.

Where there is no corpus beside the checkout there is nothing to do; tests/test_families.py has a part of it pinned.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from corpus import CORPUS, read_manifest, short
from quantized import digests

from gguf_forge.cli import main

MANIFESTS = [path for path in sorted(CORPUS.glob("corpus/*/expected/*.json")) if read_manifest(path).get("forge_type")]


def _expected(manifest: dict[str, Any]) -> dict[str, list[int | str]]:
    """Name -> size and SHA-256 of every file."""
    name = manifest.get("output_name") or "out.gguf"
    parts = manifest.get("parts") or [{"suffix": "", **manifest}]
    return {name.replace(".gguf", f"{part['suffix']}.gguf"): [part["size"], part["sha256"]] for part in parts}


@pytest.mark.parametrize("path", MANIFESTS, ids=short)
def test_the_file_is_the_one_of_the_reference(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a path given to --imatrix is recorded in the file as it was given
    monkeypatch.chdir(path.parents[1])
    manifest = read_manifest(path)
    case = json.loads((path.parents[1] / "case.json").read_text())
    source = path.parents[1] / "hf"
    if manifest.get("source_dir_name", "hf") != "hf":
        source = shutil.copytree(source, tmp_path / manifest["source_dir_name"])
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" if "output_name" in manifest else tmp_path / "out" / "out.gguf"
    pre = ["--pre-tokenizer", case["pre_monkeypatch"]] if case["pre_monkeypatch"] else []
    arguments = [str(source), "-o", str(out), "-t", manifest["forge_type"], *manifest.get("forge_args", ()), *pre]
    assert main(["convert", "--quiet", *arguments]) == 0
    assert digests(tmp_path / "out") == _expected(manifest)
