"""Qwen, Qwen2 and Qwen3, dense and with experts, and models that contain them."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.families.qwen_reranker import RERANKER_KEYS, RERANKER_RULES, with_reranker
from gguf_forge.architectures.metadata import DECODER, flag, u32
from gguf_forge.architectures.operations import MLP_EXPERTS, half, keep
from gguf_forge.architectures.pooling import POOLING
from gguf_forge.architectures.renames import INSIDE_MODEL, WRAPPERS
from gguf_forge.architectures.shapes import DECODER_SHAPES, hidden, inner
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import TokenizerSource, bpe, either, first_of, interns1, qwen, sentencepiece


def _half_inner(site: Site) -> int:
    """The width of the feed-forward part. The config has the sum of gate and up."""
    return inner(site) // 2


qwen1 = Architecture(
    "qwen",
    hf=("QWenLMHeadModel",),
    metadata=DECODER,
    tokenizer=qwen,
    shapes={
        **DECODER_SHAPES,
        "ffn_gate": (_half_inner, hidden),
        "ffn_up": (_half_inner, hidden),
        "ffn_down": (hidden, _half_inner),
    },
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)

qwen2 = Architecture(
    "qwen2",
    hf=(
        "Qwen2ForCausalLM",
        "Qwen2AudioForConditionalGeneration",
        "KORMoForCausalLM",
        "AudioFlamingo3ForConditionalGeneration",
        "DotsOCRForCausalLM",
    ),
    metadata=(*DECODER, *POOLING),
    tokenizer=first_of(sentencepiece, bpe),
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)

# an embedding model: without the head, and without the outermost module in names
qwen2_base = qwen2.derive("qwen2", hf=("Qwen2Model",), renames=(*WRAPPERS, *INSIDE_MODEL))


def _is_in_interns1(source: TokenizerSource) -> bool:
    """Whether it is the language model of Intern-S1, which adds tokens for molecules and proteins."""
    return (source.files.config or {}).get("architectures") == ["InternS1ForConditionalGeneration"]


qwen3 = qwen2.derive(
    "qwen3",
    hf=("Qwen3ForCausalLM", "Qwen3Model", "StepVLForConditionalGeneration"),
    tokenizer=either(_is_in_interns1, interns1, first_of(sentencepiece, bpe)),
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

qwen3moe = qwen2moe.derive("qwen3moe", hf=("Qwen3MoeForCausalLM",), tokenizer=either(_is_in_interns1, interns1, bpe))

# generates by diffusion
rnd1 = qwen2moe.derive(
    "rnd1",
    hf=("RND1",),
    metadata=(
        *qwen2moe.metadata,
        flag("attention.causal", lambda site: False),
        u32("tokenizer.ggml.mask_token_id", "mask_token_id"),
    ),
)
