"""Gemma, Gemma 2 and Gemma 3 (text)."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Drop
from gguf_forge.architectures.metadata import DECODER, f32, file_type, rope, u32
from gguf_forge.architectures.operations import add, first_rows
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import (
    add_space_prefix,
    bpe,
    first_of,
    in_order,
    real_vocabulary_size,
    sentencepiece,
    special_ids,
)

_SHAPE = (
    u32("context_length", "max_position_embeddings"),
    u32("embedding_length", "hidden_size"),
    u32("block_count", lambda site: site.block_count),
    u32("feed_forward_length", "intermediate_size"),
    u32("attention.head_count", "num_attention_heads"),
    u32("attention.head_count_kv", "num_key_value_heads", "num_attention_heads"),
    f32("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    u32("attention.key_length", "head_dim"),
    u32("attention.value_length", "head_dim"),
    file_type,
)

# The special tokens of CodeGemma. Every Gemma vocabulary has these ids.
_CODE_GEMMA = special_ids({"prefix": 67, "suffix": 69, "middle": 68, "fsep": 70, "eot": 107})
_GEMMA_VOCABULARY = in_order(sentencepiece, add_space_prefix(False))

gemma = Architecture(
    "gemma",
    hf=("GemmaForCausalLM",),
    metadata=_SHAPE,
    tokenizer=in_order(sentencepiece, _CODE_GEMMA, add_space_prefix(False)),
    # Gemma multiplies by 1 + weight, llama.cpp by the weight
    operations={"*_norm": add(1)},
    # The embedding is also the output matrix. Some tools store it twice.
    drops=(Drop("lm_head.weight"),),
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)

gemma2 = gemma.derive(
    "gemma2",
    hf=("Gemma2ForCausalLM",),
    metadata=(
        *_SHAPE,
        f32("attn_logit_softcapping", "attn_logit_softcapping"),
        f32("final_logit_softcapping", "final_logit_softcapping"),
        u32("attention.sliding_window", "sliding_window"),
    ),
    tokenizer=_GEMMA_VOCABULARY,
)


def _sliding_window(site: Site) -> int | None:
    return None if site.config.find("sliding_window_pattern") == 1 else site.config.integer("sliding_window")


def _count_vocabulary(site: Site) -> Config:
    size = real_vocabulary_size(site.folder, site.config, as_reference="as_reference" in site.choices)
    return site.config.updated(real_vocab_size=size)


gemma3 = Architecture(
    "gemma3",
    hf=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
    metadata=(
        *DECODER,
        f32("rope.freq_base", rope("rope_theta", default=1_000_000.0)),
        f32("final_logit_softcapping", lambda site: site.config.find("final_logit_softcapping") or None),
        u32("attention.sliding_window", _sliding_window),
    ),
    tokenizer=first_of(_GEMMA_VOCABULARY, bpe),
    # Rows of the embedding that belong to no token are cut off.
    operations={"*_norm": add(1), "token_embd": first_rows("real_vocab_size")},
    prepare=_count_vocabulary,
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)
