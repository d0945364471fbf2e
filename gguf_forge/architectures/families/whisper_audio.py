"""Encoders of sound that are Whisper's: Ultravox, Qwen2-Audio, Voxtral, MERaLiON, GLM-ASR and Audio Flamingo 3."""

from __future__ import annotations

from typing import Any

from gguf_forge.architectures.declaration import Architecture, Drop, MetadataLine, Rule
from gguf_forge.architectures.metadata import f32, u32
from gguf_forge.architectures.operations import index, unsqueeze
from gguf_forge.architectures.projector import (
    AUDIO,
    always,
    as_f16,
    as_f32,
    audio_under,
    of_audio,
    of_model,
    one_after_the_other,
    projector,
    projector_type,
    with_audio,
)
from gguf_forge.architectures.renames import starts

# The config with the usual keys of encoders, filled from those of Whisper.
WHISPER_CONFIG = with_audio(
    hidden_size=of_audio("hidden_size", "d_model"),
    intermediate_size=of_audio("intermediate_size", "encoder_ffn_dim"),
    num_attention_heads=of_audio("num_attention_heads", "encoder_attention_heads"),
)
WHISPER = (
    u32("audio.num_mel_bins", of_audio("num_mel_bins")),
    f32("audio.attention.layer_norm_epsilon", of_audio("layer_norm_eps", default=1e-5)),
)
CONV1D_BIASES = tuple(
    Rule((f"audio_tower.conv{number}.bias",), f"a.conv1d.{number}.bias", unsqueeze(-1)) for number in (1, 2)
)


def _whisper(*hf: str, name: str, more: tuple[MetadataLine, ...] = (), **changes: Any) -> Architecture:
    usual: dict[str, Any] = {
        "prepare": WHISPER_CONFIG,
        # The projector's names are also used by projectors of pictures.
        "renames": (starts("multi_modal_projector.", "audio.multi_modal_projector."),),
        "rules": CONV1D_BIASES,
        "forced_types": {"a.conv1d.{i}": as_f16},
        "model_tensors": ("a.conv1d.1", "a.conv1d.2"),
    }
    return projector(*hf, metadata=(*AUDIO, projector_type(name), *WHISPER, *more), **{**usual, **changes})


qwen2_audio = _whisper("Qwen2AudioForConditionalGeneration", name="qwen2a")

ultravox = _whisper(
    "UltravoxModel", name="ultravox", more=(u32("audio.projector.stack_factor", of_model("stack_factor")),)
)

voxtral = _whisper(
    "VoxtralForConditionalGeneration", name="voxtral", more=(u32("audio.projector.stack_factor", always(4)),)
)

audio_flamingo = _whisper(
    "AudioFlamingo3ForConditionalGeneration",
    name="musicflamingo",
    # The weights are bfloat16, whose values float16 may not be able to hold.
    forced_types={"a.conv1d.{i}": as_f32},
)

_ADAPTER = "speech_audio_adapter."

meralion = _whisper(
    "MERaLiON2ForConditionalGeneration",
    name="meralion",
    more=(u32("audio.projector.stack_factor", of_model("speech_mlp_scale_factor", default=15)),),
    prepare=one_after_the_other(audio_under("speech_config"), WHISPER_CONFIG),
    takes=lambda name: not name.startswith("text_decoder."),
    renames=(starts("speech_encoder.", "audio_tower."),),
    names={
        "ln_speech": "mm.a.norm_pre",
        **{
            f"{_ADAPTER}{part}": f"mm.a.mlp.{number}"
            for number, part in enumerate(("mlp_adapter.0", "gate_proj", "pool_proj", "out_proj"))
        },
    },
)

glm_asr = _whisper(
    "GlmasrModel",
    name="glma",
    more=(u32("audio.projector.stack_factor", of_model("merge_factor")),),
    takes=lambda name: not name.startswith(("model.", "lm_head.")) and "language_model." not in name,
    renames=(
        starts("audio_encoder.whisper.", "audio_tower."),
        starts("audio_encoder.layer_norm.", "audio.multi_modal_projector.ln_pre."),
        starts("audio_encoder.adapting.0.", "audio.multi_modal_projector.linear_1."),
        starts("audio_encoder.adapting.2.", "audio.multi_modal_projector.linear_2."),
    ),
    rules=(
        *CONV1D_BIASES,
        Rule(("audio_encoder.audio_bos_eos_token.weight",), "v.boi", index(0, -2)),
        Rule(("audio_encoder.audio_bos_eos_token.weight",), "v.eoi", index(1, -2)),
    ),
    drops=(Drop("audio_encoder.proj.*"),),
)
