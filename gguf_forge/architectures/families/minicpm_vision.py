"""The encoder of pictures of MiniCPM-V 4.6."""

from __future__ import annotations

from gguf_forge.architectures.declaration import Drop
from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.projector import (
    USE_GELU,
    VISION,
    norm_epsilon,
    of_model,
    of_preprocessor,
    of_vision,
    preprocessor,
    projector,
    projector_type,
    with_vision,
)
from gguf_forge.architectures.site import Site
from gguf_forge.errors import UnsupportedError

_FACTORS = {"4x": 2, "16x": 4}


def _factor(site: Site) -> int:
    """The number of patches per side that become one token."""
    mode = of_preprocessor("downsample_mode", default="16x")(site)
    if not isinstance(mode, str) or mode not in _FACTORS:
        raise UnsupportedError(f"downsample_mode is {mode!r:.40}, not 4x or 16x", file="preprocessor_config.json")
    return _FACTORS[mode]


minicpm_vision = projector(
    "MiniCPMV4_6ForConditionalGeneration",
    metadata=(
        *VISION,
        projector_type("minicpmv4_6"),
        u32("vision.projector.scale_factor", _factor),
        # where patches are merged inside the encoder
        u32(
            "vision.wa_layer_indexes",
            lambda site: [of_model("insert_layer_id", default=of_vision("insert_layer_id", default=6)(site))(site)],
        ),
        USE_GELU,
        norm_epsilon("layer_norm_eps", default=1e-6),
    ),
    # the size of a slice, where the config has that of the learned positions
    prepare=with_vision(
        image_size=lambda site: preprocessor(site).find("scale_resolution") or of_vision("image_size")(site)
    ),
    takes=lambda name: not name.startswith(("lm_head.", "mtp")) and "language_model." not in name,
    drops=(Drop("model.vision_tower.vit_merger.*", when=lambda site: _factor(site) == _FACTORS["4x"]),),
    model_tensors=("v.patch_embd",),
)
