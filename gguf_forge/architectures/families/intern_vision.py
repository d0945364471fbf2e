"""InternViT, the encoder of pictures of InternVL and Intern-S1."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.families.qwen_vision import split_qkv
from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.projector import (
    VISION,
    known_activation,
    norm_epsilon,
    of_vision,
    projector,
    projector_type,
    with_vision,
)
from gguf_forge.architectures.renames import ends, starts
from gguf_forge.architectures.site import Site

_PARTS = ("vision_model", "mlp", "model.vision_tower", "model.multi_modal_projector")
_BARE = ("ls1", "ls2", "lambda_1", "lambda_2", "position_embedding", "position_embeddings")
_PROJECTOR = {"layer_norm": 0, "linear_1": 1, "linear_2": 3}


def _first(key: str) -> Callable[[Site], object]:
    """The side of a square. The config has it once, or twice as height and width."""

    def side(site: Site) -> object:
        found = of_vision(key)(site)
        return found[0] if isinstance(found, list) and found else found

    return side


def _tiles(key: str) -> Callable[[Site], object]:
    return lambda site: site.config.integer(key, minimum=0) or None if key in site.config else None


intern_vision = projector(
    "InternVisionModel",
    metadata=(
        *VISION,
        projector_type("internvl"),
        norm_epsilon("layer_norm_eps"),
        known_activation("gelu"),
        u32("vision.projector.scale_factor", lambda site: int(1.0 / site.config.number("downsample_ratio"))),
        u32("vision.preproc_min_tiles", _tiles("min_dynamic_patch")),
        u32("vision.preproc_max_tiles", _tiles("max_dynamic_patch")),
    ),
    prepare=with_vision(image_size=_first("image_size"), patch_size=_first("patch_size")),
    takes=lambda name: name.startswith(_PARTS) and "language_model." not in name,
    renames=(
        *(starts(f"model.multi_modal_projector.{part}.", f"mlp1.{number}.") for part, number in _PROJECTOR.items()),
        starts("vision_model", "vision_tower.vision_model"),
        *(ends(f".{part}", f".{part}.weight") for part in _BARE),
    ),
    rules=split_qkv("vision_tower.vision_model.encoder.layers.{i}.attn.qkv"),
    model_tensors=("v.patch_embd", "mm.model.mlp.1", "mm.model.mlp.3"),
)
