"""Plans of every case of the conformance corpus beside llama.cpp's files: keys, names, shapes, types, order, offsets.

No file is written and no weight is read, so all cases together take little time. What the plans leave open, the bytes
of the tensors, is for test_corpus.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpus import Cases, manifests, parsed_header, read_manifest, short, skip_if_not_reached

from gguf_forge.cli import main
from gguf_forge.planning import file_plan
from gguf_forge.planning.file_plan import FilePlan

MANIFESTS = [path for path in manifests() if read_manifest(path).get("forge_type")]


class Planned(BaseException):
    """Ends a conversion when all is planned. The command line takes every `Exception` for a bug of its own."""

    def __init__(self, files: tuple[FilePlan, ...]) -> None:
        self.files = files


def stop_before_writing(files: Any, *args: object, **more: object) -> None:
    raise Planned(tuple(files))


@pytest.mark.parametrize("path", MANIFESTS, ids=short)
def test_the_plan_is_the_file_of_the_reference(
    path: Path, cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = read_manifest(path)
    case, arguments = cases.arguments(path, tmp_path)
    monkeypatch.chdir(case)
    monkeypatch.setattr(file_plan, "write_files", stop_before_writing)
    monkeypatch.setattr("gguf_forge.planning.from_checkpoint.write_files", stop_before_writing, raising=False)
    try:
        code = main(["convert", "--quiet", *arguments, "-o", str(tmp_path / "out.gguf"), "-t", manifest["forge_type"]])
    except Planned as planned:
        files = planned.files
    else:
        said = capfd.readouterr().err
        skip_if_not_reached(path, code, said)
        pytest.fail(f"exit code {code}: {said}")
    file, *beside = files
    assert {(other.path.name, other.size) for other in beside} == {
        (other["name_prefix"] + "out.gguf", other["size"]) for other in manifest.get("also", ())
    }
    if "parts" in manifest:
        assert [shard.layout.size for shard in file.shards] == [part["size"] for part in manifest["parts"]]
        return
    (shard,) = file.shards
    assert shard.layout.size == manifest["size"]
    assert parsed_header(shard.layout.header) == (manifest["kv"], without_digests(manifest["tensors"]))


def without_digests(tensors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in tensor.items() if key not in ("sha256", "nbytes")} for tensor in tensors]
