"""LoRA adapters for tests, and checkpoints merged with them by arithmetic of the tests' own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_dtypes import bfloat16
from numpy.typing import NDArray
from safetensors import deserialize
from synthetic import FAMILIES, as_dtype, read_description, write_checkpoint, write_safetensors
from weights import Held

Floats = NDArray[np.float32]
_NUMPY = {"F32": np.float32, "F16": np.float16, "BF16": bfloat16}
PREFIX = "base_model.model."


def factor(seed: int, *shape: int) -> Floats:
    """Numbers about as large as those of a trained factor."""
    return np.random.default_rng(seed).normal(0, 0.05, shape).astype(np.float32)


def pairs_for(shapes: Mapping[str, tuple[int, ...]], rank: int = 4) -> dict[str, Floats]:
    """The factors of modules whose matrices have these shapes, by their names in an adapter's file."""
    tensors: dict[str, Floats] = {}
    for seed, (module, (rows, columns)) in enumerate(shapes.items()):
        tensors[f"{PREFIX}{module}.lora_A.weight"] = factor(2 * seed, rank, columns)
        tensors[f"{PREFIX}{module}.lora_B.weight"] = factor(2 * seed + 1, rows, rank)
    return tensors


def write_adapter(folder: Path, tensors: Mapping[str, Floats], *, dtype: str = "F32", **config: object) -> Path:
    """An adapter's folder. `config` goes over a usual config of rank 4 and alpha 8."""
    folder.mkdir(parents=True)
    usual = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "example/base"}
    (folder / "adapter_config.json").write_text(json.dumps({**usual, **config}))
    held = {name: (dtype, list(x.shape), as_dtype(x, dtype).tobytes()) for name, x in tensors.items()}
    write_safetensors(folder / "adapter_model.safetensors", held)
    return folder


def adapter_of(run: Mapping[str, Any], folder: Path) -> Path:
    """The adapter of a run of tests/adapters.json: pairs of a rank, pairs of embeddings, whole tensors."""
    tensors = pairs_for({name: tuple(shape) for name, shape in run["shapes"].items()}, run.get("rank", 4))
    for name, (rows, columns) in run.get("embeddings", {}).items():
        tensors[f"{PREFIX}{name}.lora_embedding_A"] = factor(100, run.get("rank", 4), rows)
        tensors[f"{PREFIX}{name}.lora_embedding_B"] = factor(101, columns, run.get("rank", 4))
    tensors |= {f"{PREFIX}{name}": factor(102, *shape) for name, shape in run.get("whole", {}).items()}
    return write_adapter(folder, tensors, dtype=run.get("dtype", "F32"), **run.get("config", {}))


def product(b: Floats, a: Floats) -> Floats:
    """B times A, summed rank by rank from zero, each product and each sum rounded."""
    total = np.zeros((b.shape[0], a.shape[1]), np.float32)
    for rank in range(a.shape[0]):
        total = total + np.outer(b[:, rank], a[rank])
    assert total.dtype == np.float32
    return total


def values_of(held: Held) -> Floats:
    dtype, shape, data = held
    return np.frombuffer(data, _NUMPY[dtype]).astype(np.float32).reshape(shape)


def with_values(held: Held, values: Floats) -> Held:
    """The tensor with other values, rounded once to its type."""
    assert values.dtype == np.float32
    dtype, shape, _ = held
    return dtype, shape, values.astype(_NUMPY[dtype]).tobytes()


def held_of(model: Path) -> dict[str, Held]:
    """A checkpoint's tensors."""
    files = (path.read_bytes() for path in sorted(model.glob("*.safetensors")))
    return {name: (one["dtype"], one["shape"], bytes(one["data"])) for file in files for name, one in deserialize(file)}


def shapes_of(model: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, (_, shape, _) in held_of(model).items()}


def with_tensors(source: Path, folder: Path, tensors: Mapping[str, Held]) -> Path:
    """A copy of a checkpoint with some tensors in the place of its own, or beside those of its first file."""
    shutil.copytree(source, folder)
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    left = dict(tensors)
    for path in sorted(folder.glob("*.safetensors"), reverse=True):
        held = {name: (one["dtype"], one["shape"], bytes(one["data"])) for name, one in deserialize(path.read_bytes())}
        mine = {name: left.pop(name) for name in held if name in left}
        is_first = path == min(folder.glob("*.safetensors"))
        write_safetensors(path, held | mine | (left if is_first else {}))
    return folder


def merged(source: Path, folder: Path, changes: Mapping[str, Callable[[Floats], Floats]]) -> Path:
    """A copy of a checkpoint with some tensors changed, in float32, and rounded once to their types."""
    held = held_of(source)
    tensors = {name: with_values(held[name], change(values_of(held[name]))) for name, change in changes.items()}
    return with_tensors(source, folder, tensors)


def plus(scale: float, b: Floats, a: Floats) -> Callable[[Floats], Floats]:
    """The change of one pair."""
    return lambda weight: weight + product(b, a) * np.float32(scale)


def stacked_pairs(
    folder: Path, shapes: Mapping[str, tuple[int, int, int]], **config: object
) -> dict[str, tuple[Floats, Floats]]:
    """Writes an adapter for stacks of experts, (experts, outputs, inputs) by the names of parameters, the outermost
    one last; A (experts, rank, inputs) and B (experts, outputs, rank) of each."""
    held: dict[str, Floats] = {}
    found: dict[str, tuple[Floats, Floats]] = {}
    for depth, (name, (n, rows, columns)) in enumerate(reversed(list(shapes.items()))):
        module, _, _ = name.rpartition(".")
        a, b = factor(2 * depth, n * 4, columns), factor(2 * depth + 1, rows, n * 4)
        held[f"{PREFIX}{module}{'.base_layer' * depth}.lora_A.weight"] = a
        held[f"{PREFIX}{module}{'.base_layer' * depth}.lora_B.weight"] = b
        found[name] = a.reshape(n, 4, columns), b.reshape(rows, 4, n).transpose(2, 0, 1)
    write_adapter(folder, held, target_parameters=list(shapes), **config)
    return found


def made_of(family: str, folder: Path) -> tuple[Path, dict[str, object]]:
    """The checkpoint of a family, and what its conversion needs to know."""
    described = FAMILIES / family
    return write_checkpoint(described, folder / "model"), {"pre_tokenizer": read_description(described).pre_tokenizer}


def shape_of(model: Path, name: str) -> tuple[int, ...]:
    return shapes_of(model)[name]


def adapter_for(model: Path, folder: Path, *modules: str, rank: int = 4, **config: object) -> dict[str, Floats]:
    """Writes an adapter for modules of a checkpoint; its tensors without the prefix."""
    shapes = {module: shape_of(model, f"{module}.weight") for module in modules}
    tensors = pairs_for(shapes, rank)
    write_adapter(folder, tensors, **{"r": rank, **config})
    return {name.removeprefix(PREFIX): values for name, values in tensors.items()}


def change_of(tensors: dict[str, Floats], module: str, scale: float) -> Callable[[Floats], Floats]:
    return plus(scale, tensors[f"{module}.lora_B.weight"], tensors[f"{module}.lora_A.weight"])
