"""Arcee's Trinity (AFMoE): Llama's vocabulary, gated attention within windows, and experts behind dense layers."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.families.llama import llama, llama_vocabulary
from gguf_forge.architectures.metadata import f32, flag, u32
from gguf_forge.architectures.operations import GATE_UP_DOWN, experts
from gguf_forge.architectures.renames import WRAPPERS, ends
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import Reader

_vocabulary: Reader = llama_vocabulary("afmoe")
_NORMS = ("attn_q_norm", "attn_k_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")


def _is_dense(site: Site) -> bool:
    return (site.layer or 0) < site.config.integer("num_dense_layers", minimum=0)


afmoe = llama.derive(
    "afmoe",
    hf=("AfmoeForCausalLM",),
    metadata=(
        *llama.metadata,
        u32("expert_shared_count", "num_shared_experts"),
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        u32("leading_dense_block_count", "num_dense_layers"),
        flag("expert_weights_norm", "route_norm"),
        f32("expert_weights_scale", "route_scale"),
        u32("attention.sliding_window", "sliding_window"),
    ),
    tokenizer=_vocabulary,
    renames=(*WRAPPERS, ends(".expert_bias", ".expert_bias.bias")),
    rules=experts("model.layers.{i}.mlp.experts.{e}", *GATE_UP_DOWN),
    operations={},
    layer_tensors=lambda site: (*ATTENTION, "attn_gate", *_NORMS, *(GATED if _is_dense(site) else EXPERTS)),
)
