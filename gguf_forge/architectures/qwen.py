"""Qwen2 and Qwen3, dense and with experts."""

from __future__ import annotations

from gguf_forge.architectures.dsl import Architecture, Rule
from gguf_forge.architectures.metadata import DECODER, u32
from gguf_forge.architectures.operations import MLP_EXPERTS, half, keep
from gguf_forge.tokenizer import bpe, first_of, sentencepiece

qwen2 = Architecture(
    "qwen2",
    hf=("Qwen2ForCausalLM",),
    metadata=DECODER,
    tokenizer=first_of(sentencepiece, bpe),
)

qwen3 = qwen2.derive("qwen3", hf=("Qwen3ForCausalLM",))

qwen2moe = Architecture(
    "qwen2moe",
    hf=("Qwen2MoeForCausalLM",),
    metadata=(
        *DECODER,
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        u32("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
    ),
    tokenizer=bpe,
    rules=(
        *MLP_EXPERTS,
        # newer checkpoints hold the experts stacked, gate above up
        Rule(("model.layers.{i}.mlp.experts.down_proj",), "blk.{i}.ffn_down_exps.weight", keep),
        Rule(("model.layers.{i}.mlp.experts.gate_up_proj",), "blk.{i}.ffn_gate_exps.weight", half(0)),
        Rule(("model.layers.{i}.mlp.experts.gate_up_proj",), "blk.{i}.ffn_up_exps.weight", half(1)),
    ),
)

qwen3moe = qwen2moe.derive("qwen3moe", hf=("Qwen3MoeForCausalLM",))
