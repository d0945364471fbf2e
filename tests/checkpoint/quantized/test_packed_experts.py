"""Families whose own checkpoints hold MXFP4 experts, in shapes that no case of the corpus has.

The files are compared with those of llama.cpp's tools; reference/make_packed_experts.py made the digests.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from packed_experts import PACKED, SIZES, Sizes, write_packed
from synthetic import Tensors

from gguf_forge import InputError, convert, report, verify_gguf

TESTS = Path(__file__).parents[2]
BY_REFERENCE: dict[str, dict[str, dict[str, int | str]]] = json.loads((TESTS / "packed_experts.json").read_text())
# The codes of a matrix of experts, and their scales.
PARTS = {
    "gpt-oss": ("model.layers.0.mlp.experts.down_proj_blocks", "model.layers.0.mlp.experts.down_proj_scales"),
    "mimo2": ("model.layers.0.mlp.experts.1.up_proj.weight", "model.layers.0.mlp.experts.1.up_proj.weight_scale"),
    "deepseek4": ("layers.1.ffn.experts.2.w3.weight", "layers.1.ffn.experts.2.w3.scale"),
    "kimi-k3": tuple(
        f"language_model.model.layers.1.block_sparse_moe.experts.2.w3.weight_{end}" for end in ("packed", "scale")
    ),
}


def digest(path: Path) -> dict[str, int | str]:
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: str(sizes.width))
@pytest.mark.parametrize("family", PACKED)
def test_the_files_are_those_of_the_reference(family: str, sizes: Sizes, tmp_path: Path) -> None:
    source, hint = write_packed(family, sizes, tmp_path / "hf"), {"pre_tokenizer": PACKED[family].pre_tokenizer}
    found = {}
    for name in BY_REFERENCE[f"{family} {sizes.width}"]:
        kind, _, requantized = name.partition(" ")
        (file,) = convert(source, tmp_path / f"{kind}.gguf", types=kind, allow_requantize=bool(requantized), **hint)
        found[name] = digest(file.path)
    assert found == BY_REFERENCE[f"{family} {sizes.width}"]


@pytest.mark.parametrize("family", PACKED)
def test_they_are_proved_and_reported(family: str, tmp_path: Path) -> None:
    source, hint = write_packed(family, SIZES[0], tmp_path / "hf"), {"pre_tokenizer": PACKED[family].pre_tokenizer}
    (file,) = convert(source, tmp_path / "m.gguf", types="auto", **hint)
    assert verify_gguf(file.path, source, **hint).ok
    told = report(file.path, tmp_path / "m.html", source=source)
    experts = [tensor.error for tensor in told.tensors if tensor.name.endswith("_exps.weight")]
    assert experts and all(error is not None and error.rmse == 0 for error in experts)


@pytest.mark.parametrize("which", ["without scales", "without codes", "of other sizes"])
@pytest.mark.parametrize("family", PACKED)
def test_broken_experts_are_named(family: str, which: str, tmp_path: Path) -> None:
    codes, scales = PARTS[family]

    def change(tensors: Tensors) -> None:
        if which == "of other sizes":
            kind, shape = tensors[scales]
            tensors[scales] = kind, [*shape[:-1], shape[-1] + 1]
        else:
            del tensors[scales if which == "without scales" else codes]

    source = write_packed(family, SIZES[0], tmp_path / "hf", change)
    with pytest.raises(InputError) as raised:
        convert(source, tmp_path / "m.gguf", types="auto", pre_tokenizer=PACKED[family].pre_tokenizer)
    assert re.sub(r"_blocks|\.weight.*", "", codes) in str(raised.value)
    assert raised.value.tensor and raised.value.hint
    assert not (tmp_path / "m.gguf").exists()
