"""dots.llm1: dense layers first, then layers with Qwen's experts and shared experts."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.families.deepseek import dense_layers
from gguf_forge.architectures.families.qwen import qwen2moe
from gguf_forge.architectures.metadata import SHARED_AND_SCALED, u32
from gguf_forge.architectures.operations import MLP_EXPERTS

dots1 = qwen2moe.derive(
    "dots1",
    hf=("Dots1ForCausalLM",),
    metadata=(
        *qwen2moe.metadata,
        u32("leading_dense_block_count", "first_k_dense_replace"),
        *SHARED_AND_SCALED,
    ),
    rules=MLP_EXPERTS,
    layer_tensors=lambda site: (
        *(*ATTENTION, "attn_q_norm", "attn_k_norm", "ffn_norm"),
        *(GATED if (site.layer or 0) < dense_layers(site) else EXPERTS),
    ),
)
