"""Muse Glimmer: norms without weights on queries and keys, which a scale of the config stands in for. And its draft."""

from __future__ import annotations

import numpy as np

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.declaration import Architecture, Operation, Rule
from gguf_forge.architectures.families.dflash import dflash, mask_token, target_layers, target_vocabulary
from gguf_forge.architectures.families.llama import HEADS, KEY_HEADS
from gguf_forge.architectures.metadata import DECODER, SLIDING_PATTERN, Lines, f32, u32
from gguf_forge.architectures.operations import add, permute_rope
from gguf_forge.architectures.renames import INSIDE_MODEL, WRAPPERS
from gguf_forge.architectures.site import Site
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import Constant
from gguf_forge.tokenizer import TokenizerSource, bpe, in_order, token_by_text


def _norm(scale: str | None) -> Operation:
    """The weight of a norm: a number of the config, or 1, for each value of a head."""

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        value = 1.0 if scale is None else site.config.number(scale)
        return Constant(np.full(site.config.head_dim, value, np.float32))

    return apply


_QUERY = ("model.layers.{i}.self_attn.q_proj.weight",)

muse_glimmer = Architecture(
    "muse-glimmer",
    hf=("MuseGlimmerForConditionalGeneration",),
    metadata=(
        *DECODER,
        f32("final_logit_softcapping", "final_logit_softcapping"),
        f32("logit_scale", "output_multiplier"),
        u32("attention.sliding_window", "sliding_window"),
        SLIDING_PATTERN,
    ),
    tokenizer=in_order(bpe, token_by_text("<|eot|>", "eot")),
    rules=(
        Rule(_QUERY, "blk.{i}.attn_q_norm.weight", _norm("qk_scale_factor")),
        Rule(_QUERY, "blk.{i}.attn_k_norm.weight", _norm(None)),
        Rule(_QUERY, "blk.{i}.attn_q.weight", permute_rope(HEADS)),
    ),
    operations={
        "attn_q": permute_rope(HEADS),
        "attn_k": permute_rope(KEY_HEADS),
        # the norms of layers multiply by 1 + weight, the last one by the weight
        **{role: add(1) for role in ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm")},
    },
    layer_tensors=lambda site: (*ATTENTION, "attn_gate", "ffn_norm", *GATED),
)


def _mask(source: TokenizerSource) -> Metadata:
    id = source.config.get("mask_token_id")
    return {} if id is None else mask_token(source, id, "mask_token_id")


def _window(site: Site) -> Lines:
    if site.config.find("sliding_window") and site.config.find("layer_types"):
        yield from u32("attention.sliding_window", "sliding_window")(site)
        yield from SLIDING_PATTERN(site)


muse_glimmer_assistant = dflash.derive(
    "dflash",
    hf=("MuseGlimmerAssistantModel",),
    metadata=(
        *DECODER,
        u32("block_size", "block_size"),
        u32("target_layers", target_layers("target_layer_ids")),
        _window,
    ),
    tokenizer=in_order(target_vocabulary, _mask),
    renames=(*INSIDE_MODEL, *WRAPPERS),
    names={},
    operations={},
    drops=(),
    prepare=lambda site: site.config,
)
