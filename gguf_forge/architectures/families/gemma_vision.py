"""The encoders of Gemma 3 (SigLIP, pictures) and Gemma 3n (MobileNet, pictures, and a conformer, sound)."""

from __future__ import annotations

from math import isqrt

from gguf_forge.architectures.declaration import Rule
from gguf_forge.architectures.metadata import f32, text, u32
from gguf_forge.architectures.operations import add, reshape
from gguf_forge.architectures.projector import (
    AUDIO,
    MOST_LAYERS,
    PATCHES,
    USE_GELU,
    VISION,
    VISION_SIZES,
    always,
    as_f16,
    as_f32,
    norm_epsilon,
    of_audio,
    of_vision,
    one_after_the_other,
    preprocessor,
    projector,
    projector_type,
    vision,
    with_audio,
    with_vision,
)
from gguf_forge.architectures.renames import ends, starts
from gguf_forge.architectures.site import Site

_PARTS = ("multi_modal_projector.", "vision_tower.", "multimodal_projector.", "vision_model.")


def _tokens(site: Site) -> int:
    """The number of tokens of a picture."""
    found = preprocessor(site)
    return found.integer("image_seq_length") if "image_seq_length" in found else 256


def _scale_factor(site: Site) -> int | None:
    """The number of patches per side that become one token. Only small test models differ from llama.cpp's default."""
    per_side = vision(site).integer("image_size") // vision(site).integer("patch_size") // isqrt(_tokens(site))
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
    # transformers since 4.52 saves the names with model. in front
    takes=lambda name: name.removeprefix("model.").startswith(_PARTS) and "vision_model.head." not in name,
    renames=(starts("model."), ends("_weight", ".weight")),
    # This norm is one of Gemma and multiplies by 1 + weight. The others are from SigLIP.
    operations={"mm.soft_emb_norm": add(1)},
    model_tensors=("v.patch_embd", "mm.input_projection", "mm.soft_emb_norm"),
    forced_types={"mm.input_projection": as_f16, "v.patch_embd": as_f32, "v.position_embd": as_f32},
)

# The tensors that a block of MobileNet may have.
_MOBILENET = (
    *("conv_exp.weight", "bn1.weight", "conv_pwl.weight", "bn2.weight", "layer_scale.gamma", "norm.weight"),
    *(f"{step}.{part}.weight" for step in ("dw_start", "dw_mid", "pw_exp", "pw_proj") for part in ("conv", "bn")),
    *(f"attn.{part}.proj.weight" for part in ("query", "key", "value", "output")),
    *(f"attn.{part}.{step}.weight" for part in ("key", "value") for step in ("down_conv", "norm")),
)
_TOWER = "model.vision_tower.timm_model."


def _side(site: Site) -> int:
    prepared = preprocessor(site)
    return 768 if prepared.find("size") is None else prepared.part("size").integer("height")


gemma3n_vision_audio = projector(
    "Gemma3nForConditionalGeneration",
    metadata=(
        # MobileNet needs no normalization of the pictures.
        *VISION_SIZES,
        f32("vision.image_mean", always([0.0, 0.0, 0.0])),
        f32("vision.image_std", always([1.0, 1.0, 1.0])),
        *AUDIO,
        text("vision.projector_type", always("gemma3nv")),
        norm_epsilon("layer_norm_eps", default=1e-6),
        text("audio.projector_type", always("gemma3na")),
        u32("audio.num_mel_bins", of_audio("input_feat_size")),
        f32("audio.attention.layer_norm_epsilon", always(1e-5)),
    ),
    prepare=one_after_the_other(
        with_vision(
            n_layers=always(MOST_LAYERS),
            intermediate_size=lambda site: 4 * vision(site).integer("intermediate_size", default=2048),
            num_attention_heads=of_vision("num_attention_heads", default=8),
            image_size=_side,
            patch_size=lambda site: _side(site) // _tokens(site),
        ),
        with_audio(
            n_layers=of_audio("conf_num_hidden_layers"),
            num_attention_heads=of_audio("conf_num_attention_heads"),
            intermediate_size=of_audio("intermediate_size", default=6144),
        ),
    ),
    takes=lambda name: name.startswith(("model.audio_tower.", "model.vision_tower.", "model.embed_")),
    renames=(starts("model.audio_tower.conformer.", "conformer.layers."),),
    names={f"{_TOWER}blocks.{{i}}.{{e}}.{part}": f"v.blk.{{i}}.{{e}}.{part}" for part in _MOBILENET},
    rules=(
        Rule(
            (f"{_TOWER}conv_stem.conv.bias",),
            "v.conv_stem.conv.bias",
            reshape(1, -1, 1, 1),
        ),
    ),
    forced_types={
        "a.pre_encode.out": as_f16,
        "v.conv_stem.conv": as_f32,
        "a.conv1d.{i}": as_f32,
        "a.blk.{i}.conv_dw": as_f32,
        **PATCHES,
    },
    block_count=always(MOST_LAYERS),
    layer_tensors=None,
    model_tensors=("v.conv_stem.conv", "mm.input_projection"),
)
