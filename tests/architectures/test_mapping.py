"""What planning refuses, and how it says it. What it makes is compared with the reference in test_families.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge.architectures.templates import group_names
from gguf_forge.checkpoint import Checkpoint
from gguf_forge.errors import ForgeError, InputError, UnsupportedError
from gguf_forge.planning.model_plan import ModelPlan, plan_model

Change = Callable[[dict[str, tuple[str, list[int]]]], object]


def plan(tmp_path: Path, family: str, change: Change = lambda tensors: None, **config: Any) -> ModelPlan:
    """The plan of a family's checkpoint with changed tensors and config."""
    folder = write_checkpoint(FAMILIES / family, tmp_path / "hf", change=change, config=config)
    return plan_model(Checkpoint.open(folder), pre_tokenizer=read_description(FAMILIES / family).pre_tokenizer)


def test_all_unknown_tensors_are_listed_in_groups(tmp_path: Path) -> None:
    def change(tensors: dict[str, tuple[str, list[int]]]) -> None:
        for layer in range(2):
            tensors[f"model.layers.{layer}.foo.weight"] = ("BF16", [4])
        tensors["bar"] = ("BF16", [4])

    with pytest.raises(UnsupportedError, match=r"3 tensors of the checkpoint are not known") as caught:
        plan(tmp_path, "llama-hfvocab", change)
    assert "model.layers.{0..1}.foo.weight (2)" in str(caught.value)
    assert "\n  bar" in str(caught.value)


def test_layers_beyond_the_count_are_unknown_or_dropped(tmp_path: Path) -> None:
    extra = {"model.layers.99.input_layernorm.weight": ("BF16", [256])}
    with pytest.raises(UnsupportedError, match=r"layers\.99"):
        plan(tmp_path / "a", "llama3-bpe", lambda tensors: tensors.update(extra))
    dropped = plan(tmp_path / "b", "deepseek2-lite", lambda tensors: tensors.update(extra))
    assert not any(tensor.name.startswith("blk.99.") for tensor in dropped.tensors)


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    name = "model.layers.0.block_sparse_moe.experts.1.w2.weight"
    with pytest.raises(InputError, match=r"blk\.0\.ffn_down_exps\.weight: 1 of its \d parts are missing") as caught:
        plan(tmp_path, "mixtral", lambda tensors: tensors.pop(name))
    assert name in str(caught.value)


def test_more_experts_than_the_config_says(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the config says 2"):
        plan(tmp_path, "mixtral", num_local_experts=2)


def test_experts_of_different_shapes(tmp_path: Path) -> None:
    name = "model.layers.0.block_sparse_moe.experts.1.w2.weight"
    with pytest.raises(InputError, match=r"blk\.0\.ffn_down_exps\.weight: the \d tensors to stack differ"):
        plan(tmp_path, "mixtral", lambda tensors: tensors.update({name: ("BF16", [256, 512])}))


def test_layers_without_tensors(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"(?s)18 required tensors are missing.*the config says 4 layers, and the checkpoint has 2"
    ) as caught:
        plan(tmp_path, "llama3-bpe", num_hidden_layers=4)
    assert "blk.{2..3}.attn_q.weight (2)" in str(caught.value)


@pytest.mark.parametrize(
    ("stored", "missing"),
    [
        ("model.layers.1.self_attn.q_proj.weight", "blk.1.attn_q.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("model.embed_tokens.weight", "token_embd.weight"),
    ],
)
def test_a_tensor_that_is_not_there(tmp_path: Path, stored: str, missing: str) -> None:
    with pytest.raises(InputError, match=r"1 required tensor is missing") as caught:
        plan(tmp_path, "llama3-bpe", lambda tensors: tensors.pop(stored))
    assert f"\n  {missing};" in str(caught.value)


@pytest.mark.parametrize(
    ("family", "config", "problem"),
    [
        ("llama3-bpe", {"hidden_size": 128}, "token_embd.weight is 512 x 256, the config says any x 128"),
        ("llama3-bpe", {"intermediate_size": 999}, "ffn_up.weight is 512 x 256, the config says 999 x 256"),
        ("llama3-bpe", {"num_attention_heads": 8}, "attn_q.weight is 256 x 256, the config says 512 x 256"),
        ("phi3", {"num_attention_heads": 8, "num_key_value_heads": 8}, "attn_qkv.weight is"),
    ],
)
def test_shapes_that_are_not_those_of_the_config(
    tmp_path: Path, family: str, config: dict[str, int], problem: str
) -> None:
    with pytest.raises(InputError, match="tensors have other shapes than the config says") as caught:
        plan(tmp_path, family, **config)
    assert problem in str(caught.value)


def test_swapped_axes(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    with pytest.raises(InputError, match=r"blk\.0\.ffn_down\.weight is 512 x 256, the config says 256 x 512"):
        plan(tmp_path, "llama3-bpe", lambda tensors: tensors.update({name: ("BF16", [512, 256])}))


def test_latent_attention_of_other_sizes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"blk\.0\.attn_k_b\.weight: has \d+ rows, the config says 4 heads of 7 \+"):
        plan(tmp_path, "deepseek3", qk_nope_head_dim=7)


def test_two_tensors_for_one_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"token_embd\.weight: two tensors"):
        plan(tmp_path, "llama3-bpe", lambda tensors: tensors.update({"tok_embeddings.weight": ("BF16", [512, 256])}))


def test_heads_that_do_not_divide_the_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"blk\.0\.attn_q\.weight: 256 rows are not 5 heads"):
        plan(tmp_path, "llama3-bpe", num_attention_heads=5)


@pytest.mark.parametrize("shape", [[], [0, 4], [4, 0]])
def test_empty_tensors_and_scalars(tmp_path: Path, shape: list[int]) -> None:
    with pytest.raises(InputError, match=r"model\.norm\.weight: a tensor of shape .* holds nothing"):
        plan(tmp_path, "llama3-bpe", lambda tensors: tensors.update({"model.norm.weight": ("BF16", shape)}))


def test_plain_bytes_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"output_norm\.weight: data type U8 is not supported yet"):
        plan(tmp_path, "llama3-bpe", lambda tensors: tensors.update({"model.norm.weight": ("U8", [256])}))


def test_a_quantization_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="quantized with exl3"):
        plan(
            tmp_path,
            "llama3-bpe",
            lambda tensors: tensors.update({"model.norm.trellis": ("I16", [256])}),
            quantization_config={"quant_method": "exl3"},
        )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", "many"),
        ("rms_norm_eps", "small"),
        ("rms_norm_eps", float("inf")),
        ("max_position_embeddings", -1),
    ],
)
def test_config_values_of_the_wrong_kind(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"{key}\b.* is"):
        plan(tmp_path, "llama3-bpe", **{key: value})


def test_group_names_counts_layers_and_experts() -> None:
    names = [f"l.{layer}.e.{expert}.w" for layer in range(3) for expert in range(2)]
    assert group_names(names) == ["l.{0..2}.e.{0..1}.w (6)"]
    assert group_names(["l.4.w"]) == ["l.4.w"]


@pytest.mark.parametrize(
    ("family", "name"), [("llama2-spm", "LlamaModel"), ("qwen2", "Qwen2Model"), ("qwen3", "Qwen3Model")]
)
def test_a_model_without_its_head_has_shorter_names(tmp_path: Path, family: str, name: str) -> None:
    def shorten(tensors: dict[str, tuple[str, list[int]]]) -> None:
        whole = dict(tensors)
        tensors.clear()
        tensors |= {key.removeprefix("model."): kind for key, kind in whole.items() if not key.startswith("lm_head")}

    shapes = {tensor.name: tensor.expr.shape for tensor in plan(tmp_path / "whole", family).tensors}
    shapes.pop("output.weight", None)
    shorter = plan(tmp_path / "shorter", family, shorten, architectures=[name])
    assert {tensor.name: tensor.expr.shape for tensor in shorter.tensors} == shapes


def test_the_language_model_of_a_larger_one(tmp_path: Path) -> None:
    def lengthen(tensors: dict[str, tuple[str, list[int]]]) -> None:
        whole = dict(tensors)
        tensors.clear()
        tensors |= {f"language_model.{key}": kind for key, kind in whole.items()}

    names = [tensor.name for tensor in plan(tmp_path / "whole", "llama3-bpe").tensors]
    assert [tensor.name for tensor in plan(tmp_path / "longer", "llama3-bpe", lengthen).tensors] == names


def test_tokens_without_an_embedding(tmp_path: Path) -> None:
    def change(tensors: dict[str, tuple[str, list[int]]]) -> None:
        tensors["model.embed_tokens.weight"] = "BF16", [256, 256]

    with pytest.raises(InputError, match=r"token_embd\.weight: has 256 rows, and the vocabulary has 512 tokens"):
        plan(tmp_path, "llama3-bpe", change)


def test_embeddings_without_a_token_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(tensors: dict[str, tuple[str, list[int]]]) -> None:
        tensors["model.embed_tokens.weight"] = "BF16", [1024, 256]

    plan(tmp_path, "llama3-bpe", change)
    assert "token_embd.weight has 1024 rows, and the vocabulary has 512 tokens" in caplog.text


@pytest.mark.parametrize("shape", [[], [7]])
@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("qwen35", "model.layers.0.linear_attn.in_proj_qkv.weight"),
        ("qwen35", "model.layers.0.linear_attn.conv1d.weight"),
        ("qwen35", "model.layers.0.linear_attn.out_proj.weight"),
        ("kimi-linear", "model.layers.0.self_attn.q_conv1d.weight"),
        ("glm4-moe-lite", "model.layers.0.self_attn.kv_b_proj.weight"),
        ("granite-switch", "model.layers.0.self_attn.o_proj.lora_A"),
    ],
)
def test_tensors_with_too_few_axes(family: str, name: str, shape: list[int], tmp_path: Path) -> None:
    def change(tensors: dict[str, tuple[str, list[int]]]) -> None:
        assert name in tensors
        tensors[name] = ("F32", shape)

    with pytest.raises(ForgeError):
        plan(tmp_path, family, change)
