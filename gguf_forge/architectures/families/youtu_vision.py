"""The encoder of pictures of Youtu-VL."""

from __future__ import annotations

from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.projector import (
    VISION,
    known_activation,
    norm_epsilon,
    of_vision,
    projector,
    projector_type,
    with_vision,
)

_TEXT = ("lm_head.", "model.layers.", "model.embed_tokens.", "model.norm.")

youtu_vision = projector(
    "YoutuVLForConditionalGeneration",
    metadata=(
        *VISION,
        projector_type("youtuvl"),
        norm_epsilon("layer_norm_eps", default=1e-6),
        known_activation(
            *("gelu", "gelu_pytorch_tanh", "gelu_fast", "gelu_new", "gelu_accurate"), default="gelu_pytorch_tanh"
        ),
        u32("vision.spatial_merge_size", of_vision("spatial_merge_size", default=2)),
        u32("vision.window_size", of_vision("window_size", default=None)),
        u32("vision.wa_layer_indexes", of_vision("fullatt_block_indexes")),
    ),
    prepare=with_vision(image_size=of_vision("image_size", default=560)),
    takes=lambda name: not name.startswith(_TEXT) and "language_model." not in name,
    model_tensors=("v.patch_embd",),
)
