"""Qwen2 and Qwen3, dense and with experts, and what wraps them."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.families.qwen_reranker import RERANKER_KEYS, RERANKER_RULES, with_reranker
from gguf_forge.architectures.metadata import DECODER, u32
from gguf_forge.architectures.operations import MLP_EXPERTS, half, keep
from gguf_forge.architectures.pooling import with_pooling
from gguf_forge.architectures.renames import WRAPPERS, starts
from gguf_forge.tokenizer import bpe, first_of, sentencepiece

qwen2 = Architecture(
    "qwen2",
    hf=(
        "Qwen2ForCausalLM",
        "Qwen2AudioForConditionalGeneration",
        "KORMoForCausalLM",
        "AudioFlamingo3ForConditionalGeneration",
        "DotsOCRForCausalLM",
    ),
    metadata=(*DECODER, u32("pooling_type", "pooling_type")),
    tokenizer=first_of(sentencepiece, bpe),
    prepare=with_pooling,
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)

# an embedding model: without the head, and without the outermost module in names
qwen2_base = qwen2.derive("qwen2", hf=("Qwen2Model",), renames=(*WRAPPERS, starts("", "model.")))

qwen3 = qwen2.derive(
    "qwen3",
    hf=("Qwen3ForCausalLM", "Qwen3Model"),
    metadata=(*qwen2.metadata, *RERANKER_KEYS),
    rules=RERANKER_RULES,
    prepare=with_reranker,
)

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
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *EXPERTS),
)

qwen3moe = qwen2moe.derive("qwen3moe", hf=("Qwen3MoeForCausalLM",))
