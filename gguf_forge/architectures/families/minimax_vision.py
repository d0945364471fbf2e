"""The encoder of pictures of MiniMax-M3."""

from __future__ import annotations

from gguf_forge.architectures.declaration import Rule
from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.operations import index
from gguf_forge.architectures.projector import (
    USE_GELU,
    VISION,
    norm_epsilon,
    of_vision,
    projector,
    projector_type,
    vision,
)
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import concat
from gguf_forge.tensors.row_maps import Reorder, Slice, length, reshaped

_PARTS = ("vision_tower.", "multi_modal_projector.", "patch_merge_mlp.")
_HEAD = 80


def _axes_together(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """Reorders the rotary rows of a head to both halves of time, then of height, then of width.

    Checkpoints have the first halves of all three and then the second halves. The other rows of the head stay last.
    """
    (x,) = sources
    heads = vision(site).integer("num_attention_heads")
    if length(x, 0) != heads * _HEAD:
        raise InputError(f"has {length(x, 0)} rows, which are not {heads} heads of {_HEAD}")
    rest = length(x, 1) if len(x.shape) > 1 else 1
    by_head = reshaped(x, (heads, _HEAD, rest))
    third = 2 * (_HEAD // 2) // 3 // 2
    turned = Reorder(
        Slice(by_head, -2, 0, 6 * third), -2, (2, 3, third), (1, 0, 2), said="rows permuted for rotary embedding"
    )
    return reshaped(concat((turned, Slice(by_head, -2, 6 * third, _HEAD))), x.shape)


def _merge_size(site: Site) -> object:
    compression = of_vision("img_token_compression_config", default={})(site)
    return compression.get("spatial_merge_size", 2) if isinstance(compression, dict) else 2


minimax_m3_vision = projector(
    "MiniMaxM3SparseForConditionalGeneration",
    "MiniMaxM3VLForConditionalGeneration",
    metadata=(
        *VISION,
        projector_type("minimax_m3"),
        USE_GELU,
        norm_epsilon("layer_norm_eps", default=1e-5),
        u32("vision.spatial_merge_size", _merge_size),
    ),
    takes=lambda name: name.startswith(_PARTS),
    rules=tuple(
        Rule(
            ("vision_tower.vision_model.embeddings.patch_embedding.weight",),
            f"v.patch_embd.weight{suffix}",
            index(frame, -3, of=2),
        )
        for frame, suffix in enumerate(("", ".1"))
    ),
    operations={"v.blk.{i}.attn_q": _axes_together, "v.blk.{i}.attn_k": _axes_together},
    model_tensors=("v.patch_embd",),
)
