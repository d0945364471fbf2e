"""The parts of a checkpoint, made in one run: each is the file that llama.cpp's tools make of it alone."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import CORPUS, Cases, manifests, read_manifest, short
from projectors import DRAFTS, read, write_tensors
from quantized import digests
from synthetic import write_safetensors

from gguf_forge.checkpoint import Checkpoint
from gguf_forge.cli import main
from gguf_forge.planning.making import RequestPlan, planned
from gguf_forge.request import Request
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.tensors.stored import stored_in

FLOATS = ("F32", "F16", "BF16")
_OPTIONS = {"--mmproj": "mmproj", "--mtp": "mtp", "--no-mtp": "no_mtp"}


def _part(path: Path) -> str | None:
    """The part of the model that a manifest's file is, "main" for the whole; None for a file of other options."""
    options = [word for word in read_manifest(path).get("forge_args") or [] if word != "--mistral-format"]
    return _OPTIONS.get(options[0]) if len(options) == 1 else "main" if not options else None


def _cases() -> dict[Path, dict[tuple[str, str], Path]]:
    """The cases with files of several parts: each manifest by its part and type."""
    found: dict[Path, dict[tuple[str, str], Path]] = {}
    for path in manifests():
        manifest, part = read_manifest(path), _part(path)
        if manifest.get("forge_type") in FLOATS and part is not None and "parts" not in manifest:
            found.setdefault(path.parents[1], {})[part, manifest["forge_type"]] = path
    return {case: of_case for case, of_case in found.items() if {part for part, _ in of_case} & {"mmproj", "mtp"}}


CASES = _cases()
# Fused tensors that a projector cuts, sound, stacks of experts, drafts, and all of these in one checkpoint.
READ = {
    "qwen25vl",
    "glm-ocr",
    "qwen3-asr",
    "gemma4-unified",
    "deepseek32",
    "glm5next",
    "qwen35-mtp",
    "qwen35moe-vl-mtp",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_all_parts_are_those_of_the_reference_and_each_byte_is_read_once(
    case: Path, cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = CASES[case]
    parts = [part for part in ("main", "mmproj", "mtp") if (part, "F16") in found]
    folder, (source, *more) = cases.arguments(found["main", "F16"], tmp_path)
    monkeypatch.chdir(folder)
    floats = FLOATS if _kinds(found) == len(FLOATS) else ("F16",)
    types = [word for part in parts for word in ("-t", ",".join(f"{part}:{name}" for name in floats))]
    (tmp_path / "out").mkdir()
    read = Reads(monkeypatch)
    out = str(tmp_path / "out" / "m-{ftype}.gguf")
    assert main(["convert", "--quiet", source, *more, "--parts", "all", "-o", out, *types]) == 0
    expected = {}
    for part in parts:
        for name in floats:
            alone = "no_mtp" if part == "main" and "mtp" in parts else part
            manifest = read_manifest(found[alone, name])
            prefix, named = "" if part == "main" else f"{part}-", name if len(floats) > 1 else "mxfp4_moe"
            expected[f"{prefix}m-{named.lower()}.gguf"] = [manifest["size"], manifest["sha256"]]
    assert digests(tmp_path / "out") == expected
    with planned(Request(source=source, parts=("all",), types=("F16",), **_fields(more))) as plan:
        assert [file.part for file in plan.files] == parts
        read.check(plan)


USED_IN_PART = {"vit.embeddings.position_embedding.weight"}


def test_the_cases_that_are_read_with_several_types_exist() -> None:
    assert not CASES or {case.name for case in CASES} >= READ


@pytest.mark.parametrize("case", [case for case in CASES if case.name in READ], ids=lambda case: case.name)
def test_several_quantized_types_of_all_parts_read_each_byte_once(
    case: Path, cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With batches as small beside these tensors as they are beside those of real models."""
    folder, (source, *more) = cases.arguments(CASES[case]["main", "F16"], tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("gguf_forge.engine.forge.BATCH_VALUES", 4096)
    (tmp_path / "out").mkdir()
    read = Reads(monkeypatch)
    out = str(tmp_path / "out" / "m-{ftype}.gguf")
    assert main(["convert", "--quiet", source, *more, "--parts", "all", "-o", out, "-t", "Q4_K_M,Q8_0"]) == 0
    with planned(Request(source=source, parts=("all",), types=("Q8_0",), **_fields(more))) as plan:
        read.check(plan)


ADAPTERS = [path for path in manifests() if read_manifest(path).get("also") and "forge_type" in read_manifest(path)]


@pytest.mark.parametrize("path", ADAPTERS, ids=short)
def test_adapters_are_parts(path: Path, cases: Cases, tmp_path: Path) -> None:
    manifest = read_manifest(path)
    _, (source, *more) = cases.arguments(path, tmp_path)
    (tmp_path / "out").mkdir()
    out = str(tmp_path / "out" / "m.gguf")
    types = manifest["forge_type"]
    assert main(["convert", "--quiet", source, *more, "--parts", "all", "-o", out, "-t", types]) == 0
    beside = {each["name_prefix"] + "m.gguf": [each["size"], each["sha256"]] for each in manifest["also"]}
    assert digests(tmp_path / "out") == {"m.gguf": [manifest["size"], manifest["sha256"]], **beside}


@pytest.mark.skipif(not CORPUS.is_dir(), reason="there is no corpus beside the checkout")
def test_a_draft_of_its_own_has_the_vocabulary_of_its_checkpoint(cases: Cases, tmp_path: Path) -> None:
    (case,) = CORPUS.glob("*/deepseek4")
    _, (described, *more) = cases.arguments(case / "expected" / "f16.json", tmp_path)
    source = _with_dspark_draft(Path(described), tmp_path / "hf")
    (tmp_path / "parts").mkdir()
    (tmp_path / "alone").mkdir()
    told = ["convert", "--quiet", str(source), *more, "-t", "auto", "-o"]
    assert main([*told, str(tmp_path / "parts" / "m.gguf"), "--parts", "all"]) == 0
    draft = ["--dspark", "--target-model-dir", str(source)]
    for name, options in {"m.gguf": ["--no-mtp"], "dspark-m.gguf": draft}.items():
        assert main([*told, str(tmp_path / "alone" / name), *options]) == 0
    assert digests(tmp_path / "parts") == digests(tmp_path / "alone")


def _with_dspark_draft(source: Path, folder: Path) -> Path:
    """A copy of a checkpoint with a DSpark draft in place of its layers that predict further tokens."""
    shutil.copytree(source, folder)
    draft = read(DRAFTS / "deepseek-v4-dspark.json")
    config = json.loads((folder / "config.json").read_text())
    of_draft = {key: value for key, value in draft["files"]["config.json"].items() if "dspark" in key}
    (folder / "config.json").write_text(json.dumps(config | of_draft))
    with Checkpoint.open(source) as checkpoint:
        tensors = {
            name: (tensor.dtype, list(tensor.shape), tensor.source.read(tensor.offset, tensor.nbytes).tobytes())
            for name, tensor in checkpoint.tensors.items()
            if not name.startswith("mtp.")
        }
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    write_safetensors(folder / "model.safetensors", tensors)
    rows = config["vocab_size"]
    shapes = {
        name: [rows, *shape[1:]] if "markov" in name else shape
        for name, shape in draft["tensors"].items()
        if name.startswith("mtp.")
    }
    write_tensors(folder / "model-draft.safetensors", shapes)
    return folder


def _kinds(found: dict[tuple[str, str], Path]) -> int:
    """How many file types the files of the float types have: one where the checkpoint's own blocks decide it."""
    keys = (read_manifest(found["main", name])["kv"] for name in FLOATS)
    return len({key["value"] for of_file in keys for key in of_file if key["key"] == "general.file_type"})


def _fields(more: list[str]) -> dict[str, Any]:
    """The fields of the request for what `convert` is told."""
    pre = more[more.index("--pre-tokenizer") + 1] if "--pre-tokenizer" in more else None
    return {"pre_tokenizer": pre, "mistral_format": "--mistral-format" in more}


class Reads:
    """How often each byte of the weights is read, by the path of the file. Headers are read before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.times: dict[Path, np.ndarray] = {}
        read, read_pieces, copy_range = SourceFile.read, SourceFile.read_pieces, SourceFile.copy_range

        def counting(file: SourceFile, offset: int, nbytes: int, *, at: int = 0) -> object:
            self._note(file, offset, nbytes)
            return read(file, offset, nbytes, at=at)

        def counting_pieces(file: SourceFile, offset: int, nbytes: int, step: int, count: int) -> object:
            for number in range(count):
                self._note(file, offset + number * step, nbytes)
            return read_pieces(file, offset, nbytes, step, count)

        def counting_copies(file: SourceFile, target: int, nbytes: int, offset: int, at: int) -> int:
            copied = copy_range(file, target, nbytes, offset, at)
            self._note(file, offset, copied)
            return copied

        monkeypatch.setattr(SourceFile, "read", counting)
        monkeypatch.setattr(SourceFile, "read_pieces", counting_pieces)
        monkeypatch.setattr(SourceFile, "copy_range", counting_copies)
        self._lock = threading.Lock()

    def _note(self, file: SourceFile, offset: int, nbytes: int) -> None:
        with self._lock:
            times = self.times.setdefault(file.path, np.zeros(file.size, np.uint8))
            times[offset : offset + nbytes] += 1

    def check(self, plan: RequestPlan) -> None:
        """Checks that each byte of each tensor that the files are made of was read exactly once; of tensors whose rest
        the model does not use, each byte that is used."""
        stored = {
            (each.source.path, each.offset, each.dtype.nbytes(each.shape)): each.name
            for file in plan.files
            for row in file.sources
            for each in stored_in(row.expr)
        }
        assert len(stored) > 20
        seen = {name: np.unique(self.times[path][at : at + n]).tolist() for (path, at, n), name in stored.items()}
        assert {name: times for name, times in seen.items() if times not in ([1], [0, 1])} == {}
        assert {name for name, times in seen.items() if times == [0, 1]} <= USED_IN_PART
