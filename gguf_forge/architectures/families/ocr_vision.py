"""The encoders of pictures of models that read documents: dots.ocr, PaddleOCR-VL, HunyuanOCR."""

from __future__ import annotations

from math import isqrt

from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.operations import skip_rows
from gguf_forge.architectures.projector import (
    MAX_PIXELS,
    MIN_PIXELS,
    PATCHES,
    USE_GELU,
    USE_SILU,
    VISION,
    always,
    as_base,
    norm_epsilon,
    of_vision,
    preprocessor,
    projector,
    projector_type,
    with_vision,
)
from gguf_forge.architectures.renames import starts

dots_ocr_vision = projector(
    "DotsOCRForCausalLM",
    metadata=(
        *VISION,
        projector_type("dots_ocr"),
        MIN_PIXELS,
        MAX_PIXELS,
        norm_epsilon("rms_norm_eps"),
        u32("vision.projector.scale_factor", of_vision("spatial_merge_size")),
        USE_SILU,
    ),
    # a picture keeps its size
    prepare=with_vision(image_size=always(0)),
    takes=lambda name: name.startswith("vision_tower."),
    names={
        f"vision_tower.blocks.{{i}}.mlp.fc{number}": f"v.blk.{{i}}.ffn_{role}"
        for number, role in ((1, "gate"), (2, "down"), (3, "up"))
    },
    model_tensors=("v.patch_embd", "mm.0", "mm.2"),
)

paddle_ocr_vision = projector(
    "PaddleOCRVisionModel",
    metadata=(
        *VISION,
        projector_type("paddleocr"),
        MAX_PIXELS,
        MIN_PIXELS,
        USE_GELU,
        norm_epsilon("rms_norm_eps", default=1e-6),
    ),
    prepare=with_vision(image_size=lambda site: isqrt(preprocessor(site).integer("max_pixels"))),
    takes=lambda name: (
        ("vision_model" in name or "mlp_AR" in name)
        and not any(part in name for part in ("packing_position_embedding", "vision_model.head", "language_model."))
    ),
    renames=(starts("visual.", "model."),),
    model_tensors=("v.patch_embd",),
)

hunyuan_vision = projector(
    "HunYuanVLForConditionalGeneration",
    metadata=(
        *VISION,
        projector_type("hunyuanvl"),
        USE_GELU,
        norm_epsilon("rms_norm_eps", default=1e-5),
        u32("vision.spatial_merge_size", of_vision("spatial_merge_size", default=2)),
        MIN_PIXELS,
        MAX_PIXELS,
    ),
    prepare=with_vision(image_size=of_vision("image_size", "max_image_size", default=2048)),
    takes=lambda name: name.startswith("vit."),
    # the first position is that of a class, which llama.cpp has no use for
    operations={"v.position_embd": skip_rows(1)},
    forced_types={**PATCHES, "mm.{i}": as_base},
    model_tensors=("v.patch_embd",),
)
