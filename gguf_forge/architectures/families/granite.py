"""Granite: Llama with four scales."""

from gguf_forge.architectures.families.llama import llama
from gguf_forge.architectures.metadata import f32

granite = llama.derive(
    "granite",
    hf=("GraniteForCausalLM",),
    metadata=(
        *llama.metadata,
        f32("attention.scale", "attention_multiplier"),
        f32("embedding_scale", "embedding_multiplier"),
        f32("residual_scale", "residual_multiplier"),
        f32("logit_scale", "logits_scaling"),
    ),
    rules=(),
)
