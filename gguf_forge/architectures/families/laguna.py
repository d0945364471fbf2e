"""Laguna: gated attention, whose number of heads differs by layer, windows in some layers, and experts."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, SIGMOID, f32, flag, leading_dense, u32
from gguf_forge.architectures.operations import GATE_UP_DOWN, experts
from gguf_forge.architectures.shapes import DECODER_SHAPES, heads, hidden, queries
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.gguf_file.values import u32 as u32_value
from gguf_forge.tokenizer import TokenizerSource, as_control, bpe, in_order, own_chat_template
from gguf_forge.tokenizer.checks import as_id
from gguf_forge.tokenizer.special import ID_KEYS


def _turn_end(source: TokenizerSource) -> Metadata:
    """The token that ends a turn: among the tokens that end a generation, the one that is not the first token."""
    ends = source.config.get("eos_token_id")
    others = [end for end in ends if end != source.config.get("bos_token_id")] if isinstance(ends, list) else []
    place = source.files.place("config.json") / "eos_token_id"
    return {ID_KEYS["eot"]: u32_value(as_id(others[0], place))} if others else {}


def _with_heads_by_layer(site: Site) -> Config:
    config = site.config
    if config.find("num_attention_heads_per_layer"):
        return config.updated(num_attention_heads=config.by_layer("num_attention_heads_per_layer"))
    return config.updated(num_attention_heads=[config.integer("num_attention_heads")] * config.block_count)


def _gate(kind: object) -> str:
    name = str(kind).replace("-", "_")
    if name not in ("per_element", "per_head"):
        raise InputError(f"the attention gate {kind!r:.40} is not known", file="config.json")
    return name


def _gate_width(site: Site) -> int:
    """A gate for each head, or for each of its values: `gating_types` says which, or else `gating`."""
    config, gating = site.config, site.config.find("gating")
    kinds = config.find("gating_types")
    kind = _gate(
        config.by_layer("gating_types")[site.layer or 0] if kinds else "per_head" if gating is True else gating
    )
    if kind == "per_element" and not (isinstance(gating, str) and _gate(gating) == kind):
        raise InputError(
            f"gates are per element, but gating is {gating!r:.40}",
            file="config.json",
            hint='other tools read gating alone: it should say "per-element"',
        )
    return queries(site) if kind == "per_element" else heads(site)


def _is_dense(site: Site) -> bool:
    return bool(site.config.by_layer("mlp_layer_types")[site.layer or 0] == "dense")


def _rotated(kind: str) -> Callable[[Site], int | None]:
    """The number of values of a head that are rotated in layers of one kind."""

    def count(site: Site) -> int | None:
        parameters = site.config.part("rope_parameters")
        if parameters.find(kind) is None:
            return None
        share = parameters.part(kind).number("partial_rotary_factor", default=1.0)
        return int(site.config.head_dim * share)

    return count


laguna = Architecture(
    "laguna",
    hf=("LagunaForCausalLM",),
    metadata=(
        *DECODER,
        u32("vocab_size", "vocab_size"),
        u32("attention.sliding_window", lambda site: site.config.find("sliding_window") or None),
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        u32("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
        flag("expert_weights_norm", lambda site: True),
        f32("expert_weights_scale", "moe_routed_scaling_factor"),
        u32("expert_gating_func", lambda site: SIGMOID),
        u32("leading_dense_block_count", leading_dense),
        u32("rope.dimension_count", _rotated("full_attention")),
        u32("rope.dimension_count_swa", _rotated("sliding_attention")),
    ),
    # the ids bring the template of tokenizer_config.json along, which may only include the one of the file
    tokenizer=in_order(as_control("</assistant>", bpe), _turn_end, own_chat_template()),
    rules=experts("model.layers.{i}.mlp.experts.{e}", *GATE_UP_DOWN),
    prepare=_with_heads_by_layer,
    shapes={**DECODER_SHAPES, "attn_gate": (_gate_width, hidden)},
    layer_tensors=lambda site: (
        *(*ATTENTION, "attn_q_norm", "attn_k_norm", "attn_gate", "ffn_norm"),
        *(GATED if _is_dense(site) else EXPERTS),
    ),
)
