"""Encoders of sound that are conformers: LFM2-Audio, Granite Speech and Granite Speech Plus."""

from __future__ import annotations

from gguf_forge.architectures.declaration import Drop, MetadataLine, Rule
from gguf_forge.architectures.metadata import f32, u32
from gguf_forge.architectures.operations import part_of, reshape, squeeze
from gguf_forge.architectures.projector import (
    AUDIO,
    always,
    as_f32,
    audio,
    audio_under,
    of_audio,
    of_model,
    one_after_the_other,
    projector,
    projector_type,
    with_audio,
)
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tensors.arithmetic import FoldedNorm
from gguf_forge.tensors.expression import TensorExpr

_EPSILON = f32("audio.attention.layer_norm_epsilon", always(1e-5))
# convolutions keep their precision
_CONVOLUTIONS = {f"a.blk.{{i}}.conv_{part}": as_f32 for part in ("dw", "pw1", "pw2")}
_SQUEEZED = {f"a.blk.{{i}}.conv_{part}": squeeze for part in ("dw", "pw1", "pw2")}


def _folded(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    weight, bias, mean, variance = sources
    return FoldedNorm(weight, bias, mean, variance)


def _folded_bias(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    weight, bias, mean, variance = sources
    return FoldedNorm(weight, bias, mean, variance, gives="bias")


def _batch_norm(source: str, role: str) -> tuple[Rule, ...]:
    """Rules that fold the means and variances of a batch norm into its weight and bias."""
    sources = tuple(f"{source}.{part}" for part in ("weight", "bias", "running_mean", "running_var"))
    return (
        Rule(sources, f"a.blk.{{i}}.{role}.weight", _folded, after="batch norm"),
        Rule(sources, f"a.blk.{{i}}.{role}.bias", _folded_bias, after="batch norm"),
    )


_UNHEARD = ("codebook_offsets", "depth_embeddings", "depth_linear", "depthformer", "audio_loss_weight")

lfm2_audio = projector(
    "Lfm2AudioForConditionalGeneration",
    metadata=(*AUDIO, projector_type("lfm2a"), u32("audio.num_mel_bins", of_audio("feat_in")), _EPSILON),
    prepare=one_after_the_other(
        audio_under("encoder"),
        with_audio(
            hidden_size=of_audio("d_model"),
            intermediate_size=of_audio("d_model"),
            num_attention_heads=of_audio("n_heads"),
        ),
    ),
    takes=lambda name: (
        not name.startswith("lfm.") and "language_model." not in name and not any(part in name for part in _UNHEARD)
    ),
    rules=(
        *_batch_norm("conformer.layers.{i}.conv.batch_norm", "conv_norm"),
        Rule(("conformer.pre_encode.conv.{i}.bias",), "a.conv1d.{i}.bias", reshape(-1, 1, 1)),
    ),
    drops=(Drop("conformer.layers.{i}.conv.batch_norm.num_batches_tracked"),),
    operations=_SQUEEZED,
    forced_types={**_CONVOLUTIONS, "a.conv1d.{i}": as_f32},
    model_tensors=("a.pre_encode.out",),
)


def _halves(source: str) -> tuple[Rule, ...]:
    return tuple(
        Rule((f"{source}.weight",), f"a.blk.{{i}}.attn_{role}.weight", part_of(which, 2))
        for which, role in enumerate("kv")
    )


def _projector_heads(site: Site) -> object:
    return site.config.part("projector_config").find("num_attention_heads")


_SPEECH: tuple[MetadataLine, ...] = (
    *AUDIO,
    projector_type("granite_speech"),
    u32("audio.num_mel_bins", of_audio("input_dim")),
    _EPSILON,
    u32("audio.chunk_size", of_audio("context_size")),
    u32("audio.conv_kernel_size", of_audio("conv_kernel_size")),
    u32("audio.max_pos_emb", of_audio("max_pos_emb")),
    u32("audio.projector.window_size", of_model("window_size")),
    u32("audio.projector.downsample_rate", of_model("downsample_rate")),
    u32("audio.projector.head_count", _projector_heads),
)
_SPEECH_CONFIG = one_after_the_other(
    audio_under("encoder_config"),
    with_audio(
        hidden_size=of_audio("hidden_dim"),
        intermediate_size=lambda site: audio(site).integer("hidden_dim") * audio(site).integer("feedforward_mult"),
        num_attention_heads=of_audio("num_heads"),
        num_hidden_layers=of_audio("num_layers"),
    ),
)


def _further_layers(site: Site) -> object:
    """The layers whose outputs stand before the last one's."""
    layers = of_audio("cat_hidden_layers", default=None)(site)
    width = audio(site).integer("hidden_dim")
    has = site.config.part("projector_config").find("encoder_hidden_size")
    if layers and isinstance(layers, list) and has != width * (len(layers) + 1):
        raise InputError(
            f"encoder_hidden_size is {has!r:.40}, not {width} for each of {len(layers) + 1} layers", file="config.json"
        )
    return layers or None


granite_speech = projector(
    "GraniteSpeechForConditionalGeneration",
    metadata=_SPEECH,
    prepare=_SPEECH_CONFIG,
    takes=lambda name: not any(part in name for part in ("attention_dists", "num_batches_tracked", "language_model.")),
    rules=(
        *_batch_norm("encoder.layers.{i}.conv.batch_norm", "conv_norm_var"),
        *_halves("encoder.layers.{i}.attn.to_kv"),
    ),
    operations=_SQUEEZED,
    forced_types=_CONVOLUTIONS,
    model_tensors=("a.input_projection",),
)

granite_speech_plus = granite_speech.derive(
    "clip",
    hf=("GraniteSpeechPlusForConditionalGeneration",),
    metadata=(*granite_speech.metadata, u32("audio.feature_layer", _further_layers)),
)
