"""GLM-4, GLM-4.5 with experts, and models that contain them: GLM-4V, GLM-OCR and Solar Open."""

from __future__ import annotations

from gguf_forge.architectures.appended_layers import (
    NEXTN,
    NEXTN_COUNT,
    is_appended,
    with_appended_layers,
    with_counted_layers,
)
from gguf_forge.architectures.completeness import ATTENTION, DENSE, EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture, Operation
from gguf_forge.architectures.metadata import DECODER, f32, flag, u32
from gguf_forge.architectures.operations import MLP_EXPERTS
from gguf_forge.architectures.shapes import DECODER_SHAPES, hidden, inner
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import concat
from gguf_forge.tensors.row_maps import Reorder, Slice, length, reshaped
from gguf_forge.tokenizer import glm, glm_edge, solar_open


def rotated(site: Site) -> int:
    """The number of dimensions of a head that are rotated."""
    return int(site.config.head_dim * site.config.rope_number("partial_rotary_factor", 0.5))


def _in_halves(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """Reorders the rotated rows of each head from interleaved pairs to halves, as llama.cpp's sections require."""
    (x,) = sources
    if "mrope_section" not in site.config.part("rope_parameters"):
        return x
    width, turned = site.config.head_dim, rotated(site)
    if length(x, 0) % width or turned % 2 or turned > width:
        raise InputError(f"{length(x, 0)} rows are not heads of {width}, of which {turned} are rotated in pairs")
    heads = reshaped(x, (length(x, 0) // width, width, x.n_rows * length(x, -1) // length(x, 0)))
    pairs = Reorder(Slice(heads, -2, 0, turned), -2, (turned // 2, 2), (1, 0), said="rotary pairs in two halves")
    parts = (pairs, Slice(heads, -2, turned, width)) if turned < width else (pairs,)
    return reshaped(concat(parts), x.shape)


_HALVES: dict[str, Operation] = {"attn_q": _in_halves, "attn_k": _in_halves}
_NORMS = ("post_attention_norm", "ffn_norm", "post_ffw_norm")

glm4 = Architecture(
    "glm4",
    hf=("Glm4ForCausalLM", "Glm4vForConditionalGeneration"),
    metadata=(*DECODER, u32("rope.dimension_count", rotated)),
    tokenizer=glm_edge,
    operations=_HALVES,
    # gate and up in one
    shapes={**DECODER_SHAPES, "ffn_up": (lambda site: 2 * inner(site), hidden)},
    layer_tensors=lambda site: (*ATTENTION, *_NORMS, *DENSE),
)

glm_ocr = glm4.derive(
    "glm4",
    hf=("GlmOcrForConditionalGeneration",),
    metadata=(*glm4.metadata, NEXTN_COUNT),
    block_count=with_counted_layers,
    layer_tensors=lambda site: (*ATTENTION, *_NORMS, *DENSE, *(NEXTN if is_appended(site) else ())),
)


def _is_dense(site: Site) -> bool:
    return (site.layer or 0) < site.config.integer("first_k_dense_replace", minimum=0)


_MOE_METADATA = (
    *DECODER,
    u32("rope.dimension_count", rotated),
    u32("expert_count", "n_routed_experts"),
    u32("expert_feed_forward_length", "moe_intermediate_size"),
    u32("expert_shared_count", "n_shared_experts"),
    u32("leading_dense_block_count", "first_k_dense_replace"),
    u32("expert_gating_func", lambda site: 2),
    f32("expert_weights_scale", "routed_scaling_factor"),
    flag("expert_weights_norm", "norm_topk_prob"),
    NEXTN_COUNT,
)

glm4_moe = with_appended_layers(
    Architecture(
        "glm4moe",
        hf=("Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration"),
        metadata=_MOE_METADATA,
        tokenizer=glm,
        rules=MLP_EXPERTS,
        layer_tensors=lambda site: (*ATTENTION, "post_attention_norm", *(GATED if _is_dense(site) else EXPERTS)),
    )
)

solar = glm4_moe.derive("glm4moe", hf=("SolarOpenForCausalLM",), tokenizer=solar_open, choices=frozenset())
