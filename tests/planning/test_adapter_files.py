"""A LoRA adapter as a source: the file of its factors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from adapters import PREFIX, factor, pairs_for, product, shapes_of, stacked_pairs, write_adapter
from checkpoints import tiny_llama
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import GgufFile, InputError, UnsupportedError, UsageError, convert, open_gguf, plan
from gguf_forge.cli import main

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"
SHAPES = {Q: (256, 256), V: (128, 256)}
V_OF_FILE = "blk.1.attn_v.weight"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The base model, of which only config.json is left."""
    model = tiny_llama(tmp_path)
    folder = tmp_path / "base"
    folder.mkdir()
    (model / "config.json").rename(folder / "config.json")
    return folder


def made(folder: Path, base: Path, **more: object) -> GgufFile:
    (written,) = convert(folder, folder.parent / f"{folder.name}.gguf", base_model=base, overwrite=True, **more)
    return open_gguf(written.path)


def scales_of(file: GgufFile) -> dict[str, float]:
    """What llama.cpp multiplies the product of each pair by: alpha by the rank."""
    alpha = file.metadata["adapter.lora.alpha"]
    ranks = {tensor.name: tensor.shape[0] for tensor in file.tensors if tensor.name.endswith(".lora_b")}
    return {name.removesuffix(".lora_b"): alpha / rank for name, rank in ranks.items()}


def change_in(file: GgufFile, name: str) -> np.ndarray:
    """The change of a weight as llama.cpp computes it."""
    a, b = (file[f"{name}.lora_{part}"].values() for part in "ab")
    return product(b, a) * np.float32(scales_of(file)[name])


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 2.0),
        ({"use_rslora": True}, 4.0),
        ({"alpha_pattern": {"v_proj": 6}}, 1.5),
        ({"alpha_pattern": {"v_proj": 6}, "use_rslora": True}, 3.0),
        ({"rank_pattern": {"v_proj": 4}, "r": 16}, 2.0),
        ({"rank_pattern": {"v_proj": 4}, "r": 16, "use_rslora": True}, 4.0),
    ],
)
def test_each_pair_counts_as_much_as_in_peft(
    base: Path, tmp_path: Path, config: dict[str, object], scale: float
) -> None:
    rank = int(config.get("r", 4))  # type: ignore[call-overload]
    tensors = pairs_for({Q: SHAPES[Q]}, rank) | pairs_for({V: SHAPES[V]}, 4)
    b, a = (tensors[f"{PREFIX}{V}.lora_{part}.weight"] for part in "BA")
    write_adapter(tmp_path / "a", tensors, **config)
    with made(tmp_path / "a", base) as file:
        np.testing.assert_allclose(change_in(file, V_OF_FILE), product(b, a) * scale, rtol=1e-6, atol=1e-8)
    with made(tmp_path / "a", base, as_reference=True) as file:
        assert file.metadata["adapter.lora.alpha"] == 8.0
        assert file[f"{V_OF_FILE}.lora_b"].values().tobytes() == b.tobytes()


def test_a_uniform_stabilized_rank_leaves_the_factors_alone(base: Path, tmp_path: Path) -> None:
    tensors = pairs_for(SHAPES, 9)
    write_adapter(tmp_path / "a", tensors, use_rslora=True, r=9)
    with made(tmp_path / "a", base) as file:
        assert file.metadata["adapter.lora.alpha"] == 24.0
        assert file[f"{V_OF_FILE}.lora_b"].values().tobytes() == tensors[f"{PREFIX}{V}.lora_B.weight"].tobytes()


def test_matrices_that_are_stored_transposed(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 64, "n_head": 2, "n_layer": 1}
    (base / "config.json").write_text(json.dumps({**config, "n_ctx": 64, "layer_norm_epsilon": 1e-5}))
    write_adapter(tmp_path / "a", pairs_for({"transformer.h.0.attn.c_attn": (192, 64)}), fan_in_fan_out=True)
    with made(tmp_path / "a", base) as file:
        shapes = {tensor.name: tensor.shape[::-1] for tensor in file.tensors}
    assert shapes == {"blk.0.attn_qkv.weight.lora_a": (4, 64), "blk.0.attn_qkv.weight.lora_b": (192, 4)}
    with made(tmp_path / "a", base, as_reference=True) as file:
        shapes = {tensor.name: tensor.shape[::-1] for tensor in file.tensors}
    assert shapes == {"blk.0.attn_qkv.weight.lora_a": (4, 192), "blk.0.attn_qkv.weight.lora_b": (64, 4)}


@pytest.mark.parametrize(
    ("more", "config", "what"),
    [
        ({f"{PREFIX}{Q}.lora_magnitude_vector": factor(1, 256)}, {"use_dora": True}, "DoRA"),
        ({f"{PREFIX}{Q}.lora_B.bias": factor(1, 256)}, {"lora_bias": True}, "the bias of a pair"),
        ({f"{PREFIX}lm_head.weight": factor(1, 512, 256)}, {"modules_to_save": ["lm_head"]}, "a whole tensor"),
        ({f"{PREFIX}{Q}.bias": factor(1, 256)}, {"bias": "all"}, "a whole tensor"),
    ],
)
def test_what_has_no_place_in_an_adapters_file(
    base: Path, tmp_path: Path, more: dict[str, np.ndarray], config: dict[str, object], what: str
) -> None:
    write_adapter(tmp_path / "a", pairs_for(SHAPES) | more, **config)
    with pytest.raises(UnsupportedError, match=what) as caught:
        plan(tmp_path / "a", base_model=base)
    assert "--lora" in str(caught.value.words.hint)


@pytest.mark.parametrize(
    "more",
    [
        {f"{PREFIX}lm_head.weight": factor(1, 514, 256)},
        {f"{PREFIX}model.embed_tokens.base_layer.weight": factor(1, 514, 256)},
        {f"{PREFIX}lm_head.lora_A.weight": factor(1, 4, 256), f"{PREFIX}lm_head.lora_B.weight": factor(2, 514, 4)},
        {
            f"{PREFIX}model.embed_tokens.lora_embedding_A": factor(1, 4, 514),
            f"{PREFIX}model.embed_tokens.lora_embedding_B": factor(2, 256, 4),
        },
    ],
)
def test_more_tokens_than_the_model_has(base: Path, tmp_path: Path, more: dict[str, np.ndarray]) -> None:
    write_adapter(tmp_path / "a", pairs_for(SHAPES) | more)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"vocab_size": 512}))
    with pytest.raises(UnsupportedError, match="trained with 514 tokens, and the model has 512") as caught:
        plan(tmp_path / "a", base_model=base)
    assert "--lora" in str(caught.value.hint)


def test_norms_are_written(base: Path, tmp_path: Path) -> None:
    name = "model.layers.0.input_layernorm.weight"
    write_adapter(tmp_path / "a", pairs_for(SHAPES) | {f"{PREFIX}{name}": factor(1, 256)})
    with made(tmp_path / "a", base) as file:
        assert file["blk.0.attn_norm.weight"].values().tobytes() == factor(1, 256).tobytes()


def test_without_a_type_it_is_f32(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", pairs_for(SHAPES), dtype="BF16")
    with made(tmp_path / "a", base) as file:
        assert {tensor.type.name for tensor in file.tensors} == {"F32"}


def test_q8_0_is_that_of_the_converter(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", pairs_for({Q: SHAPES[Q]}, 32) | pairs_for({V: SHAPES[V]}, 4))
    with made(tmp_path / "a", base, types="Q8_0") as file:
        types = {tensor.name: tensor.type.name for tensor in file.tensors}
    assert types == {
        "blk.0.attn_q.weight.lora_a": "Q8_0",
        "blk.0.attn_q.weight.lora_b": "Q8_0",
        "blk.1.attn_v.weight.lora_a": "Q8_0",
        "blk.1.attn_v.weight.lora_b": "F16",
    }


def test_other_quantized_types_are_refused(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", pairs_for(SHAPES))
    with pytest.raises(UsageError, match="an adapter is not written as Q4_K_M") as caught:
        plan(tmp_path / "a", base_model=base, types="Q4_K_M")
    assert "Q8_0" in str(caught.value.hint)


def test_a_quantized_base_is_as_good(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", pairs_for(SHAPES))
    with made(tmp_path / "a", base) as file:
        before = [(tensor.name, tensor.data().tobytes()) for tensor in file.tensors]
    config = json.loads((base / "config.json").read_text())
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    with made(tmp_path / "a", base) as file:
        assert [(tensor.name, tensor.data().tobytes()) for tensor in file.tensors] == before


def test_the_base_that_the_adapter_names(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", pairs_for(SHAPES), base_model_name_or_path=str(base))
    assert len(plan(tmp_path / "a")[0].shards) == 1


def test_the_tokens_of_an_invocation(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", pairs_for(SHAPES), alora_invocation_tokens=[5, 7])
    with made(tmp_path / "a", base) as file:
        assert list(file.metadata["adapter.alora.invocation_tokens"]) == [5, 7]


@pytest.mark.parametrize("alpha", [0, None, "8", True, 1e300])
def test_an_alpha_that_is_none(base: Path, tmp_path: Path, alpha: object) -> None:
    write_adapter(tmp_path / "a", pairs_for(SHAPES), lora_alpha=alpha)
    with pytest.raises(InputError, match="lora_alpha"):
        plan(tmp_path / "a", base_model=base)


@pytest.mark.parametrize("file_type", ["F32", "F16", "BF16", "Q8_0"])
def test_verify_and_report(base: Path, tmp_path: Path, file_type: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_adapter(tmp_path / "a", pairs_for(SHAPES, 32), use_rslora=True, r=32)
    source, file, of_base = str(tmp_path / "a"), str(tmp_path / "a.gguf"), ["--base", str(base)]
    assert main(["convert", source, *of_base, "-t", file_type, "-o", file]) == 0
    assert main(["verify", file, "--source", source, *of_base]) == 0
    capsys.readouterr()
    assert main(["report", file, "--source", source, *of_base, "-o", str(tmp_path / "p.html")]) == 0
    assert "error against" in capsys.readouterr().out
    assert main(["convert", source, *of_base, "-t", file_type, "-o", file, "--overwrite", "--as-reference"]) == 0
    assert main(["verify", file, "--source", source, *of_base]) == 0
    write_adapter(tmp_path / "b", pairs_for({Q: SHAPES[Q]}, 32) | pairs_for({V: (128, 256)}, 8), r=32)
    assert main(["verify", file, "--source", str(tmp_path / "b"), *of_base]) == 7


@pytest.mark.parametrize("family", ["qwen3moe", "gptoss-bf16"])
@pytest.mark.parametrize("config", [{}, {"alpha_pattern": {"experts.down_proj": 3}, "use_rslora": True}], ids=str)
def test_stacked_experts_do_what_merging_does(family: str, config: dict[str, object], tmp_path: Path) -> None:
    model = write_checkpoint(FAMILIES / family, tmp_path / "model")
    at, turned = "model.layers.0.mlp.experts.", family.startswith("gpt")
    name = f"{at}gate_up_proj" if turned else f"{at}0.gate_proj.weight"
    first, second = shapes_of(model)[name][-2:]
    width, both = (first, second) if turned else (second, 2 * first)
    shapes = {f"{at}gate_up_proj": (4, both, width), f"{at}down_proj": (4, width, both // 2)}
    stacked_pairs(tmp_path / "a", shapes, **config)
    how = {"pre_tokenizer": read_description(FAMILIES / family).pre_tokenizer}
    files = [
        convert(model, tmp_path / "plain.gguf", types="F32", **how),
        convert(model, tmp_path / "merged.gguf", types="F32", lora=[tmp_path / "a"], **how),
    ]
    with (
        made(tmp_path / "a", model) as adapter,
        open_gguf(files[0][0].path) as plain,
        open_gguf(files[1][0].path) as one,
    ):
        scales = scales_of(adapter)
        assert len(scales) == 3
        for tensor, scale in scales.items():
            a, b = (adapter[f"{tensor}.lora_{part}"].values() for part in "ab")
            changes = np.stack([product(b[expert], a[expert]) * np.float32(scale) for expert in range(4)])
            np.testing.assert_allclose(plain[tensor].values() + changes, one[tensor].values(), rtol=0.01, atol=1e-6)
            assert np.abs(changes).max() > 0.01
