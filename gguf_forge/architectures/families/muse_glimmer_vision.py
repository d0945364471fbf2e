"""The encoder of pictures of Muse Glimmer."""

from __future__ import annotations

from math import prod

from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.operations import index, permute_rope, reshape
from gguf_forge.architectures.projector import (
    VISION,
    norm_epsilon,
    of_vision,
    projector,
    projector_type,
    vision,
    with_vision,
)
from gguf_forge.architectures.renames import starts
from gguf_forge.architectures.site import Site
from gguf_forge.tensors.arithmetic import Sum
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import length

_PARTS = ("model.vision_tower.", "model.vision_adapter.", "model.vision_projection.")
_SIDES = ("pos_emb_height", "patch_size", "merge_size")


def _sum_of_frames(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """The sum of the convolutions of all frames, because a picture is treated as a film whose frames are all equal."""
    (x,) = sources
    found = vision(site)
    side, frames = found.integer("patch_size"), found.integer("patch_temporal")
    by_frame = reshape(length(x, 0), frames, 3, side, side)(site, x)
    return Sum(tuple(index(frame, -4)(site, by_frame) for frame in range(frames)))


_ROTATED = permute_rope(lambda site: vision(site).integer("num_attention_heads"))

muse_glimmer_vision = projector(
    "MuseGlimmerForConditionalGeneration",
    metadata=(
        *VISION,
        projector_type("muse-glimmer"),
        norm_epsilon("layer_norm_eps"),
        u32("vision.spatial_merge_size", of_vision("merge_size")),
    ),
    # pictures have any size; this is one that fits the learned positions
    prepare=with_vision(image_size=lambda site: prod(vision(site).integer(side) for side in _SIDES)),
    takes=lambda name: name.startswith(_PARTS),
    renames=(
        starts("model.vision_adapter.fc1.", "mm.0."),
        starts("model.vision_adapter.fc2.", "mm.1."),
        starts("model.vision_projection.", "mm.2."),
    ),
    operations={"v.blk.{i}.attn_q": _ROTATED, "v.blk.{i}.attn_k": _ROTATED, "v.patch_embd": _sum_of_frames},
    model_tensors=("v.patch_embd", "mm.0", "mm.1", "mm.2"),
)
