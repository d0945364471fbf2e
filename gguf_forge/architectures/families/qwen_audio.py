"""The encoders of sound of Qwen2.5-Omni, Qwen3-Omni and Qwen3-ASR, in the first two beside those of pictures."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Rule
from gguf_forge.architectures.families.qwen_vision import (
    FRAMES,
    QWEN2_CONFIG,
    QWEN2_RULES,
    QWEN2_SHAPE,
    QWEN3_CONFIG,
    QWEN3_RENAMES,
    QWEN3_SHAPE,
)
from gguf_forge.architectures.families.whisper_audio import CONV1D_BIASES, WHISPER, WHISPER_CONFIG
from gguf_forge.architectures.metadata import text
from gguf_forge.architectures.operations import chain, unsqueeze
from gguf_forge.architectures.projector import (
    AUDIO,
    MOST_LAYERS,
    PATCHES,
    VISION,
    always,
    as_f16,
    audio,
    one_after_the_other,
    projector,
)
from gguf_forge.architectures.renames import inside, starts
from gguf_forge.architectures.sinusoids import sinusoids
from gguf_forge.architectures.site import Site

_MOST_CHANNELS = 8192
_POSITIONS = 1500


def _of_thinker(site: Site) -> Config:
    """The config with the encoders' configs from its part `thinker_config`, where the language model's also is."""
    thinker = site.config.needed_part("thinker_config")
    parts = {key: thinker.find(key) for key in ("vision_config", "audio_config")}
    return site.config.updated(**parts)


def _positions(site: Site) -> Iterable[tuple[str, NDArray[np.float32]]]:
    channels = audio(site).integer("hidden_size", minimum=4, maximum=_MOST_CHANNELS)
    yield "a.position_embd.weight", sinusoids(_POSITIONS, channels)


_AUDIO_TYPES = {"a.conv1d.{i}": as_f16, "a.conv2d.{i}": as_f16, "a.conv_out": as_f16}

qwen25_omni = projector(
    "Qwen2_5OmniModel",
    metadata=(*VISION, *AUDIO, *WHISPER, *QWEN2_SHAPE),
    prepare=one_after_the_other(_of_thinker, QWEN2_CONFIG, WHISPER_CONFIG),
    takes=lambda name: (
        name.removeprefix("thinker.").startswith(("visual.", "audio_tower."))
        # transformers does not use it either
        and "audio_bos_eos_token" not in name
    ),
    renames=(starts("thinker."),),
    rules=(*QWEN2_RULES, *CONV1D_BIASES),
    generated=_positions,
    forced_types={**_AUDIO_TYPES, **PATCHES},
    block_count=always(MOST_LAYERS),
    model_tensors=("v.patch_embd", "a.conv1d.1"),
)

_CONV2D_BIASES = tuple(
    Rule((f"audio_tower.conv2d{number}.bias",), f"a.conv2d.{number}.bias", chain(unsqueeze(-1), unsqueeze(-1)))
    for number in (1, 2, 3)
)
_SOUND = ("audio_tower.", "thinker.audio_tower.")
_PICTURES = ("visual.", "model.visual.", "thinker.visual.")

qwen3_omni = projector(
    "Qwen3OmniMoeForConditionalGeneration",
    metadata=(
        *VISION,
        *AUDIO,
        *WHISPER,
        *QWEN3_SHAPE,
        text("vision.projector_type", always("qwen3vl_merger")),
        text("audio.projector_type", always("qwen3a")),
    ),
    prepare=one_after_the_other(_of_thinker, QWEN3_CONFIG, WHISPER_CONFIG),
    takes=lambda name: name.startswith((*_SOUND, *_PICTURES)),
    renames=(
        starts("thinker."),
        starts("model."),
        inside(".merger_list.", ".deepstack_merger_list."),
        inside(".ln_q.", ".norm."),
        inside(".mlp.0.", ".linear_fc1."),
        inside(".mlp.2.", ".linear_fc2."),
        *QWEN3_RENAMES,
    ),
    rules=(*FRAMES, *_CONV2D_BIASES),
    generated=_positions,
    forced_types={**_AUDIO_TYPES, **PATCHES},
    block_count=always(MOST_LAYERS),
    model_tensors=("v.patch_embd", "mm.0", "mm.2", "a.conv2d.1"),
)

qwen3_asr = projector(
    "Qwen3ASRForConditionalGeneration",
    metadata=(*AUDIO, *WHISPER, text("audio.projector_type", always("qwen3a"))),
    prepare=one_after_the_other(_of_thinker, WHISPER_CONFIG),
    takes=lambda name: name.startswith(_SOUND),
    renames=(starts("thinker."),),
    rules=_CONV2D_BIASES,
    generated=_positions,
    forced_types=_AUDIO_TYPES,
    model_tensors=("a.conv2d.1", "mm.a.mlp.1", "mm.a.mlp.2"),
)
