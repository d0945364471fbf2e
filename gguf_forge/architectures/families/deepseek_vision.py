"""The encoder of pictures of DeepSeek-V4-Flash-Vision."""

from __future__ import annotations

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Rule
from gguf_forge.architectures.metadata import f32, u32
from gguf_forge.architectures.operations import part_of, reshape
from gguf_forge.architectures.projector import (
    USE_SILU,
    VISION_SIZES,
    always,
    normalization,
    of_vision,
    projector,
    projector_type,
    vision,
)
from gguf_forge.architectures.site import Site
from gguf_forge.errors import UnsupportedError

_HALF = [0.5, 0.5, 0.5]
# What the loader takes for granted.
_FIXED = {"vision_max_n_token": 384, "vision_max_wh_ratio": 8}


def _vision_config(site: Site) -> Config:
    """The encoder's config stands between the language model's values."""
    config = site.config
    for key, value in _FIXED.items():
        if config.find(key) != value:
            raise UnsupportedError(f"{key} is {config.find(key)!r:.40}; only {value} is known", file="config.json")
    patch, ratio = config.integer("vision_patch_size"), config.integer("vision_downsample_ratio")
    found = {
        "num_hidden_layers": config.integer("vision_n_layers"),
        "hidden_size": config.integer("vision_dim"),
        "num_attention_heads": config.integer("vision_n_heads"),
        "intermediate_size": config.integer("vision_inter_dim"),
        "patch_size": patch,
        # pictures have any size
        "image_size": patch * ratio * 16,
        "downsample_ratio": ratio,
        "min_pixels": config.integer("vision_min_pixels"),
    }
    return config.updated(vision_config=found)


deepseek4_vision = projector(
    "DeepseekV4ForCausalLM",
    metadata=(
        *VISION_SIZES,
        *normalization(_HALF, _HALF),
        projector_type("deepseek4v"),
        f32("vision.attention.layer_norm_epsilon", always(1e-6)),
        USE_SILU,
        u32("vision.projector.scale_factor", of_vision("downsample_ratio")),
        u32("vision.image_min_pixels", of_vision("min_pixels")),
    ),
    prepare=_vision_config,
    takes=lambda name: name.startswith(("vision.", "aligner.", "image_")),
    rules=(
        Rule(
            ("vision.patch_embed.proj.weight",),
            "v.patch_embd.weight",
            reshape(
                -1, 3, lambda site: vision(site).integer("patch_size"), lambda site: vision(site).integer("patch_size")
            ),
        ),
        *(
            Rule((f"vision.blocks.{{i}}.mlp.w1.{kind}",), f"v.blk.{{i}}.ffn_{role}.{kind}", part_of(which, 2))
            for kind in ("weight", "bias")
            for which, role in enumerate(("gate", "up"))
        ),
    ),
    model_tensors=("v.patch_embd",),
)
