"""Experts that are stored as one tensor: by transformers 5, gate above up, and by MLX."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from reports import MadeInput
from safetensors import deserialize
from synthetic import FAMILIES, read_description, write_checkpoint
from weights import Held, rewritten

from gguf_forge import UnsupportedError, convert, open_gguf, plan
from gguf_forge.planning.open_model import open_model

Tensors = dict[str, Held]
_EXPERT = re.compile(r"(.*)\.experts\.([0-9]+)\.(w[123]|(?:gate|up|down)_proj)\.weight")
_PARTS = {"w1": "gate", "w2": "down", "w3": "up", "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}


def matrices(folder: Path) -> dict[str, np.ndarray]:
    """The bits of a folder's stored tensors."""
    held = deserialize((folder / "model.safetensors").read_bytes())
    return {name: np.frombuffer(one["data"], np.uint16).reshape(one["shape"]) for name, one in held}


def written(folder: Path, out: Path) -> dict[str, np.ndarray]:
    """The bits of the matrices in the BF16 file."""
    (made,) = convert(folder, out, types="BF16", pre_tokenizer="qwen2")
    with open_gguf(made.path) as file:
        return {
            tensor.name: np.frombuffer(tensor.data(), np.uint16).reshape(tensor.shape[::-1])
            for tensor in file.tensors
            if tensor.type.name == "BF16"
        }


def test_of_transformers(made: MadeInput, tmp_path: Path) -> None:
    folder = made()
    stored, found = matrices(folder), written(folder, tmp_path / "a.gguf")
    for layer in range(2):
        gate_up = stored[f"model.layers.{layer}.mlp.experts.gate_up_proj"]
        down = stored[f"model.layers.{layer}.mlp.experts.down_proj"]
        for part, wanted in (("gate", gate_up[:, :96]), ("up", gate_up[:, 96:]), ("down", down)):
            np.testing.assert_array_equal(found[f"blk.{layer}.ffn_{part}_exps.weight"], wanted)


def test_of_mlx(made: MadeInput, tmp_path: Path) -> None:
    folder = made("mlx")
    stored, found = matrices(folder), written(folder, tmp_path / "a.gguf")
    for layer in range(2):
        for part in ("gate", "up", "down"):
            wanted = stored[f"model.layers.{layer}.mlp.switch_mlp.{part}_proj.weight"]
            np.testing.assert_array_equal(found[f"blk.{layer}.ffn_{part}_exps.weight"], wanted)


def stacks(tensors: Tensors) -> dict[str, dict[str, list[Held]]]:
    """The single experts of a checkpoint by the module that holds them, and by part, in order."""
    found: dict[str, dict[str, dict[int, Held]]] = {}
    for name, tensor in tensors.items():
        if match := _EXPERT.fullmatch(name):
            found.setdefault(match[1], {}).setdefault(_PARTS[match[3]], {})[int(match[2])] = tensor
    return {
        module: {part: [of[number] for number in sorted(of)] for part, of in parts.items()}
        for module, parts in found.items()
    }


def stacked(tensors: list[Held]) -> Held:
    dtype, shape, _ = tensors[0]
    return dtype, [len(tensors), *shape], b"".join(data for *_, data in tensors)


def as_transformers(tensors: Tensors) -> Tensors:
    found = {name: tensor for name, tensor in tensors.items() if not _EXPERT.fullmatch(name)}
    for module, parts in stacks(tensors).items():
        # Mixtral's and MiniMax's module has another name in version 5
        experts = f"{module.replace('block_sparse_moe', 'mlp')}.experts"
        found[f"{experts}.down_proj"] = stacked(parts["down"])
        if "gate" not in parts:
            found[f"{experts}.up_proj"] = stacked(parts["up"])
            continue
        both = [
            (dtype, [2 * shape[0], *shape[1:]], gate + up)
            for (dtype, shape, gate), (*_, up) in zip(parts["gate"], parts["up"], strict=True)
        ]
        found[f"{experts}.gate_up_proj"] = stacked(both)
    return found


def as_mlx(tensors: Tensors) -> Tensors:
    found = {name: tensor for name, tensor in tensors.items() if not _EXPERT.fullmatch(name)}
    for module, parts in stacks(tensors).items():
        words = {"up": "fc1", "down": "fc2"} if "gate" not in parts else {part: f"{part}_proj" for part in parts}
        found |= {f"{module}.switch_mlp.{words[part]}.weight": stacked(experts) for part, experts in parts.items()}
    return found


def contents(folder: Path) -> dict[str, tuple[tuple[int, ...], bytes]]:
    with open_model(folder) as model:
        return {name: (expr.shape, expr.rows(0, expr.n_rows).tobytes()) for name, expr in model.tensors().items()}


def families() -> list[str]:
    """The families with experts, each as a matrix of its own, and one file of weights in 16 bits."""

    def fits(folder: Path) -> bool:
        shards = read_description(folder).shards
        names = [name for tensors in shards.values() for name in tensors]
        return list(shards) == ["model.safetensors"] and any(_EXPERT.fullmatch(name) for name in names)

    return sorted(folder.name for folder in FAMILIES.iterdir() if fits(folder))


# llama.cpp's converter keeps gate and up in one tensor for these.
_FUSED_IN_THE_FILE = {"granite-moe-swa"}


@pytest.mark.parametrize("form", [as_transformers, as_mlx])
@pytest.mark.parametrize("family", families())
def test_every_family(tmp_path: Path, family: str, form: Callable[[Tensors], Tensors]) -> None:
    plain = write_checkpoint(FAMILIES / family, tmp_path / "plain")
    found = contents(rewritten(plain, tmp_path / "stacked", form))
    wanted = contents(plain)
    assert all(name.endswith((".weight", ".bias")) for name in found if "_exps" in name)
    if form is as_transformers and family in _FUSED_IN_THE_FILE:
        assert any("gate_up_exps" in name for name in found)
        return
    assert found.keys() == wanted.keys()
    assert [name for name, content in wanted.items() if found[name] != content] == []


def test_experts_of_another_number_than_the_config_says(made: MadeInput, tmp_path: Path) -> None:
    def fewer(tensors: Tensors) -> Tensors:
        name = "model.layers.0.mlp.experts.down_proj"
        dtype, (_, *shape), data = tensors[name]
        return tensors | {name: (dtype, [3, *shape], data[: 3 * 2 * shape[0] * shape[1]])}

    with pytest.raises(Exception, match="the config says 4 x"):
        plan(rewritten(made(), tmp_path / "fewer", fewer), pre_tokenizer="qwen2")


def test_a_stack_of_an_odd_number_of_rows(made: MadeInput, tmp_path: Path) -> None:
    def odd(tensors: Tensors) -> Tensors:
        return tensors | {"model.layers.0.mlp.experts.gate_up_proj": ("BF16", [4, 3, 64], bytes(4 * 3 * 64 * 2))}

    with pytest.raises(Exception, match="ffn_gate_exps"):
        plan(rewritten(made(), tmp_path / "odd", odd), pre_tokenizer="qwen2")


def test_a_dense_model_has_no_place_for_them(made: MadeInput, tmp_path: Path) -> None:
    def renamed(tensors: Tensors) -> Tensors:
        return {name.replace(".experts.", ".experts.shared."): tensor for name, tensor in tensors.items()}

    with pytest.raises(UnsupportedError, match="not known for the"):
        plan(rewritten(made(), tmp_path / "other", renamed), pre_tokenizer="qwen2")
