"""The conformance corpus: `shared/conformance` beside the checkout, or where GGUF_FORGE_CORPUS says."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gguf_forge.errors import InputError, UnsupportedError, UsageError
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.types.tensor_type import TENSOR_TYPES

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "conformance"
NOT_REACHED = "not reached yet"
# Cases beyond `corpus/` of which at least one manifest is reached; a list that only grows.
_REACHED = frozenset((Path(__file__).parents[1] / "reached_cases.txt").read_text().split())
CORPUS = Path(os.environ.get("GGUF_FORGE_CORPUS", _BESIDE))
# Inputs that went wrong for people: each folder has a program that makes one.
REPORTS = CORPUS.parent / "reports"


def manifests() -> list[Path]:
    """Every manifest of a file, sorted; none without the corpus. Digests of weights (values.json) are none."""
    return [path for path in sorted(CORPUS.glob("*/*/expected/*.json")) if "variant" in read_manifest(path)]


def checkpoints() -> list[Path]:
    """Every checkpoint folder with a config.json, sorted."""
    return sorted(path.parent for path in CORPUS.glob("*/*/hf/config.json"))


@cache
def read_manifest(path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(path.read_text())
    return manifest


# The cases whose files have a fault of the reference, and the fault. They are made with --as-reference.
PINNED_FAULTS = {
    "llava-pixtral": "the projector lacks the token between rows, without which llama.cpp does not load it",
    "mistral4-vl": "the projector lacks the token between rows, without which llama.cpp does not load it",
    "llama-hfvocab": "all tokens have the same score, so pairs are joined from the left and not in the order of merges",
}


class Cases:
    """Folders of cases with their weights: where these are described and not stored, in a copy, made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder_of(self, case: Path, *beside: str) -> Path:
        """The folder of a case; other cases lie beside it where their names are given."""
        if not beside and not list(case.rglob("*.safetensors.recipe")):
            return case
        for one in (case, *(path for name in beside for path in CORPUS.glob(f"*/{name}"))):
            if not (self._folder / one.name).exists():
                _materialize(one, self._folder)
        return self._folder / case.name

    def arguments(self, path: Path, tmp_path: Path, *, of_base: bool = False) -> tuple[Path, list[str]]:
        """The case's folder, where commands of a manifest run, and what `convert` is told, for the base where asked."""
        manifest = read_manifest(path)
        options = manifest.get("forge_args") or []
        if of_base and options == manifest["quantize_args"][:-1]:
            options = []
        case = self.folder_of(path.parents[1], *(word.split("/")[1] for word in options if word.startswith("../")))
        source = case / "hf"
        if manifest.get("source_dir_name", "hf") != "hf":
            source = shutil.copytree(source, tmp_path / manifest["source_dir_name"])
        pre = json.loads((case / "case.json").read_text())["pre_monkeypatch"]
        told = [*(["--pre-tokenizer", pre] if pre else []), *(["--as-reference"] if case.name in PINNED_FAULTS else [])]
        return case, [str(source), *options, *told]


@cache
def _tool(name: str) -> ModuleType:
    """A script that comes with the corpus."""
    spec = importlib.util.spec_from_file_location(name, CORPUS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _materialize(case: Path, folder: Path) -> None:
    _tool("materialize").materialize(case, folder)


def parsed_header(header: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The keys and the tensors that a GGUF header tells, in the form of a manifest, by the corpus's own reader."""
    reader = _tool("gguf_manifest")
    cursor = reader.Cursor(header, False)
    magic, _version, n_tensors, n_keys = cursor.take(4), *(cursor.scalar(kind) for kind in "IQQ")
    assert magic == b"GGUF"
    keys = [{"key": cursor.string().decode(), **reader._value(cursor, cursor.scalar("I"))} for _ in range(n_keys)]
    tensors = []
    for _ in range(n_tensors):
        name = cursor.string().decode()
        shape = [cursor.scalar("Q") for _ in range(cursor.scalar("I"))]
        kind, offset = reader.TENSOR_TYPES[cursor.scalar("I")][0], cursor.scalar("Q")
        tensors.append({"name": name, "shape": shape, "type": kind, "offset": offset})
    return keys, tensors


def skip_if_not_reached(path: Path, code: int, said: str) -> None:
    """Skips the test of a manifest where this version says, by exit code, that it cannot do such a thing yet.

    What is in `corpus/` is done, and so are the cases that reached_cases.txt names: nothing there is ever skipped.
    """
    case = path.parents[1]
    is_reached = (
        case.parent.name == "corpus"
        or f"{case.parent.name}/{case.name}" in _REACHED
        or code not in (UnsupportedError.exit_code, UsageError.exit_code, InputError.exit_code)
        or (code == UsageError.exit_code and "No such option" not in said)
        or (code == InputError.exit_code and _names_architecture(case / "hf"))
    )
    if not is_reached:
        pytest.skip(f"{NOT_REACHED}: {case.name}")


def _names_architecture(checkpoint: Path) -> bool:
    """Is this a folder of a model, and no adapter nor a publisher's own form?"""
    config = checkpoint / "config.json"
    return config.exists() and bool(json.loads(config.read_text()).get("architectures"))


def tensor_infos(manifest: dict[str, Any]) -> list[TensorInfo]:
    return [
        TensorInfo(tensor["name"], tuple(tensor["shape"]), TENSOR_TYPES[tensor["type"]])
        for tensor in manifest["tensors"]
    ]


def short(path: Path) -> str:
    """A test id: the case and the variant."""
    return f"{path.parent.parent.name}-{path.stem}"
