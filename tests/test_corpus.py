"""The conformance corpus, by the command line: every file that llama.cpp's tools made of every checkpoint.

Where there is no corpus beside the checkout there is nothing to do; tests/test_families.py has a part of it pinned.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from corpus import CORPUS, read_manifest, short

from gguf_forge.cli import main

# What later versions bring; a manifest that needs one of these is not compared yet.
_LATER_OPTIONS = ("--split-max-size", "--split-max-tensors", "--no-tensor-first-split")


def _is_ours(manifest: dict[str, Any]) -> bool:
    kind = manifest.get("forge_type")
    options = manifest.get("forge_args") or ()
    return bool(kind) and not any(o in _LATER_OPTIONS for o in options)


MANIFESTS = [path for path in sorted(CORPUS.glob("corpus/*/expected/*.json")) if _is_ours(read_manifest(path))]


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
    name = manifest.get("output_name")
    out = tmp_path / "out" if name else tmp_path / "out" / "out.gguf"
    pre = ["--pre-tokenizer", case["pre_monkeypatch"]] if case["pre_monkeypatch"] else []
    arguments = [str(source), "-o", str(out), "-t", manifest["forge_type"], *manifest.get("forge_args", ()), *pre]
    assert main(["convert", "--quiet", *arguments]) == 0
    (made,) = (tmp_path / "out").iterdir()
    assert made.name == (name or "out.gguf")
    data = made.read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (manifest["size"], manifest["sha256"])
