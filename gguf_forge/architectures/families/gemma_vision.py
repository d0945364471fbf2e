"""The encoders of Gemma 3: SigLIP for pictures."""

from __future__ import annotations

from math import isqrt

from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.operations import add
from gguf_forge.architectures.projector import (
    USE_GELU,
    VISION,
    as_f16,
    as_f32,
    norm_epsilon,
    preprocessor,
    projector,
    projector_type,
    vision,
)
from gguf_forge.architectures.renames import ends
from gguf_forge.architectures.site import Site

_PARTS = ("multi_modal_projector.", "vision_tower.", "multimodal_projector.", "vision_model.")


def _scale_factor(site: Site) -> int | None:
    """How many patches a side become one token; only small test models have another number than llama.cpp takes."""
    tokens = preprocessor(site).integer("image_seq_length") if "image_seq_length" in preprocessor(site) else 256
    per_side = vision(site).integer("image_size") // vision(site).integer("patch_size") // isqrt(tokens)
    return per_side if per_side not in (0, 4) else None


gemma3_vision = projector(
    "Gemma3ForConditionalGeneration",
    metadata=(
        *VISION,
        projector_type("gemma3"),
        norm_epsilon("layer_norm_eps", default=1e-6),
        USE_GELU,
        u32("vision.projector.scale_factor", _scale_factor),
    ),
    takes=lambda name: name.startswith(_PARTS) and "vision_model.head." not in name,
    renames=(ends("_weight", ".weight"),),
    # this norm is Gemma's, which multiplies by 1 + weight; the others are SigLIP's
    operations={"mm.soft_emb_norm": add(1)},
    model_tensors=("v.patch_embd", "mm.input_projection", "mm.soft_emb_norm"),
    forced_types={"mm.input_projection": as_f16, "v.patch_embd": as_f32, "v.position_embd": as_f32},
)
