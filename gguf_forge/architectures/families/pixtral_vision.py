"""Pixtral, the encoder of pictures of Mistral's models and of LightOnOCR."""

from __future__ import annotations

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.operations import index, permute_rope
from gguf_forge.architectures.projector import (
    VISION,
    known_activation,
    norm_epsilon,
    of_model,
    projector,
    projector_type,
    vision,
)
from gguf_forge.architectures.renames import Rename, starts
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.storage.json_file import read_json_object

_PARTS = (
    "multi_modal_projector.",
    "vision_tower.",
    "vision_encoder.",
    "vision_language_adapter.",
    "patch_merger.",
    "pre_mm_projector_norm",
)
_HEADS = permute_rope(lambda site: vision(site).integer("num_attention_heads"))
_BREAK = "[IMG_BREAK]"


def _is_pixtral(site: Site) -> Config:
    kind = vision(site).find("model_type")
    if kind != "pixtral":
        raise UnsupportedError(
            f"the encoder of pictures is a {kind!r:.40}, and only pixtral is known here", file="config.json"
        )
    return site.config


def _row_break(site: Site) -> int:
    """The token between two rows of a picture."""
    for token in read_json_object(site.folder, "tokenizer.json").get("added_tokens", ()):
        if isinstance(token, dict) and token.get("content") == _BREAK and type(token.get("id")) is int:
            return int(token["id"])
    raise InputError(f"there is no token {_BREAK}", file=site.folder.path / "tokenizer.json")


def _pixtral(*hf: str, name: str, renames: tuple[Rename, ...] = (), rules: tuple[Rule, ...] = ()) -> Architecture:
    own = (*_PARTS, *(rename.old for rename in renames if hasattr(rename, "old")))
    embeddings = tuple(template for rule in rules for template in rule.sources)
    return projector(
        *hf,
        metadata=(
            *VISION,
            projector_type(name),
            # This number is transformers' default, because config.json may lack it.
            norm_epsilon("layer_norm_eps", default=1e-5),
            known_activation("gelu"),
            u32("vision.spatial_merge_size", of_model("spatial_merge_size", default=None)),
        ),
        prepare=_is_pixtral,
        takes=lambda name: name.startswith(own) or name in embeddings,
        renames=renames,
        rules=rules,
        operations={"v.blk.{i}.attn_q": _HEADS, "v.blk.{i}.attn_k": _HEADS},
        model_tensors=("v.patch_embd", "mm.1", "mm.2"),
    )


pixtral_vision = _pixtral(
    "LlavaForConditionalGeneration",
    "Mistral3ForConditionalGeneration",
    name="pixtral",
    rules=(Rule(("model.embed_tokens.weight",), "v.token_embd.img_break", index(_row_break, -2)),),
)

lighton_ocr_vision = _pixtral(
    "LightOnOCRForConditionalGeneration",
    name="lightonocr",
    renames=(
        starts("model.vision_encoder.", "vision_tower."),
        starts("model.vision_projection.", "multi_modal_projector."),
    ),
)
