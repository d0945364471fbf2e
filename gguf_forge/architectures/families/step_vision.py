"""The encoder of pictures of Step3-VL and Step 3.7."""

from __future__ import annotations

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.projector import (
    BLOCKS,
    CLIP_DEVIATION,
    CLIP_MEAN,
    PATCHES,
    VISION_SIZES,
    always,
    as_base,
    norm_epsilon,
    normalization,
    one_after_the_other,
    projector,
    projector_type,
    vision,
    with_vision,
)
from gguf_forge.architectures.renames import ends
from gguf_forge.architectures.site import Site
from gguf_forge.errors import UnsupportedError

_STRIDE = 2
# The one encoder that llama.cpp knows: the side of its pictures, its width, and the number of its layers.
_KNOWN = (728, 1536, 47)
# How large pictures may be. Only the model's processing code says it.
_LARGEST = 3024


def _inner(site: Site) -> object:
    found = vision(site)
    if found.find("intermediate_size"):
        return found["intermediate_size"]
    return round(found.integer("hidden_size", "width") * found.number("mlp_ratio", default=8960 / 1536))


def _known(site: Site) -> Config:
    found = vision(site)
    sizes = (found.find("image_size"), found.find("hidden_size", "width"), found.find(*BLOCKS))
    if sizes != _KNOWN or site.config.find("understand_projector_stride") != _STRIDE:
        raise UnsupportedError("only the encoder of Step3-VL-10B is known, and this is another", file="config.json")
    return site.config


step_vision = projector(
    "StepVLForConditionalGeneration",
    "Step3p7ForConditionalGeneration",
    metadata=(
        *VISION_SIZES,
        *normalization(CLIP_MEAN, CLIP_DEVIATION),
        projector_type("step3vl"),
        norm_epsilon("layer_norm_eps", default=1e-5),
        u32("vision.projector.scale_factor", always(_STRIDE**2)),
        u32("vision.preproc_image_size", always(_LARGEST)),
    ),
    prepare=one_after_the_other(_known, with_vision(intermediate_size=_inner)),
    takes=lambda name: name.startswith(("vision_model.", "vit_large_projector.")) and "language_model." not in name,
    renames=(
        ends("positional_embedding", "positional_embedding.weight"),
        *(ends(f".ls_{number}.gamma", f".ls_{number}.weight") for number in (1, 2)),
        *(ends(f"attn.in_proj_{kind}", f"attn.in_proj.{kind}") for kind in ("weight", "bias")),
    ),
    names={
        "vision_model.vit_downsampler1": "mm.0",
        "vision_model.vit_downsampler2": "mm.1",
        "vit_large_projector": "mm.model.fc",
    },
    forced_types={**PATCHES, "mm.{i}": as_base},
    model_tensors=("v.patch_embd", "mm.0", "mm.1", "mm.model.fc"),
)
