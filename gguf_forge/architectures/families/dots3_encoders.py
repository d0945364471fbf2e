"""The encoders of dots3-note: of pictures, with experts in some layers, and of sound."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Rule
from gguf_forge.architectures.metadata import f32, text, u32
from gguf_forge.architectures.operations import part_of, stack
from gguf_forge.architectures.projector import (
    AUDIO,
    MOST_LAYERS,
    PATCHES,
    USE_SILU,
    VISION_SIZES,
    always,
    as_f32,
    audio,
    norm_epsilon,
    of_vision,
    preprocessor,
    projector,
    usual_layer,
    vision,
)
from gguf_forge.architectures.renames import ends
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError

_SOUND = "audio_encoder.dots_encoder.speech_encoder."
# What llama.cpp's graphs take for granted: config key -> the values that it may have.
_OF_PICTURES: dict[str, tuple[object, ...]] = {
    "adapter_type": ("patch_merger",),
    "pre_pixel_shuffle": (True,),
    "router_scoring_func": (None, "sigmoid"),
    "router_scale": (None, 1.0),
    "temporal_patch_size": (None, 1),
    "use_bias": (None, False),
    "use_qk_norm": (True,),
}
_OF_SOUND: dict[str, tuple[object, ...]] = {
    "use_conv2d_stem": (True,),
    "use_rope": (True,),
    "use_rms_norm": (True,),
    "use_causal": (None, False),
    "merge_factor": (None, 1),
    "chunk_seconds": (60,),
}
_ROPE = {"partial_rotary_factor": (0.5,), "rope_theta": (10000.0,)}


def _prepared(site: Site) -> Config:
    pictures, sound = vision(site), audio(site)
    whisper = sound.part("whisper_config")
    pictures.check_known(_OF_PICTURES)
    sound.check_known(_OF_SOUND)
    whisper.check_known({"activation_function": ("swiglu",)})
    sound.part("rope_parameters").check_known(_ROPE)
    return site.config.updated(
        # `hidden_size` is the width of the language model there, and a picture keeps its size
        vision_config={**pictures, "hidden_size": pictures.integer("embed_dim"), "image_size": 0},
        audio_config={
            **sound,
            "hidden_size": whisper.integer("d_model"),
            "intermediate_size": whisper.integer("encoder_ffn_dim"),
            "num_attention_heads": whisper.integer("encoder_attention_heads"),
            "num_hidden_layers": whisper.integer("encoder_layers"),
        },
    )


def _of_pictures(key: str) -> Callable[[Site], object]:
    """A value from the preprocessor's part for pictures, or else from the whole of it."""
    return lambda site: {**preprocessor(site), **preprocessor(site).part("vision_config")}.get(key)


def _experts(site: Site) -> list[int]:
    """The number of experts of each layer. A layer with none is dense, which the config says with -1."""
    counts = vision(site).integers("pyramid_num_routed", minimum=-1, maximum=100_000)
    layers = vision(site).integer("num_hidden_layers")
    if len(counts) != layers:
        raise InputError(f"pyramid_num_routed is not a list of {layers} numbers", file="config.json")
    return [max(0, count) for count in counts]


def _experts_here(site: Site) -> int:
    counts, layer = _experts(site), site.layer or 0
    return counts[layer] if layer < len(counts) else 0


def _layer(site: Site) -> tuple[str, ...]:
    """The tensors of a layer; experts, where the layer has them, are in place of the dense part."""
    return tuple(role if "v.blk.{i}.ffn" not in role else f"{role}|{role}_exps" for role in usual_layer(site))


dots3_encoders = projector(
    "Dots3NoteForCausalLM",
    "Dots3NoteForConditionalGeneration",
    metadata=(
        *VISION_SIZES,
        f32("vision.image_mean", _of_pictures("image_mean")),
        f32("vision.image_std", _of_pictures("image_std")),
        *AUDIO,
        text("vision.projector_type", always("dots3note_v")),
        USE_SILU,
        norm_epsilon("rms_norm_eps"),
        u32("vision.spatial_merge_size", of_vision("spatial_merge_size")),
        u32("vision.image_min_pixels", _of_pictures("min_pixels")),
        u32("vision.image_max_pixels", _of_pictures("max_pixels")),
        u32("vision.expert_count_per_layer", _experts),
        u32("vision.expert_used_count", lambda site: int(vision(site).number("capacity_factor"))),
        text("audio.projector_type", always("dots3note_a")),
        u32("audio.num_mel_bins", lambda site: audio(site).part("whisper_config").integer("num_mel_bins")),
        f32("audio.attention.layer_norm_epsilon", always(1e-6)),
    ),
    prepare=_prepared,
    takes=lambda name: name.startswith(("vision_encoder.", "audio_encoder.")) and "language_model." not in name,
    renames=tuple(ends(name, f"{name}.weight") for name in (".gate_weight", ".router_bias")),
    rules=(
        *(
            Rule(
                (f"vision_encoder.blocks.{{i}}.mlp.experts.{{e}}.{word}.weight",),
                f"v.blk.{{i}}.ffn_{role}_exps.weight",
                stack,
                after="experts",
                count=_experts_here,
            )
            for word, role in (("fc1", "gate"), ("fc2", "down"), ("fc3", "up"))
        ),
        *(
            Rule((f"{_SOUND}layers.{{i}}.fc1.{kind}",), f"a.blk.{{i}}.ffn_{role}.{kind}", part_of(which, 2))
            for kind in ("weight", "bias")
            for which, role in enumerate(("gate", "up"))
        ),
    ),
    # scores of experts are often nearly the same
    forced_types={
        **dict.fromkeys(("v.blk.{i}.ffn_gate_inp", "v.blk.{i}.exp_probs_b", "a.conv2d.{i}", "a.conv_out"), as_f32),
        **PATCHES,
    },
    block_count=always(MOST_LAYERS),
    layer_tensors=_layer,
    model_tensors=("v.patch_embd", "a.conv2d.1"),
)
