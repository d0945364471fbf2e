"""Cohere 2 with experts, and with layers that predict further tokens."""

from __future__ import annotations

from gguf_forge.architectures.appended_layers import SOME_NEXTN, with_appended_layers
from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture, Drop
from gguf_forge.architectures.metadata import DECODER, SLIDING_PATTERN, f32, flag, leading_dense, text, u32
from gguf_forge.architectures.operations import MLP_EXPERTS
from gguf_forge.architectures.site import Site
from gguf_forge.architectures.templates import fill
from gguf_forge.errors import UnsupportedError
from gguf_forge.tokenizer import bpe


def _dense_layers(site: Site) -> int:
    """The number of leading layers without experts."""
    if site.config.find("mlp_layer_types") is not None:
        return leading_dense(site)
    return site.config.integer("first_k_dense_replace", minimum=0) if "first_k_dense_replace" in site.config else 0


def _shared_experts(site: Site) -> int | None:
    if not site.config.get("num_shared_experts"):
        return None
    site.config.check_known({"shared_expert_combination_strategy": (None, "average")})
    return site.config.integer("num_shared_experts")


def _shared_length(site: Site) -> int | None:
    count = _shared_experts(site)
    return None if count is None else count * site.config.integer("intermediate_size")


def _no_bias(template: str) -> Drop:
    """Leaves out a bias of zeros. The model has no biases, but some checkpoints store zeros for them."""

    def is_zero(site: Site) -> bool:
        name = fill(template, site.layer)
        if name in site.tensors and site.peek(name).any():
            raise UnsupportedError("is not zero, and this architecture has no biases", tensor=name)
        return True

    return Drop(template, when=is_zero)


_BIASES = (
    "model.norm.bias",
    "model.layers.{i}.input_layernorm.bias",
    *(f"model.layers.{{i}}.self_attn.{name}_proj.bias" for name in "qkvo"),
    *(f"model.layers.{{i}}.mlp.{name}_proj.bias" for name in ("gate", "up", "down")),
    "model.layers.{i}.mlp.gate.bias",
)


cohere2_moe = with_appended_layers(
    Architecture(
        "cohere2moe",
        hf=("Cohere2MoeForCausalLM",),
        metadata=(
            *DECODER,
            f32("logit_scale", "logit_scale"),
            u32("attention.sliding_window", "sliding_window"),
            SLIDING_PATTERN,
            u32("vocab_size", "vocab_size"),
            u32("expert_feed_forward_length", "intermediate_size"),
            u32("leading_dense_block_count", _dense_layers),
            flag("expert_weights_norm", lambda site: site.config.get("norm_topk_prob", False)),
            u32("expert_shared_count", _shared_experts),
            u32("expert_shared_feed_forward_length", _shared_length),
            SOME_NEXTN,
            u32("rope.dimension_count", "head_dim"),
            text("rope.scaling.type", lambda site: "none"),
        ),
        tokenizer=bpe,
        rules=MLP_EXPERTS,
        drops=tuple(map(_no_bias, _BIASES)),
        layer_tensors=lambda site: (*ATTENTION, *(GATED if (site.layer or 0) < _dense_layers(site) else EXPERTS)),
    )
)
