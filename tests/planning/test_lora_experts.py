"""`--lora` with adapters of experts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from adapters import (
    Floats,
    made_of,
    merged,
    plus,
    product,
    shape_of,
    stacked_pairs,
)
from weights import file_of

from gguf_forge import convert, open_gguf


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
