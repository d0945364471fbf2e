"""The encoder of pictures of Llama 4."""

from __future__ import annotations

from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.projector import (
    VISION,
    known_activation,
    norm_epsilon,
    projector,
    projector_type,
    usual_layer,
    vision,
)
from gguf_forge.architectures.renames import ends

llama4_vision = projector(
    "Llama4ForConditionalGeneration",
    metadata=(
        *VISION,
        projector_type("llama4"),
        norm_epsilon("norm_eps"),
        u32("vision.projector.scale_factor", lambda site: int(1.0 / vision(site).number("pixel_shuffle_ratio"))),
        known_activation("gelu"),
    ),
    takes=lambda name: "language_model." not in name and ("multi_modal_projector" in name or "vision_model" in name),
    renames=(ends("positional_embedding_vlm", "positional_embedding_vlm.weight"),),
    # The projector has only this layer, although its name has a number.
    names={"multi_modal_projector.linear_1": "mm.model.fc"},
    # llama.cpp's tables give the second norm the name of a norm in other models.
    layer_tensors=lambda site: tuple(name.replace(".ln2", ".attn_post_norm") for name in usual_layer(site)),
    model_tensors=("v.patch_embd", "mm.model.fc"),
)
