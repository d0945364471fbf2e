"""The encoders of Gemma 4 and Gemma 4 Unified. The latter reads pictures and sound without encoder layers."""

from __future__ import annotations

from gguf_forge.architectures.declaration import Rule
from gguf_forge.architectures.metadata import f32, text, u32
from gguf_forge.architectures.operations import reorder
from gguf_forge.architectures.projector import (
    AUDIO,
    MOST_LAYERS,
    VISION,
    always,
    norm_epsilon,
    of_audio,
    of_vision,
    one_after_the_other,
    projector,
    vision,
    with_audio,
    with_vision,
)
from gguf_forge.architectures.renames import ends, inside
from gguf_forge.architectures.site import Site
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import Reorder, reshaped


def _axes_swapped(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """Reorders positions: the checkpoint has both axes of each place together, the file all places of each axis."""
    (x,) = sources
    a, b, width = x.shape
    return reshaped(
        Reorder(reshaped(x, (a * b, width)), -2, (a, b), (1, 0), "the first two axes swapped"), (b, a, width)
    )


def _patch(site: Site) -> int:
    found = vision(site)
    if "model_patch_size" in found:
        return found.integer("model_patch_size")
    return found.integer("patch_size") * found.integer("pooling_kernel_size")


# The colours of each pixel are stored together. Afterwards the pixels of each colour are together.
_BY_COLOUR = reorder(-1, (_patch, _patch, 3), (2, 0, 1), "columns in the order of colours")
_EMBEDDER = "model.vision_embedder."

gemma4_unified = projector(
    "Gemma4UnifiedForConditionalGeneration",
    metadata=(
        *VISION,
        *AUDIO,
        text("vision.projector_type", always("gemma4uv")),
        norm_epsilon("layer_norm_eps", default=1e-6),
        text("audio.projector_type", always("gemma4ua")),
        u32("audio.num_mel_bins", of_audio("input_feat_size", default=128)),
        f32("audio.attention.layer_norm_epsilon", of_audio("layer_norm_eps", default=1e-6)),
    ),
    prepare=one_after_the_other(
        with_vision(
            # Pictures may have any size, but llama.cpp requires a number here.
            image_size=always(224),
            hidden_size=of_vision("mm_embed_dim"),
            intermediate_size=always(0),
            num_layers=always(0),
            num_attention_heads=always(0),
        ),
        with_audio(
            hidden_size=of_audio("audio_embed_dim"),
            intermediate_size=always(0),
            num_layers=always(0),
            num_attention_heads=always(0),
        ),
    ),
    renames=(ends("pos_embedding", "pos_embedding.weight"), inside(".pos_norm.", ".patch_ln3.")),
    rules=(
        Rule((f"{_EMBEDDER}patch_dense.weight",), "v.patch_embd.weight", _BY_COLOUR),
        Rule((f"{_EMBEDDER}patch_ln1.weight",), "v.patch_norm.1.weight", _BY_COLOUR),
        Rule((f"{_EMBEDDER}patch_ln1.bias",), "v.patch_norm.1.bias", _BY_COLOUR),
    ),
    operations={"v.position_embd": _axes_swapped},
    block_count=always(MOST_LAYERS),
    layer_tensors=None,
    model_tensors=("v.patch_embd", "v.position_embd", "mm.input_projection", "mm.a.input_projection"),
)
