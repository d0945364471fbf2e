"""`--lora` with adapters of experts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from adapters import (
    PREFIX,
    Floats,
    adapter_for,
    change_of,
    factor,
    held_of,
    made_of,
    merged,
    pairs_for,
    plus,
    product,
    shape_of,
    shapes_of,
    stacked_pairs,
    values_of,
    write_adapter,
)
from synthetic import as_dtype, write_safetensors
from weights import file_of

from gguf_forge import InputError, UnsupportedError, convert, open_gguf, plan


def test_stacked_parameters_of_experts_that_lie_apart(tmp_path: Path) -> None:
    model, how = made_of("qwen3moe", tmp_path)
    at = "model.layers.1.mlp.experts."
    inner, width = shape_of(model, f"{at}0.gate_proj.weight")
    shapes = {f"{at}gate_up_proj": (4, 2 * inner, width), f"{at}down_proj": (4, width, inner)}
    found = stacked_pairs(tmp_path / "a", shapes)
    (a1, b1), (a2, b2) = found[f"{at}gate_up_proj"], found[f"{at}down_proj"]
    changes = {}
    for e in range(4):
        changes[f"{at}{e}.gate_proj.weight"] = plus(2.0, b1[e][:inner], a1[e])
        changes[f"{at}{e}.up_proj.weight"] = plus(2.0, b1[e][inner:], a1[e])
        changes[f"{at}{e}.down_proj.weight"] = plus(2.0, b2[e], a2[e])
    whole = merged(model, tmp_path / "m", changes)
    assert file_of(model, lora=[tmp_path / "a"], **how) == file_of(whole, **how) != file_of(model, **how)


def stacked(single: Path, folder: Path) -> Path:
    """The checkpoint as transformers 5 saves it: the experts of a layer in two tensors, gates above ups."""
    held = held_of(single)
    stacks: dict[str, list[np.ndarray]] = {}
    names = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    found = {match: name for name in held if (match := re.fullmatch(r"(.*\.experts)\.(\d+)\.(\w+)\.weight", name))}
    for match, _ in sorted(found.items(), key=lambda each: int(each[0][2])):
        part = f"{match[1]}.{names.get(match[3], match[3])}"
        stacks.setdefault(part, []).append(values_of(held[match[0]]))
    tensors = {name: one for name, one in held.items() if name not in found.values()}
    for part in [part for part in stacks if part.endswith("gate_proj")]:
        module = part.removesuffix(".gate_proj")
        both = np.concatenate([np.stack(stacks[part]), np.stack(stacks[f"{module}.up_proj"])], axis=1)
        for name, values in (("gate_up_proj", both), ("down_proj", np.stack(stacks[f"{module}.down_proj"]))):
            as_saved = module.replace(".block_sparse_moe", ".mlp")
            tensors[f"{as_saved}.{name}"] = ("BF16", list(values.shape), as_dtype(values, "BF16").tobytes())
    shutil.copytree(single, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


@pytest.mark.parametrize("family", ["qwen3moe", "mixtral"])
@pytest.mark.parametrize("some", [True, False])
def test_pairs_of_single_experts_in_a_model_that_stacks_them(family: str, some: bool, tmp_path: Path) -> None:
    model, how = made_of(family, tmp_path)
    modules = [
        name.removesuffix(".weight")
        for name in shapes_of(model)
        if ".experts." in name and (not some or re.search(r"experts\.[02]\.(gate_proj|w[12])", name))
    ]
    tensors = adapter_for(model, tmp_path / "a", *modules, alpha_pattern={r"experts\.2\..*": 3})
    scales = {name: 3 / 4 if ".experts.2." in name else 2.0 for name in modules}
    whole = merged(model, tmp_path / "m", {f"{n}.weight": change_of(tensors, n, s) for n, s in scales.items()})
    base, wanted = stacked(model, tmp_path / "s"), stacked(whole, tmp_path / "w")
    assert file_of(base, lora=[tmp_path / "a"], **how) == file_of(wanted, **how) != file_of(base, **how)


def test_stacks_that_a_training_program_took_apart(tmp_path: Path) -> None:
    """GPT-OSS as a list of layers, one for each expert, as it is trained with quantized weights."""
    model, how = made_of("gptoss-bf16", tmp_path)
    at = "model.layers.0.mlp.experts."
    n, width, both = shape_of(model, f"{at}gate_up_proj")
    shapes = {f"{at}gate_up_projs.{e}": (both, width) for e in range(n)}
    shapes |= {f"{at}down_projs.{e}": (width, both // 2) for e in range(n - 1)}
    held = pairs_for(shapes)
    write_adapter(tmp_path / "a", held)
    pairs = {name: [held[f"{PREFIX}{name}.lora_{part}.weight"] for part in "BA"] for name in shapes}

    def turned(parameter: str) -> Callable[[Floats], Floats]:
        return lambda w: np.stack(
            [
                plus(2.0, *pairs[f"{at}{parameter}s.{e}"])(w[e].T).T if f"{at}{parameter}s.{e}" in pairs else w[e]
                for e in range(n)
            ]
        )

    whole = merged(model, tmp_path / "m", {f"{at}{name}": turned(name) for name in ("gate_up_proj", "down_proj")})
    assert file_of(model, lora=[tmp_path / "a"], **how) == file_of(whole, **how) != file_of(model, **how)


@pytest.mark.parametrize(
    ("more", "config", "words"),
    [
        ("", {}, "stores rows of gates and ups in turns"),
        ("lora_magnitude_vector", {"use_dora": True}, "a pair with DoRA of one expert"),
        ("lora_B.bias", {"lora_bias": True}, "a pair with a bias of one expert"),
    ],
)
def test_pairs_of_single_experts_that_are_not_merged(
    more: str, config: dict[str, object], words: str, tmp_path: Path
) -> None:
    model, how = made_of("gptoss-bf16", tmp_path)
    at = "model.layers.0.mlp.experts."
    _, width, both = shape_of(model, f"{at}gate_up_proj")
    rows, name = (both, "gate_up_projs.0") if more else (both // 2, "0.gate_proj")
    vector = {f"{PREFIX}{at}{name}.{more}": factor(1, rows)} if more else {}
    write_adapter(tmp_path / "a", pairs_for({f"{at}{name}": (rows, width)}) | vector, **config)
    with pytest.raises(UnsupportedError, match=words):
        plan(model, lora=[tmp_path / "a"], **how)


def test_an_expert_that_the_stack_does_not_have(tmp_path: Path) -> None:
    model, how = made_of("gptoss-bf16", tmp_path)
    write_adapter(tmp_path / "a", pairs_for({"model.layers.0.mlp.experts.gate_up_projs.99": (128, 64)}))
    with pytest.raises(InputError, match=r"1 tensors that the adapter changes are not in the model: .*projs\.99"):
        plan(model, lora=[tmp_path / "a"], **how)


def test_stacked_parameters_with_a_row_for_each_input(tmp_path: Path) -> None:
    model, how = made_of("gptoss-bf16", tmp_path)
    at = "model.layers.0.mlp.experts."
    n, width, both = shape_of(model, f"{at}gate_up_proj")
    shapes = {f"{at}gate_up_proj": (n, both, width), f"{at}down_proj": (n, width, both // 2)}
    found = stacked_pairs(tmp_path / "a", shapes)

    def turned(name: str) -> Callable[[Floats], Floats]:
        a, b = found[name]
        return lambda w: np.stack([w[e] + (product(b[e], a[e]) * np.float32(2)).T for e in range(n)])

    whole = merged(model, tmp_path / "m", {name: turned(name) for name in found})
    assert file_of(model, lora=[tmp_path / "a"], **how) == file_of(whole, **how) != file_of(model, **how)


def test_blocks_that_a_file_would_keep(tmp_path: Path) -> None:
    model, how = made_of("gptoss-mxfp4", tmp_path)
    at, file_name = "model.layers.0.mlp.experts.", "blk.0.ffn_down_exps.weight"
    (plain,) = convert(model, tmp_path / "plain.gguf", types="F32", **how)
    with open_gguf(plain.path) as file:
        assert file[file_name].type.name == "MXFP4"
        before = file[file_name].values()
    n, rows, columns = before.shape
    a, b = stacked_pairs(tmp_path / "a", {f"{at}down_proj": (n, rows, columns)})[f"{at}down_proj"]
    (made,) = convert(model, tmp_path / "made.gguf", types="F32", lora=[tmp_path / "a"], **how)
    with open_gguf(made.path) as file:
        assert file[file_name].type.name == "F32"
        assert file["blk.1.ffn_down_exps.weight"].type.name == "MXFP4"
        after = file[file_name].values()
    assert np.array_equal(after, np.stack([plus(2.0, b[e], a[e])(before[e]) for e in range(n)]))
