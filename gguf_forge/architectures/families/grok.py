"""Grok 1 and Grok 2, with experts in every layer and norms after attention and after the experts."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, Lines, Origin, f32, text, u32
from gguf_forge.architectures.operations import NUMBERED, experts
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe, first_of, sentencepiece


def _output_scale(site: Site) -> float:
    """The factor of the attention scores; by default 1 / sqrt(width of a head)."""
    return site.config.number("attn_output_multiplier", default=site.config.head_dim**-0.5)


# Grok 2's config has its YaRN parameters at the top, and calls the method "original" by mistake.
_YARN = (
    text("rope.scaling.type", lambda site: "yarn"),
    f32("rope.scaling.factor", "scaling_factor"),
    u32("rope.scaling.original_context_length", "original_max_position_embeddings"),
    f32("rope.scaling.yarn_ext_factor", "extrapolation_factor"),
    f32("rope.scaling.yarn_attn_factor", "attn_factor"),
    f32("rope.scaling.yarn_beta_fast", "beta_fast"),
    f32("rope.scaling.yarn_beta_slow", "beta_slow"),
)


def _yarn(site: Site) -> Lines:
    if site.config.find("rope_type") in ("yarn", "original"):
        for line in _YARN:
            yield from line(site)


def _some(key: str) -> Origin:
    """A number that is not written if it is 0."""
    return lambda site: site.config.find(key) or None


grok = Architecture(
    "grok",
    hf=("GrokForCausalLM", "Grok1ForCausalLM"),
    metadata=(
        *DECODER,
        f32("attn_logit_softcapping", lambda site: site.config.get("attn_logit_softcapping", 30.0)),
        f32("router_logit_softcapping", lambda site: site.config.get("router_logit_softcapping", 30.0)),
        f32("final_logit_softcapping", _some("final_logit_softcapping")),
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        _yarn,
        u32("attention.temperature_length", _some("attn_temperature_len")),
        f32("attention.output_scale", _output_scale),
        f32("embedding_scale", "embedding_multiplier_scale"),
        f32("logit_scale", "output_multiplier_scale"),
    ),
    tokenizer=first_of(sentencepiece, bpe),
    rules=(
        *experts("model.layers.{i}.block_sparse_moe.experts.{e}", *NUMBERED),
        *experts(
            "transformer.decoder_layer.{i}.moe.{e}",
            ("linear", "ffn_gate_exps"),
            ("linear_1", "ffn_down_exps"),
            ("linear_v", "ffn_up_exps"),
        ),
    ),
    layer_tensors=lambda site: (
        *ATTENTION,
        "attn_output_norm",
        "ffn_norm",
        "layer_output_norm|post_ffw_norm",
        *EXPERTS,
    ),
)
