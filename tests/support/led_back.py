"""Checkpoints led back: planned as a file, and made again of the plan's tensors and keys. No file is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from corpus import Cases, manifests, read_manifest
from numpy.typing import NDArray

from gguf_forge import Request
from gguf_forge.architectures.reverse import KnownModel, lead_back
from gguf_forge.architectures.site import Site
from gguf_forge.checkpoint import Checkpoint
from gguf_forge.errors import ForgeError
from gguf_forge.planning.from_checkpoint import CheckpointModel
from gguf_forge.planning.model_of_file import model_of_file
from gguf_forge.planning.model_plan import ModelPlan, plan_model, survey
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import Constant, as_vector, stored_in
from gguf_forge.toolbox.edit.as_floats import as_floats
from gguf_forge.types.tensor_type import INTEGERS

# The most that float32 arithmetic, which cannot be undone exactly, may change a value near 1.
ROUNDED = 2.0**-23
_OPTIONS = {"--mmproj": "mmproj", "--mtp": "mtp", "--no-mtp": "no_mtp", "--mistral-format": "mistral_format"}


@dataclass(frozen=True)
class Outcome:
    """How a checkpoint came back.

    Attributes:
        by: "file" if the file alone tells all, "config" if config.json was needed, "none" if neither is enough.
        differs: What differs, in words; empty if nothing does.
    """

    by: str
    differs: str = ""


def outcome(request: Request) -> Outcome:
    """How the part of a checkpoint that a request asks for comes back from its file."""
    folder = LocalFolder(Path(request.source))
    model = CheckpointModel.open(folder, mistral_format=request.mistral_format)
    checkpoint: Checkpoint = model._checkpoint
    target = LocalFolder(Path(request.target_model_dir)) if request.target_model_dir else None
    try:
        how = {"choices": request.choices, "target": target}
        plan = plan_model(checkpoint, request.part, pre_tokenizer=request.pre_tokenizer, **how)  # type: ignore[arg-type]
        _, site = survey(checkpoint, request.part, **how)  # type: ignore[arg-type]
        first = _differences(plan, site, None)
        if not first:
            return Outcome("file")
        by_config = _differences(plan, site, model_of_file(plan.metadata, folder.path))
        return Outcome("none" if by_config else "config", by_config)
    finally:
        model.close()


def _differences(plan: ModelPlan, site: Site, model: KnownModel | None) -> str:
    tensors = {tensor.name: tensor.expr for tensor in plan.tensors}
    used = {_place(part) for expr in tensors.values() for part in stored_in(expr)}
    # Blocks stand for zeros: what they come back as is for the test of whole files.
    blocks = [n for n, e in tensors.items() if not e.dtype.is_float and e.dtype not in INTEGERS]
    floats = as_floats(tensors) | {n: Constant(np.zeros(tensors[n].shape, np.float32)) for n in blocks}
    try:
        found = lead_back(plan.metadata, floats, model).tensors
    except ForgeError as error:
        return f"refused: {error}"
    # The file holds some tensors of the checkpoint as keys.
    stored = {name: e for name, e in site.tensors.items() if any(_place(part) in used for part in stored_in(e))}
    wanted = stored | {name: e for name, e in site.tensors.items() if name in found}
    if found.keys() != wanted.keys():
        return f"names: {sorted(found.keys() ^ wanted.keys())[:4]}"
    shapes = [name for name in wanted if found[name].shape != wanted[name].shape]
    if shapes:
        return f"shapes: {shapes[:4]}"
    if blocks:
        return ""
    values = [name for name in wanted if np.abs(_values(found[name]) - _values(wanted[name])).max() > ROUNDED]
    return f"values: {values[:4]}" if values else ""


def _place(part: TensorExpr) -> tuple[object, ...]:
    return part.name, part.offset, part.source.path  # type: ignore[attr-defined]


def _values(expr: TensorExpr) -> NDArray[np.float32]:
    rows = as_vector(expr).rows(0, expr.n_rows)
    values: NDArray[np.float32] = (
        rows.view(f"<i{expr.dtype.nbytes((1,))}") if expr.dtype in INTEGERS else rows
    ).astype(np.float32)
    return values.reshape(-1)


def parts_of_cases(cases: Cases, only: str | None = None) -> Iterator[tuple[str, Request]]:
    """Each part of each case of the corpus that is no adapter, with a name; or only the one of a name."""
    seen = set()
    for path in manifests():
        words = read_manifest(path).get("forge_args") or []
        options = tuple(word for word in words if word in _OPTIONS)
        name = f"{path.parents[1].name}{''.join(options)}"
        if name in seen or {"--base", "--vocab-only"} & set(words) or not read_manifest(path).get("forge_type"):
            continue
        seen.add(name)
        if only not in (None, name):
            continue
        beside = [word.split("/")[1] for word in words if word.startswith("../")]
        case = cases.folder_of(path.parents[1], *beside)
        targets = {"target_model_dir": str(case.parent / beside[0] / "hf")} if "--target-model-dir" in words else {}
        pre = json.loads((case / "case.json").read_text())["pre_monkeypatch"]
        flags = {_OPTIONS[option]: True for option in options}
        yield name, Request(source=str(case / "hf"), pre_tokenizer=pre, **targets, **flags)  # type: ignore[arg-type]
