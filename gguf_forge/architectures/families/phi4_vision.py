"""The encoder of pictures of Phi-4: SigLIP 2 without its last layer."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

from gguf_forge.architectures.declaration import Drop
from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.projector import (
    BLOCKS,
    USE_GELU,
    VISION,
    colour_planes,
    norm_epsilon,
    preprocessor,
    projector,
    projector_type,
    vision,
    with_vision,
)
from gguf_forge.architectures.renames import starts
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError

_PARTS = ("vision_tower.", "model.vision_tower.vision_tower.", "model.mm_projector.", "mm_projector.")
_UNUSED = (".vision_model.head.", ".vision_model.post_layernorm.")
_POSITIONS = "vision_model.embeddings.position_embedding.weight"


def _patch(site: Site) -> int:
    return preprocessor(site).integer("patch_size")


def _image_size(site: Site) -> int:
    """The side in pixels of the square picture whose patches have learned positions."""
    told = site.keys.get("clip.vision.image_size")
    if told is not None and isinstance(told.data, int):
        return told.data
    shape = next((expr.shape for name, expr in site.tensors.items() if name.endswith(_POSITIONS)), (0,))
    side = isqrt(shape[0])
    if not side or side * side != shape[0]:
        raise InputError(f"has shape {shape}, which is not that of a square's patches", tensor=_POSITIONS)
    return side * _patch(site)


def _pixels(key: str) -> Callable[[Site], int]:
    def pixels(site: Site) -> int:
        found = preprocessor(site)
        return (found if key in found else site.config).integer(key, minimum=0) * _patch(site) ** 2

    return pixels


phi4_vision = projector(
    "Phi4ForCausalLMV",
    metadata=(
        *VISION,
        projector_type("phi4"),
        u32("vision.image_min_pixels", _pixels("min_num_patches")),
        u32("vision.image_max_pixels", _pixels("max_num_patches")),
        USE_GELU,
        norm_epsilon("layer_norm_eps", default=1e-6),
    ),
    prepare=with_vision(
        n_layers=lambda site: vision(site).integer(*BLOCKS, minimum=2) - 1, patch_size=_patch, image_size=_image_size
    ),
    takes=lambda name: (
        name.startswith(_PARTS) and "language_model." not in name and not any(part in name for part in _UNUSED)
    ),
    renames=(
        starts("model.vision_tower.vision_tower.", "vision_tower."),
        starts("model.mm_projector.", "mm."),
        starts("mm_projector.", "mm."),
    ),
    drops=(Drop("vision_tower.vision_model.encoder.layers.{i}.*", when=lambda site: site.layer == site.block_count),),
    operations={"v.patch_embd": colour_planes(_patch)},
    model_tensors=("v.patch_embd", "mm.0", "mm.2"),
)
