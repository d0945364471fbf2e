"""Orion: Llama's tensors, with norms that also have a bias."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import f32, file_type, text, u32
from gguf_forge.tokenizer import sentencepiece

orion = Architecture(
    "orion",
    hf=("OrionForCausalLM",),
    metadata=(
        file_type,
        text("tensor_data_layout", lambda site: "Meta AI original pth"),
        u32("context_length", "max_sequence_length", "max_position_embeddings", "model_max_length"),
        u32("embedding_length", "hidden_size"),
        u32("block_count", lambda site: site.block_count),
        u32("feed_forward_length", "intermediate_size"),
        u32("attention.head_count", "num_attention_heads"),
        u32("attention.head_count_kv", "num_key_value_heads", "num_attention_heads"),
        # the norms subtract the mean, whatever the key is called
        f32("attention.layer_norm_epsilon", "rms_norm_eps"),
    ),
    tokenizer=sentencepiece,
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)
