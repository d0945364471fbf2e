"""The conformance corpus: `shared/conformance` beside the checkout, or where GGUF_FORGE_CORPUS says."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.tensor_types import TENSOR_TYPES

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "conformance"
CORPUS = Path(os.environ.get("GGUF_FORGE_CORPUS", _BESIDE))


def manifests() -> list[Path]:
    """Every manifest, sorted; none without the corpus."""
    return sorted(CORPUS.glob("*/*/expected/*.json"))


def checkpoints() -> list[Path]:
    """Every checkpoint folder with a config.json, sorted."""
    return sorted(path.parent for path in CORPUS.glob("*/*/hf/config.json"))


@cache
def read_manifest(path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(path.read_text())
    return manifest


def tensor_infos(manifest: dict[str, Any]) -> list[TensorInfo]:
    return [
        TensorInfo(tensor["name"], tuple(tensor["shape"]), TENSOR_TYPES[tensor["type"]])
        for tensor in manifest["tensors"]
    ]


def short(path: Path) -> str:
    """A test id: the case and the variant."""
    return f"{path.parent.parent.name}-{path.stem}"
