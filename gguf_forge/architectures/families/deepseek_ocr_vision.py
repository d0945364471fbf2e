"""The encoders of pictures of DeepSeek-OCR, DeepSeek-OCR 2 and Unlimited-OCR: SAM, and CLIP or Qwen2 behind it."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Any

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.operations import unsqueeze
from gguf_forge.architectures.projector import (
    PATCHES,
    USE_GELU,
    VISION,
    always,
    as_f32,
    norm_epsilon,
    of_vision,
    preprocessor,
    projector,
    projector_type,
    vision,
)
from gguf_forge.architectures.renames import ends
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError

_LANGUAGE = ("lm_head.", "model.embed_tokens.", "model.layers.", "model.norm.")
# What the code of DeepSeek-OCR 2 has, where its config does not say it.
_QWEN2 = {"patch_size": 16, "intermediate_size": 4864, "num_attention_heads": 14, "layers": 24}
# The scale that llama.cpp assumes where the file has none.
_USUAL_SCALE = 4


def _widths(site: Site) -> Config:
    """The configs of the encoders by their names, which stand where other configs have the width."""
    found = vision(site).part("width")
    if "sam_vit_b" not in found:
        raise InputError("vision_config.width does not describe sam_vit_b", file="config.json")
    return found


def _with_clip(site: Site) -> Config:
    widths, found = _widths(site), dict(vision(site))
    found |= widths.part("clip-l-14-224")
    if isinstance(found["width"], int):
        found["hidden_size"] = found["width"]
    if found.get("heads") is not None:
        heads = Config(found).integer("heads")
        found |= {"num_heads": heads, "intermediate_size": heads * 4}
    return site.config.updated(vision_config={**found, "sam": widths.part("sam_vit_b")})


def _with_qwen2(site: Site) -> Config:
    width = _widths(site).part("qwen2-0-5b").integer("dim")
    config = _with_clip(site)
    found = {key: value for key, value in config.part("vision_config").items() if value is not None}
    return config.updated(vision_config={**_QWEN2, **found, "hidden_size": width})


def _of_sam(key: str) -> Callable[[Site], int]:
    return lambda site: vision(site).part("sam").integer(key)


def _scale(site: Site) -> int | None:
    """How many patches of SAM's one token stands for, along a side."""
    length = preprocessor(site).integer("image_seq_length", default=256)
    sides = vision(site).integer("image_size") // vision(site).integer("patch_size")
    scale = sides // isqrt(length)
    return None if scale in (0, _USUAL_SCALE) else scale


def _ocr(*hf: str, kind: str, most_tiles: int, **changes: Any) -> Architecture:
    return projector(
        *hf,
        metadata=(
            *VISION,
            projector_type(kind),
            norm_epsilon("layer_norm_eps", default=1e-6),
            USE_GELU,
            u32("vision.projector.scale_factor", _scale),
            u32("vision.window_size", of_vision("window_size", default=14)),
            u32("vision.preproc_min_tiles", always(2)),
            u32("vision.preproc_max_tiles", always(most_tiles)),
            u32("vision.sam.block_count", _of_sam("layers")),
            u32("vision.sam.embedding_length", _of_sam("width")),
            u32("vision.sam.head_count", _of_sam("heads")),
            *((u32("vision.attention.head_count_kv", always(2)),) if kind == "deepseekocr2" else ()),
        ),
        takes=lambda name: not name.startswith(_LANGUAGE) and "language_model." not in name,
        renames=tuple(ends(name, f"{name}.weight") for name in ("pos_embed", "rel_pos_h", "rel_pos_w")),
        operations={"v.view_seperator": unsqueeze(0)},
        forced_types={
            **dict.fromkeys(("v.class_embd", "v.patch_embd", "v.position_embd"), as_f32),
            **dict.fromkeys(("v.sam.pos_embd", "v.sam.blk.{i}.attn.pos_?", "v.sam.neck.{i}", "v.sam.net_?"), as_f32),
            **PATCHES,
        },
        model_tensors=("v.sam.patch_embd", "v.sam.net_3", "mm.model.fc"),
        **changes,
    )


deepseek_ocr_vision = _ocr("DeepseekOCRForCausalLM", kind="deepseekocr", most_tiles=9, prepare=_with_clip)
unlimited_ocr_vision = _ocr("UnlimitedOCRForCausalLM", kind="deepseekocr", most_tiles=32, prepare=_with_clip)
deepseek_ocr2_vision = _ocr("DeepseekOCR2ForCausalLM", kind="deepseekocr2", most_tiles=6, prepare=_with_qwen2)
