"""The encoders of Nemotron Nano VL: RADIO for pictures and, in its Omni models, Parakeet for sound."""

from __future__ import annotations

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Drop, Rule
from gguf_forge.architectures.metadata import f32, file_type, text, u32
from gguf_forge.architectures.operations import reshape, squeeze
from gguf_forge.architectures.projector import (
    AUDIO,
    PATCHES,
    USE_GELU,
    VISION_SIZES,
    always,
    as_f32,
    has_audio,
    normalization,
    of_audio,
    projector,
    projector_type,
    vision,
    where,
)
from gguf_forge.architectures.renames import ends
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.resized import Resized
from gguf_forge.tensors.row_maps import length

_RADIO = "vision_model.radio_model.model."
_LAYER = "sound_encoder.encoder.layers.{i}."
# RADIO v2.5-h, the only such encoder, whose sizes are in no config.
_SIZES = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
_MEAN, _DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # those of ImageNet
_KIND = "nemotron_v2_vl"


def _with_sizes(site: Site) -> Config:
    config = site.config
    size = config.integer("force_image_size") if config.find("force_image_size") is not None else 512
    return config.updated(
        vision_config={**vision(site), **_SIZES, "image_size": size}, audio_config=config.find("sound_config") or {}
    )


def _patch(site: Site) -> int:
    return vision(site).integer("patch_size")


def _positions(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """The positions of the patches of a picture. They are learned for larger pictures."""
    (x,) = sources
    side = vision(site).integer("image_size") // _patch(site)
    return x if side**2 == x.n_rows else Resized(x, side)


def _scale(site: Site) -> int:
    ratio = site.config.number("downsample_ratio", default=0.5)
    if ratio > 1:
        raise InputError(f"downsample_ratio is {ratio!r:.40}, not a number from 0 to 1", file="config.json")
    return int(1.0 / ratio)


def _takes(name: str) -> bool:
    parts = (_RADIO, "mlp1.", "sound_encoder.", "sound_projection.")
    others = ("input_conditioner", "patch_generator.video_embedder", "language_model.")  # llama.cpp sees no films
    return name.startswith(parts) and not any(other in name for other in others)


nemotron_vision = projector(
    "NemotronH_Nano_VL_V2",
    "RADIOModel",
    prepare=_with_sizes,
    takes=_takes,
    renames=(ends("patch_generator.pos_embed", "patch_generator.pos_embed.weight"),),
    rules=(
        Rule((f"{_RADIO}patch_generator.pos_embed.weight",), "v.position_embd.weight", _positions),
        Rule((f"{_RADIO}patch_generator.embedder.weight",), "v.patch_embd.weight", reshape(-1, 3, _patch, _patch)),
        Rule(
            (f"{_LAYER}conv.depthwise_conv.weight",),
            "a.blk.{i}.conv_dw.weight",
            lambda site, /, *sources: reshape(1, 1, length(sources[0], 0), length(sources[0], 2))(site, *sources),
        ),
        *(
            Rule(
                (f"{_LAYER}conv.pointwise_conv{number}.bias",),
                f"a.blk.{{i}}.conv_pw{number}.bias",
                reshape(1, -1, 1, 1),
            )
            for number in (1, 2)
        ),
        Rule(("sound_encoder.encoder.subsampling.layers.{i}.bias",), "a.conv1d.{i}.bias", reshape(1, -1, 1, 1)),
    ),
    operations={f"a.blk.{{i}}.conv_pw{number}.weight": squeeze for number in (1, 2)},
    drops=(Drop(f"{_LAYER}conv.norm.num_batches_tracked"),),
    forced_types={**dict.fromkeys(("a.*conv*", "a.*norm*", "a.*bias*", "mm.a.*norm*"), as_f32), **PATCHES},
    model_tensors=("v.patch_embd", "v.position_embd"),
).derive(
    "clip",
    metadata=(
        where(
            has_audio,
            u32("audio.num_mel_bins", of_audio("num_mel_bins")),
            f32("audio.attention.layer_norm_epsilon", always(1e-5)),
            u32("audio.subsampling_factor", of_audio("subsampling_factor")),
            u32("audio.conv_kernel_size", of_audio("conv_kernel_size")),
            text("audio.projector_type", always("parakeet")),
            text("vision.projector_type", always(_KIND)),
        ),
        where(lambda site: not has_audio(site), projector_type(_KIND)),
        file_type,
        *VISION_SIZES,
        *normalization(_MEAN, _DEVIATION),
        where(has_audio, *AUDIO),
        f32("vision.attention.layer_norm_epsilon", always(1e-6)),
        USE_GELU,
        u32("vision.projector.scale_factor", _scale),
    ),
)
