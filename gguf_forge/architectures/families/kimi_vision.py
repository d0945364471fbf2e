"""MoonViT, the encoder of pictures of Kimi-VL, Kimi-K2.5 and GLM-5.2-Vision."""

from __future__ import annotations

from gguf_forge.architectures.declaration import Operation, Rule
from gguf_forge.architectures.families.qwen_vision import split_qkv
from gguf_forge.architectures.metadata import flag, u32
from gguf_forge.architectures.operations import chain, concat, each_of, flatten, part_of, reorder
from gguf_forge.architectures.projector import (
    USE_GELU,
    VISION,
    always,
    norm_epsilon,
    of_vision,
    preprocessor,
    projector,
    projector_type,
    vision,
    with_vision,
)
from gguf_forge.architectures.renames import starts
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError

kimi_vl_vision = projector(
    "KimiVLForConditionalGeneration",
    metadata=(
        *VISION,
        projector_type("kimivl"),
        USE_GELU,
        u32("vision.projector.scale_factor", always(2)),
        norm_epsilon("layer_norm_eps", default=1e-5),
    ),
    prepare=with_vision(image_size=always(64 * 14)),
    takes=lambda name: "language_model." not in name and ("vision_tower" in name or "multi_modal_projector" in name),
    operations={"v.position_embd": flatten},
    rules=split_qkv("vision_tower.encoder.blocks.{i}.wqkv"),
    model_tensors=("v.patch_embd",),
)

_HEADS = "num_attention_heads"


def _quarters(axis: int) -> Operation:
    """Rotary rows of two axes of a picture from interleaved pairs to halves, for queries and keys."""

    def parts(site: Site) -> tuple[int, int]:
        found = vision(site)
        heads = found.integer(_HEADS) if _HEADS in found else 16
        return heads, _width(site) // heads // 4

    turned = reorder(
        axis,
        (lambda site: parts(site)[0], lambda site: parts(site)[1], 2, 2),
        (0, 2, 1, 3),
        "rows permuted for rotary embedding along two axes",
    )
    return each_of(chain(part_of(0, 3), turned), chain(part_of(1, 3), turned), part_of(2, 3), then=concat(axis))


def _width(site: Site) -> int:
    return vision(site).integer("hidden_size", "width", "vt_hidden_size")


def _patch(site: Site) -> int:
    found = vision(site)
    return found.integer("patch_size") if "patch_size" in found else 14


def _merged(site: Site) -> int:
    """How many patches a side become one token."""
    size = of_vision("merge_kernel_size", default=[2, 2])(site)
    if not isinstance(size, list) or not size or type(size[0]) is not int:
        raise InputError(f"merge_kernel_size is {size!r:.40}, not a list of numbers", file="config.json")
    return int(size[0])


def _most_pixels(site: Site) -> int:
    found = preprocessor(site)
    return (found.integer("in_patch_limit") if "in_patch_limit" in found else 16384) * _patch(site) ** 2


kimi_k25_vision = projector(
    "KimiK25ForConditionalGeneration",
    metadata=(
        *VISION,
        projector_type("kimik25"),
        # llama.cpp's converter writes these without the architecture
        u32("vision.pos_emb_height", of_vision("init_pos_emb_height", default=64)),
        u32("vision.pos_emb_width", of_vision("init_pos_emb_width", default=64)),
        u32("vision.pos_emb_time", of_vision("init_pos_emb_time", default=4)),
        flag("use_gelu", lambda site: of_vision("projector_hidden_act", default="gelu")(site) == "gelu"),
        norm_epsilon("projector_ln_eps", default=1e-5),
        u32("vision.projector.scale_factor", _merged),
        u32("vision.image_min_pixels", lambda site: 8 * _patch(site) ** 2),
        u32("vision.image_max_pixels", _most_pixels),
    ),
    prepare=with_vision(image_size=lambda site: vision(site).integer("init_pos_emb_height", default=64) * _patch(site)),
    takes=lambda name: "language_model." not in name and ("vision_tower" in name or "mm_projector" in name),
    renames=(
        starts("mm_projector.proj.0.", "mm_projector.proj.linear_1."),
        starts("mm_projector.proj.2.", "mm_projector.proj.linear_2."),
    ),
    rules=tuple(
        Rule((f"vision_tower.encoder.blocks.{{i}}.wqkv.{kind}",), f"v.blk.{{i}}.attn_qkv.{kind}", _quarters(axis))
        for kind, axis in (("weight", -2), ("bias", -1))
    ),
    model_tensors=("v.patch_embd",),
)

glm5v_vision = kimi_k25_vision.derive(
    "clip",
    hf=("Glm5vForConditionalGeneration",),
    renames=(*kimi_k25_vision.renames, starts("mm_projector.linear_", "mm_projector.proj.linear_")),
)
