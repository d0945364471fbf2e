"""Refact: a Llama-like layer under GPT-2's names, with one head of keys and values."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.metadata import f32, file_type, u32
from gguf_forge.architectures.operations import cut, keep, rows_from
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe, in_order, special_ids


def _inner(site: Site) -> int:
    """2/3 of four times the width, rounded up to a multiple of 256."""
    thirds = int(2 * (4 * site.config.integer("n_embd")) / 3)
    return 256 * ((thirds + 255) // 256)


def _head(site: Site) -> int:
    return site.config.integer("n_embd") // site.config.integer("n_head")


_ATTENTION, _GATE_UP = "transformer.h.{i}.attn.", "transformer.h.{i}.mlp.gate_up_proj.weight"

refact = Architecture(
    "refact",
    hf=("GPTRefactForCausalLM",),
    metadata=(
        u32("context_length", "n_positions"),
        u32("embedding_length", "n_embd"),
        u32("feed_forward_length", _inner),
        u32("block_count", lambda site: site.block_count),
        u32("attention.head_count", "n_head"),
        u32("attention.head_count_kv", lambda site: 1),
        f32("attention.layer_norm_rms_epsilon", "layer_norm_epsilon"),
        file_type,
    ),
    tokenizer=in_order(bpe, special_ids({"prefix": 1, "suffix": 3, "middle": 2})),
    rules=(
        Rule((_ATTENTION + "kv.weight",), "blk.{i}.attn_k.weight", cut(-2, 0, _head)),
        Rule((_ATTENTION + "kv.weight",), "blk.{i}.attn_v.weight", rows_from(_head)),
        Rule((_ATTENTION + "q.weight",), "blk.{i}.attn_q.weight", keep),
        Rule((_GATE_UP,), "blk.{i}.ffn_gate.weight", cut(-2, 0, _inner)),
        Rule((_GATE_UP,), "blk.{i}.ffn_up.weight", rows_from(_inner)),
    ),
    shapes={},
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)
