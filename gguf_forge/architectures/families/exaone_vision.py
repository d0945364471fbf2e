"""The encoder of pictures of EXAONE 4.5: Qwen2-VL's, with fewer keys than queries."""

from __future__ import annotations

from gguf_forge.architectures.families.qwen_vision import FRAMES, QWEN2_CONFIG, window_pattern
from gguf_forge.architectures.metadata import f32, u32
from gguf_forge.architectures.projector import (
    MAX_PIXELS,
    MIN_PIXELS,
    USE_SILU,
    VISION,
    of_model,
    of_vision,
    projector,
    projector_type,
    vision,
    where,
)
from gguf_forge.architectures.renames import starts

exaone_vision = projector(
    "Exaone4_5_ForConditionalGeneration",
    metadata=(
        *VISION,
        projector_type("exaone4_5"),
        USE_SILU,
        MIN_PIXELS,
        MAX_PIXELS,
        u32("vision.attention.head_count_kv", of_vision("num_key_value_heads", default=None)),
        f32(
            "vision.attention.layer_norm_epsilon",
            lambda site: of_vision("rms_norm_eps", default=of_model("rms_norm_eps", default=1e-6)(site))(site),
        ),
        u32("vision.window_size", of_vision("window_size", default=None)),
        where(
            lambda site: bool(vision(site).find("fullatt_block_indexes")), u32("vision.n_wa_pattern", window_pattern)
        ),
    ),
    prepare=QWEN2_CONFIG,
    takes=lambda name: name.startswith(("visual.", "model.visual.")),
    renames=(starts("model."),),
    rules=FRAMES,
    model_tensors=("v.patch_embd", "mm.0", "mm.2"),
)
