"""Talkie: gains in addition to the weights, and rotation in the opposite direction."""

from __future__ import annotations

from gguf_forge.architectures.completeness import GATED
from gguf_forge.architectures.declaration import Architecture, Drop
from gguf_forge.architectures.key_tensors import KeyTensor
from gguf_forge.architectures.metadata import DECODER, f32
from gguf_forge.architectures.operations import chain, concat, cut, each_of, multiply, reshape, unsqueeze
from gguf_forge.architectures.renames import ends
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe

_GAIN = "lm_head_gain.w_g"
# torch's machine epsilon of float32, which the model's norms add
_EPSILON = 2.0**-23


def _head(site: Site) -> int:
    return site.config.integer("head_dim")


def _half(site: Site) -> int:
    return _head(site) // 2


# llama.cpp rotates in the opposite direction, so the second half of each head changes its sign.
_backward = chain(
    reshape(-1, _head, "hidden_size"),
    each_of(cut(-2, 0, _half), chain(cut(-2, _half, _head), multiply(-1)), then=concat(-2)),
    reshape(-1, "hidden_size"),
)


talkie = Architecture(
    "talkie",
    hf=("TalkieForCausalLM",),
    early=(KeyTensor("logit_scale", _GAIN),),
    metadata=(*DECODER, f32("attention.layer_norm_rms_epsilon", lambda site: _EPSILON)),
    tokenizer=bpe,
    renames=(ends("lm_head", "lm_head.weight"),),
    names={
        "model.blocks.{i}.attn_gain.a_g": "blk.{i}.attn_output.scale",
        "model.blocks.{i}.mlp_gain.a_g": "blk.{i}.ffn_down.scale",
        "model.blocks.{i}.embed_skip.a_g": "blk.{i}.layer_output_scale.weight",
        "model.blocks.{i}.attn.head_gain.head_g": "blk.{i}.attn_q_norm.weight",
    },
    # There is one gain for each head, for all of its values.
    operations={"attn_q": _backward, "attn_k": _backward, "attn_q_norm": unsqueeze(-1)},
    drops=(Drop(_GAIN),),
    model_tensors=("token_embd",),
    layer_tensors=lambda site: ("attn_q", "attn_k", "attn_v", "attn_output", *GATED),
)
