"""Pixtral, the encoder of pictures of Mistral's models, also in Mistral's own form, and of LightOnOCR."""

from __future__ import annotations

import re

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Drop, Rule
from gguf_forge.architectures.metadata import f32, u32
from gguf_forge.architectures.operations import index, permute_rope
from gguf_forge.architectures.projector import (
    CLIP_DEVIATION,
    CLIP_MEAN,
    USE_SILU,
    VISION,
    VISION_SIZES,
    always,
    known_activation,
    norm_epsilon,
    of_model,
    of_vision,
    projector,
    projector_type,
    vision,
)
from gguf_forge.architectures.renames import Rename, starts
from gguf_forge.architectures.site import Site
from gguf_forge.checkpoint.mistral_form import PARAMS
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
_TENSORS = ("v.patch_embd", "mm.1", "mm.2")
_HEADS = permute_rope(lambda site: vision(site).integer("num_attention_heads"))
_BREAK = "[IMG_BREAK]"
_EMBEDDINGS = (
    "model.embed_tokens.weight",
    "language_model.model.embed_tokens.weight",
    "model.language_model.embed_tokens.weight",
)


def _is_pixtral(site: Site) -> Config:
    kind = vision(site).find("model_type")
    if kind != "pixtral":
        raise UnsupportedError(
            f"the encoder of pictures is a {kind!r:.40}, and only pixtral is known here", file="config.json"
        )
    return site.config


def _row_break(site: Site) -> int:
    """The token between two rows of a picture."""
    name = "tokenizer_config.json"
    decoder: object = read_json_object(site.folder, name).get("added_tokens_decoder") if site.folder.has(name) else None
    for number, token in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(token, dict) and token.get("content") == _BREAK and re.fullmatch("[0-9]{1,9}", number):
            return int(number)
    return _id_in(site, "tokenizer.json", "added_tokens", "content", "id")


def _id_in(site: Site, file: str, key: str, text: str, number: str) -> int:
    """The id of the token between rows, from a list of tokens in a file, under the file's words for text and id."""
    tokens: object = read_json_object(site.folder, file).get(key)
    for token in tokens if isinstance(tokens, list) else ():
        if isinstance(token, dict) and token.get(text) == _BREAK and type(token.get(number)) is int:
            return int(token[number])
    raise InputError(f"there is no token {_BREAK}", file=site.folder.path / file)


def _pixtral(
    *hf: str,
    name: str,
    renames: tuple[Rename, ...] = (),
    rules: tuple[Rule, ...] = (),
    drops: tuple[Drop, ...] = (),
) -> Architecture:
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
        drops=drops,
        operations={"v.blk.{i}.attn_q": _HEADS, "v.blk.{i}.attn_k": _HEADS},
        model_tensors=_TENSORS,
    )


pixtral_vision = _pixtral(
    "LlavaForConditionalGeneration",
    "Mistral3ForConditionalGeneration",
    name="pixtral",
    rules=tuple(Rule((name,), "v.token_embd.img_break", index(_row_break, -2)) for name in _EMBEDDINGS),
    # The reference finds no embeddings under these names. llama.cpp does not load its file, which lacks the token.
    drops=tuple(Drop(name, lambda site: "as_reference" in site.choices) for name in _EMBEDDINGS[1:]),
)

lighton_ocr_vision = _pixtral(
    "LightOnOCRForConditionalGeneration",
    name="lightonocr",
    renames=(
        starts("model.vision_encoder.", "vision_tower."),
        starts("model.vision_projection.", "multi_modal_projector."),
    ),
)


def _with_its_parts(site: Site) -> Config:
    """Mistral's parameters under the keys that transformers' configs have."""
    return site.config.updated(vision_config=site.config.find("vision_encoder"), hidden_size=site.config.find("dim"))


def _row_break_in_form(site: Site) -> int:
    """The token between two rows. Some checkpoints have -1 in its place, and the id only in the vocabulary."""
    number = vision(site).integer("image_break_token_id", minimum=-1)
    return number if number >= 0 else _id_in(site, "tekken.json", "special_tokens", "token_str", "rank")


def _merge_size(site: Site) -> object:
    of_patches = vision(site).find("mm_projector_id") == "patch_merge"
    return of_vision("spatial_merge_size")(site) if of_patches else None


pixtral_form_vision = projector(
    PARAMS,
    metadata=(
        *VISION_SIZES,
        f32("vision.image_mean", always(CLIP_MEAN)),
        f32("vision.image_std", always(CLIP_DEVIATION)),
        projector_type("pixtral"),
        f32("vision.attention.layer_norm_epsilon", of_model("norm_eps")),
        f32("rope.freq_base", of_vision("rope_theta")),
        USE_SILU,
        u32("vision.spatial_merge_size", _merge_size),
    ),
    read_config=Config.raw,
    prepare=_with_its_parts,
    takes=lambda name: name.startswith(_PARTS) or name == "tok_embeddings.weight",
    # llama.cpp takes the token with the id 0 as none
    drops=(Drop("tok_embeddings.weight", lambda site: _row_break_in_form(site) == 0),),
    rules=(Rule(("tok_embeddings.weight",), "v.token_embd.img_break", index(_row_break_in_form, -2)),),
    names={"vision_language_adapter.w_in": "mm.1", "vision_language_adapter.w_out": "mm.2"},
    model_tensors=_TENSORS,
)
