"""Models that differ from Llama by a few keys: Baichuan, Xverse, Orion, openPangu, PLM and CodeShell."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, DENSE, GATED
from gguf_forge.architectures.declaration import Architecture, Drop, Rule
from gguf_forge.architectures.families.gpt2 import four_times_width
from gguf_forge.architectures.families.llama import llama
from gguf_forge.architectures.metadata import DECODER, f32, file_type, text, u32
from gguf_forge.architectures.operations import chain, cut, permute_rope
from gguf_forge.architectures.shapes import SHAPES_WITHOUT_ATTENTION
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe, configured_space_prefix, in_order, sentencepiece
from gguf_forge.tokenizer import xverse as xverse_vocabulary

_HEADS = "num_attention_heads"


def _key_heads(site: Site) -> int:
    key = "num_key_value_heads"
    return site.config.integer(key if site.config.find(key) is not None else _HEADS)


def _head(site: Site) -> int:
    return site.config.integer("hidden_size") // site.config.integer(_HEADS)


def _third(site: Site, number: int) -> int:
    return number * site.config.integer("hidden_size")


# The order of rotary rows in Meta's own checkpoints.
_LAYOUT = text("tensor_data_layout", lambda site: "Meta AI original pth")
_PACK = ("model.layers.{i}.self_attn.W_pack.weight",)

baichuan = Architecture(
    "baichuan",
    hf=("BaichuanForCausalLM", "BaiChuanForCausalLM"),
    metadata=(*DECODER, _LAYOUT, u32("rope.dimension_count", _head)),
    tokenizer=sentencepiece,
    rules=(
        Rule(
            _PACK,
            "blk.{i}.attn_q.weight",
            chain(cut(-2, 0, lambda site: _third(site, 1)), permute_rope(_HEADS)),
        ),
        Rule(
            _PACK,
            "blk.{i}.attn_k.weight",
            chain(cut(-2, lambda site: _third(site, 1), lambda site: _third(site, 2)), permute_rope(_key_heads)),
        ),
        Rule(_PACK, "blk.{i}.attn_v.weight", cut(-2, lambda site: _third(site, 2))),
    ),
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)

xverse = Architecture(
    "xverse",
    hf=("XverseForCausalLM",),
    metadata=baichuan.metadata,
    tokenizer=xverse_vocabulary,
    operations={"attn_q": permute_rope(_HEADS), "attn_k": permute_rope(_key_heads)},
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)

orion = Architecture(
    "orion",
    hf=("OrionForCausalLM",),
    metadata=(
        file_type,
        _LAYOUT,
        u32("context_length", "max_sequence_length", "max_position_embeddings", "model_max_length"),
        u32("embedding_length", "hidden_size"),
        u32("block_count", lambda site: site.block_count),
        u32("feed_forward_length", "intermediate_size"),
        u32("attention.head_count", _HEADS),
        u32("attention.head_count_kv", _key_heads),
        # The key names an RMS norm although the model has layer norms.
        f32("attention.layer_norm_epsilon", "rms_norm_eps"),
    ),
    tokenizer=sentencepiece,
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)

pangu = llama.derive(
    "pangu-embedded",
    hf=("PanguEmbeddedForCausalLM",),
    metadata=(
        *DECODER,
        u32("vocab_size", "vocab_size"),
        u32("rope.dimension_count", lambda site: site.config.head_dim),
        u32("attention.key_length", lambda site: site.config.head_dim),
        u32("attention.value_length", lambda site: site.config.head_dim),
    ),
    tokenizer=in_order(sentencepiece, configured_space_prefix),
    rules=(),
    operations={},
    generated=lambda site: (),
    drops=(Drop("lm_head.weight", when=lambda site: bool(site.config.find("tie_word_embeddings"))),),
)

plm = Architecture(
    "plm",
    hf=("PLMForCausalLM",),
    metadata=(
        *DECODER,
        u32("vocab_size", "vocab_size"),
        u32("attention.kv_lora_rank", "kv_lora_rank"),
        u32(
            "attention.key_length",
            lambda site: site.config.integer("qk_nope_head_dim") + site.config.integer("qk_rope_head_dim"),
        ),
        u32("attention.value_length", "v_head_dim"),
        u32("rope.dimension_count", "qk_rope_head_dim"),
    ),
    tokenizer=bpe,
    shapes=SHAPES_WITHOUT_ATTENTION,
    layer_tensors=lambda site: (
        *("attn_norm", "attn_q", "attn_kv_a_mqa", "attn_kv_b", "attn_output", "ffn_norm"),
        *DENSE,
    ),
)

codeshell = Architecture(
    "codeshell",
    hf=("CodeShellForCausalLM",),
    metadata=(
        u32("context_length", "n_positions"),
        u32("embedding_length", "n_embd"),
        u32("feed_forward_length", four_times_width),
        u32("block_count", lambda site: site.block_count),
        u32("attention.head_count", "n_head"),
        u32("attention.head_count_kv", "num_query_groups"),
        f32("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        file_type,
        f32("rope.freq_base", lambda site: 10000.0),
        text("rope.scaling.type", lambda site: "linear"),
        f32("rope.scaling.factor", lambda site: 1.0),
    ),
    tokenizer=bpe,
    shapes={},
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *DENSE),
)
