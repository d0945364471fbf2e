"""The tensors of published models, as our own plan makes them of their dimensions, are those of the recipe's tests.

`test_models.py` compares types over `data/models`; here a checkpoint of each is made of its published config: headers,
and a file with a hole in place of the weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recipe_models import MODELS, base_tensors, header
from synthetic import FAMILIES

from gguf_forge.checkpoint import Checkpoint
from gguf_forge.planning.model_plan import plan_infos
from gguf_forge.recipe.tensor_rules import may_quantize

Shapes = Iterator[tuple[str, tuple[int, ...]]]

# The family whose config.json has the rest, and the published dimensions.
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "meta-llama-3.1-70b-instruct": (
        "llama3-bpe",
        {
            "hidden_size": 8192,
            "intermediate_size": 28672,
            "num_hidden_layers": 80,
            "vocab_size": 128256,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "tie_word_embeddings": False,
        },
    ),
    "qwen3-0.6b": (
        "qwen3",
        {
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "vocab_size": 151936,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "tie_word_embeddings": False,
        },
    ),
    "qwen3-14b": (
        "qwen3",
        {
            "hidden_size": 5120,
            "intermediate_size": 17408,
            "num_hidden_layers": 40,
            "vocab_size": 151936,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "tie_word_embeddings": False,
        },
    ),
    "gemma-3-4b-it": (
        "gemma3-text",
        {
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
            "vocab_size": 262208,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "tie_word_embeddings": True,
        },
    ),
    "gpt-oss-120b": (
        "gptoss-bf16",
        {
            "hidden_size": 2880,
            "intermediate_size": 2880,
            "num_hidden_layers": 36,
            "vocab_size": 201088,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "num_local_experts": 128,
        },
    ),
    "deepseek-v3.1": (
        "deepseek3",
        {
            "hidden_size": 7168,
            "intermediate_size": 18432,
            "num_hidden_layers": 61,
            "vocab_size": 129280,
            "num_attention_heads": 128,
            "num_key_value_heads": 128,
            "q_lora_rank": 1536,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "first_k_dense_replace": 3,
            "n_routed_experts": 256,
            "moe_intermediate_size": 2048,
            "head_dim": 64,
            "qk_head_dim": 192,
        },
    ),
}


def gated(prefix: str, hidden: int, inner: int) -> Shapes:
    yield from ((f"{prefix}.{part}_proj.weight", (inner, hidden)) for part in ("gate", "up"))
    yield f"{prefix}.down_proj.weight", (hidden, inner)


def attention(layer: str, c: dict[str, Any]) -> Shapes:
    hidden, q, kv = c["hidden_size"], *(c["head_dim"] * c[f"num_{n}_heads"] for n in ("attention", "key_value"))
    for part, shape in {"q": (q, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, q)}.items():
        yield f"{layer}.self_attn.{part}_proj.weight", shape
        if c["model_type"] == "gpt_oss":
            yield f"{layer}.self_attn.{part}_proj.bias", shape[:1]
    if c["model_type"] == "gpt_oss":
        yield f"{layer}.self_attn.sinks", (c["num_attention_heads"],)
    if c["model_type"] in ("qwen3", "gemma3_text"):
        yield from ((f"{layer}.self_attn.{part}_norm.weight", (c["head_dim"],)) for part in "qk")


def latent_attention(layer: str, c: dict[str, Any]) -> Shapes:
    hidden, heads, rank, rope = (
        c[key] for key in ("hidden_size", "num_attention_heads", "kv_lora_rank", "qk_rope_head_dim")
    )
    nope, value, q_rank = (c[key] for key in ("qk_nope_head_dim", "v_head_dim", "q_lora_rank"))
    yield f"{layer}.self_attn.q_a_proj.weight", (q_rank, hidden)
    yield f"{layer}.self_attn.q_a_layernorm.weight", (q_rank,)
    yield f"{layer}.self_attn.q_b_proj.weight", (heads * (nope + rope), q_rank)
    yield f"{layer}.self_attn.kv_a_proj_with_mqa.weight", (rank + rope, hidden)
    yield f"{layer}.self_attn.kv_a_layernorm.weight", (rank,)
    yield f"{layer}.self_attn.kv_b_proj.weight", (heads * (nope + value), rank)
    yield f"{layer}.self_attn.o_proj.weight", (hidden, heads * value)


def experts(layer: str, c: dict[str, Any]) -> Shapes:
    hidden, inner, count = c["hidden_size"], c["moe_intermediate_size"], c["n_routed_experts"]
    yield f"{layer}.mlp.gate.weight", (count, hidden)
    yield f"{layer}.mlp.gate.e_score_correction_bias", (count,)
    yield from gated(f"{layer}.mlp.shared_experts", hidden, inner)
    for number in range(count):
        yield from gated(f"{layer}.mlp.experts.{number}", hidden, inner)


def stacked_experts(layer: str, c: dict[str, Any]) -> Shapes:
    hidden, inner, count = c["hidden_size"], c["intermediate_size"], c["num_local_experts"]
    yield f"{layer}.mlp.router.weight", (count, hidden)
    yield f"{layer}.mlp.router.bias", (count,)
    for part, shape in {"gate_up": (hidden, 2 * inner), "down": (inner, hidden)}.items():
        yield f"{layer}.mlp.experts.{part}_proj", (count, *shape)
        yield f"{layer}.mlp.experts.{part}_proj_bias", (count, shape[1])


def checkpoint_tensors(c: dict[str, Any]) -> Shapes:
    kind, hidden = c["model_type"], c["hidden_size"]
    yield "model.embed_tokens.weight", (c["vocab_size"], hidden)
    yield "model.norm.weight", (hidden,)
    if not c["tie_word_embeddings"]:
        yield "lm_head.weight", (c["vocab_size"], hidden)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if kind == "gemma3_text":
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for number in range(c["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        yield from ((f"{layer}.{norm}.weight", (hidden,)) for norm in norms)
        yield from (latent_attention if kind == "deepseek_v3" else attention)(layer, c)
        if kind == "gpt_oss":
            yield from stacked_experts(layer, c)
        elif kind == "deepseek_v3" and number >= c["first_k_dense_replace"]:
            yield from experts(layer, c)
        else:
            yield from gated(f"{layer}.mlp", hidden, c["intermediate_size"])


def write_sparse_checkpoint(folder: Path, config: dict[str, Any]) -> None:
    entries, end = {}, 0
    for name, shape in checkpoint_tensors(config):
        begin, size = end, 2
        for length in shape:
            size *= length
        end += size
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    encoded = json.dumps(entries).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + end)
    (folder / "config.json").write_text(json.dumps(config))
    if config["model_type"] == "gemma3_text":  # has rows that no token has
        vocabulary = {str(number): number for number in range(262144)}
        tokenizer = {"model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_plan_has_the_tensors_of_the_recipes_test(name: str, tmp_path: Path) -> None:
    family, dimensions = PUBLISHED[name]
    config = {**json.loads((FAMILIES / family / "config.json").read_text()), **dimensions}
    write_sparse_checkpoint(tmp_path, config)
    with Checkpoint.open(tmp_path) as checkpoint:
        infos, architecture = plan_infos(checkpoint)
    model = MODELS[name]
    assert header(model)["general.architecture"].data == architecture
    planned = {info.name: info.shape for info in infos if may_quantize(info.name, info.shape, architecture)}
    assert planned == {info.name: info.shape for info in base_tensors(model)}
