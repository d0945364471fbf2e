"""The encoders of Gemma 4 and Gemma 4 Unified. The latter reads pictures and sound without encoder layers."""

from __future__ import annotations

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Rule
from gguf_forge.architectures.metadata import f32, text, u32
from gguf_forge.architectures.operations import reorder, softplus, squeeze, vector
from gguf_forge.architectures.projector import (
    AUDIO,
    MOST_LAYERS,
    PATCHES,
    VISION,
    always,
    as_f32,
    audio,
    colour_planes,
    has_audio,
    norm_epsilon,
    of_audio,
    of_vision,
    one_after_the_other,
    projector,
    vision,
    where,
    with_audio,
    with_vision,
)
from gguf_forge.architectures.renames import ends, inside, starts
from gguf_forge.architectures.site import Site
from gguf_forge.architectures.tensor_names import known_names
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import Reorder, length, reshaped

# what bounds the values that go into a layer and come out of it
_BOUNDS = ("input_max", "input_min", "output_max", "output_min")
_BOUNDED = {
    f"{template}.{bound}": f"{target}.{bound}"
    for template, target in known_names("clip").items()
    if "blk.{i}." in target
    for bound in _BOUNDS
}


def _axes_swapped(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """Reorders positions: the checkpoint has both axes of each place together, the file all places of each axis."""
    (x,) = sources
    a, b, width = (length(x, axis) for axis in range(3))
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


def _audio_config(site: Site) -> Config:
    if not has_audio(site):
        return site.config
    return with_audio(intermediate_size=lambda site: 4 * audio(site).integer("hidden_size"))(site)


_SCALES = ("per_dim_key_scale", "per_dim_scale")

gemma4_vision_audio = projector(
    "Gemma4ForConditionalGeneration",
    metadata=(
        *VISION,
        where(has_audio, *AUDIO),
        text("vision.projector_type", always("gemma4v")),
        norm_epsilon("layer_norm_eps", default=1e-6),
        where(
            has_audio,
            text("audio.projector_type", always("gemma4a")),
            u32("audio.num_mel_bins", of_audio("input_feat_size", default=128)),
            f32("audio.attention.layer_norm_epsilon", of_audio("layer_norm_eps", default=1e-6)),
        ),
    ),
    prepare=one_after_the_other(with_vision(image_size=always(224)), _audio_config),
    renames=(
        starts("model.vision_tower.encoder.", "vision_model.model."),
        starts("model.audio_tower.", "conformer."),
        inside(".linear.", "."),
        *(ends(part, f"{part}.weight") for part in ("layer_scalar", "position_embedding_table", *_SCALES)),
    ),
    names=_BOUNDED,
    operations={
        **{f"*.{bound}": vector for bound in _BOUNDS},
        "v.patch_embd": colour_planes(lambda site: vision(site).integer("patch_size")),
        "a.blk.{i}.conv_dw": squeeze,
        "a.blk.{i}.per_dim*": softplus,
    },
    forced_types={**PATCHES, "a.conv1d.{i}": as_f32, "a.input_projection": as_f32, "a.blk.{i}.conv_dw": as_f32},
    block_count=always(MOST_LAYERS),
    layer_tensors=None,
    model_tensors=("v.patch_embd", "v.position_embd", "mm.input_projection"),
)
