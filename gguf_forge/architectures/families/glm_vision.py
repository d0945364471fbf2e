"""The encoders of pictures of GLM-4.1V to GLM-5.3, which are Qwen3-VL's with another projector."""

from __future__ import annotations

from math import prod

from gguf_forge.architectures.declaration import MetadataLine
from gguf_forge.architectures.families.qwen_vision import FRAMES, QWEN3_CONFIG, qwen3_vision
from gguf_forge.architectures.metadata import f32, file_type, u32
from gguf_forge.architectures.projector import (
    ACTIVATION,
    VISION,
    norm_epsilon,
    of_vision,
    preprocessor,
    projector,
    projector_type,
)
from gguf_forge.architectures.renames import starts
from gguf_forge.architectures.site import Site

_SHAPE = (
    *ACTIVATION,
    norm_epsilon("rms_norm_eps", default=1e-5),
)

glm4_vision = projector(
    "Glm4vForConditionalGeneration",
    "Glm4vMoeForConditionalGeneration",
    "GlmOcrForConditionalGeneration",
    metadata=(*VISION, projector_type("glm4v"), *_SHAPE),
    prepare=QWEN3_CONFIG,
    takes=qwen3_vision.takes,
    renames=(starts("model."),),
    rules=FRAMES,
    model_tensors=("v.patch_embd",),
)


def _pixels(key: str) -> MetadataLine:
    """The number of pixels of one frame that a number of tokens stands for."""

    def pixels(site: Site) -> int | None:
        prepared = preprocessor(site)
        if prepared.find(key) is None:
            return None
        sides = [prepared.integer(side) if side in prepared else usual for side, usual in _SIDES.items()]
        return prepared.integer(key) * prod(sides) ** 2

    return u32(f"vision.image_{key.split('_')[0]}_pixels", pixels)


_SIDES = {"patch_size": 14, "merge_size": 2}

glm5_vision = glm4_vision.derive(
    "clip",
    hf=("Glm5NextForConditionalGeneration",),
    metadata=(
        file_type,
        *VISION,
        projector_type("glm5v"),
        *_SHAPE,
        u32("vision.spatial_merge_size", of_vision("spatial_merge_size", default=2)),
        f32("vision.swiglu_clamp", of_vision("swiglu_limit", default=None)),
        _pixels("min_image_tokens"),
        _pixels("max_image_tokens"),
    ),
)
