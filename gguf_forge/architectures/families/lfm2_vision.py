"""The encoder of pictures of LFM2-VL, which is SigLIP 2."""

from __future__ import annotations

from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.projector import (
    BLOCKS,
    USE_GELU,
    VISION,
    always,
    colour_planes,
    norm_epsilon,
    of_model,
    of_vision,
    projector,
    projector_type,
    vision,
    with_vision,
)
from gguf_forge.architectures.renames import starts
from gguf_forge.architectures.site import Site


def _used_layers(site: Site) -> int:
    """The number of layers up to the one whose output is used. The config counts this layer from the end."""
    return vision(site).integer(*BLOCKS) + site.config.integer("vision_feature_layer", minimum=-(2**31), default=-1) + 1


lfm2_vision = projector(
    "Lfm2VlForConditionalGeneration",
    metadata=(
        *VISION,
        projector_type("lfm2"),
        norm_epsilon("layer_norm_eps"),
        u32("vision.projector.scale_factor", of_model("downsample_factor", default=2)),
        USE_GELU,
        u32("vision.block_count", _used_layers),
    ),
    # Pictures keep their size. llama.cpp only requires that this key exists.
    prepare=with_vision(image_size=always(256), patch_size=of_vision("patch_size")),
    renames=(
        starts("model.vision_tower.", "vision_tower."),
        starts("model.multi_modal_projector.", "multi_modal_projector."),
    ),
    takes=lambda name: "language_model." not in name,
    operations={"v.patch_embd": colour_planes(16)},
    model_tensors=("v.patch_embd", "mm.1", "mm.2"),
)
