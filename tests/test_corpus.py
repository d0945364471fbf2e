"""The conformance corpus, by the command line: every file that llama.cpp's tools made of every checkpoint.

Where there is no corpus beside the checkout there is nothing to do. tests/planning/test_families.py pins a part of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from corpus import Cases, manifests, read_manifest, short, skip_if_not_reached
from quantized import digests

from gguf_forge.cli import main


def _is_rounded_first(path: Path) -> bool:
    """Is it made of a checkpoint of F32 alone by way of `auto`, which is F16 there?

    `convert` quantizes such a checkpoint from its F32. test_from_gguf.py makes these files in two steps.
    """
    is_f32 = json.loads((path.parents[1] / "case.json").read_text()).get("dtype") == "f32"
    return is_f32 and read_manifest(path).get("base") == "auto"


MANIFESTS = [path for path in manifests() if read_manifest(path).get("forge_type") and not _is_rounded_first(path)]


def _expected(manifest: dict[str, Any]) -> dict[str, list[int | str]]:
    """Name -> size and SHA-256 of every file."""
    name = manifest.get("output_name") or "out.gguf"
    parts = manifest.get("parts") or [{"suffix": "", **manifest}]
    made = {name.replace(".gguf", f"{part['suffix']}.gguf"): [part["size"], part["sha256"]] for part in parts}
    beside = {other["name_prefix"] + name: [other["size"], other["sha256"]] for other in manifest.get("also", ())}
    return made | beside


@pytest.mark.parametrize("path", MANIFESTS, ids=short)
def test_the_file_is_the_one_of_the_reference(
    path: Path, cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = read_manifest(path)
    case, arguments = cases.arguments(path, tmp_path)
    # a path given to --imatrix is recorded in the file as it was given
    monkeypatch.chdir(case)
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" if "output_name" in manifest else tmp_path / "out" / "out.gguf"
    code = main(["convert", "--quiet", *arguments, "-o", str(out), "-t", manifest["forge_type"]])
    skip_if_not_reached(path, code, capfd.readouterr().err)
    assert code == 0
    assert digests(tmp_path / "out") == _expected(manifest)


REQUANTIZED = [path for path in manifests() if path.name.endswith(".requant.json")]


@pytest.mark.parametrize("path", REQUANTIZED, ids=short)
def test_blocks_of_a_checkpoint_are_quantized_again_where_that_is_allowed(
    path: Path, cases: Cases, tmp_path: Path
) -> None:
    manifest = read_manifest(path)
    _, arguments = cases.arguments(path, tmp_path)
    *options, file_type = manifest["quantize_args"]
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "out.gguf"
    assert main(["convert", "--quiet", *arguments, *options, "-o", str(out), "-t", file_type]) == 0
    assert digests(tmp_path / "out") == _expected(manifest)
