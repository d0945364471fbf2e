"""Checkpoints with encoders and projectors (tests/projectors), and draft models (tests/drafts), one JSON file each.

`files` are the small files, `tensors` the shapes of all tensors, and `modules` those of tensors in further files.
`{0-3}` in a name stands for four names. Tensors are bfloat16 if their shape does not begin with another type, and have
the weights of synthetic.py. `target` is the family whose model a draft predicts for. `expected` are the sizes and
digests of the files that llama.cpp's tools made (reference/make_projectors.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synthetic import FAMILIES, read_description, tensor_bytes, write_checkpoint, write_safetensors

PROJECTORS, DRAFTS = (Path(__file__).parents[1] / name for name in ("projectors", "drafts"))
_RANGE = re.compile(r"\{(\d+)-(\d+)\}")


def descriptions() -> list[Path]:
    return sorted(path for folder in (PROJECTORS, DRAFTS) for path in folder.glob("*.json"))


def read(path: Path) -> dict[str, Any]:
    description: dict[str, Any] = json.loads(path.read_text())
    return description


def write(path: Path, folder: Path) -> Path:
    """Writes the described checkpoint to `folder`, which is made."""
    description = read(path)
    folder.mkdir(parents=True)
    for file, value in description["files"].items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(value))
    for file, shapes in {"model.safetensors": description["tensors"], **description.get("modules", {})}.items():
        write_tensors(folder / file, shapes)
    return folder


def write_with_all_parts(folder: Path) -> Path:
    """Writes a model with encoders of pictures and layers that predict further tokens to `folder`, which is made.

    Its language model is the family qwen35, and its encoders are those of Qwen3-VL without deepstack.
    """
    write_checkpoint(FAMILIES / "qwen35", folder)
    encoders = read(PROJECTORS / "qwen3-vl.json")
    text = json.loads((folder / "config.json").read_text())
    config = encoders["files"]["config.json"] | {"architectures": ["Qwen3_5ForConditionalGeneration"]}
    config |= {"model_type": "qwen3_5", "text_config": {**text, "architectures": None}}
    config["vision_config"] |= {"deepstack_visual_indexes": [], "out_hidden_size": text["hidden_size"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(encoders["files"]["preprocessor_config.json"]))
    shapes = {
        name: shape
        for name, shape in encoders["tensors"].items()
        if "visual" in name and "deepstack" not in name and "merger.linear_fc2" not in name
    }
    last = {"model.visual.merger.linear_fc2.weight": [64, 256], "model.visual.merger.linear_fc2.bias": [64]}
    write_tensors(folder / "model-visual.safetensors", shapes | last)
    return folder


def write_tensors(path: Path, described: dict[str, Any]) -> None:
    """Writes a safetensors file of tensors in the form of a description."""
    shapes = {full: shape for name, shape in described.items() for full in _expanded(name)}
    typed = {full: shape if shape and isinstance(shape[0], str) else ["BF16", *shape] for full, shape in shapes.items()}
    tensors = {full: (kind, shape, tensor_bytes(full, kind, shape)) for full, (kind, *shape) in sorted(typed.items())}
    write_safetensors(path, tensors)


def options(path: Path, scratch: Path) -> dict[str, Any]:
    """The fields of the request that the conversion needs. The model of a draft is written to `scratch`."""
    if path.parent == PROJECTORS:
        return {"mmproj": True}
    target = FAMILIES / read(path)["target"]
    folder = write_checkpoint(target, scratch / "target")
    how = {"target_model_dir": folder, "pre_tokenizer": read_description(target).pre_tokenizer}
    return how | ({"dspark": True} if read(path).get("dspark") else {})


def _expanded(name: str) -> Iterator[str]:
    found = _RANGE.search(name)
    if found is None:
        yield name
        return
    for number in range(int(found[1]), int(found[2]) + 1):
        yield from _expanded(name.replace(found[0], str(number), 1))
