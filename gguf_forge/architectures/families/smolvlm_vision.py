"""SmolVLM and Idefics 3: SigLIP, whose patches are shuffled to fewer and longer ones."""

from __future__ import annotations

from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.projector import (
    USE_GELU,
    VISION,
    as_f32,
    norm_epsilon,
    of_model,
    of_vision,
    preprocessor,
    projector,
    projector_type,
    with_vision,
)
from gguf_forge.architectures.site import Site


def _longest_edge(site: Site) -> object:
    """The size of a picture before it is cut into tiles."""
    size = preprocessor(site).find("size")
    usual = of_vision("image_size")(site)
    return size.get("longest_edge", usual) if isinstance(size, dict) else usual


smolvlm_vision = projector(
    "Idefics3ForConditionalGeneration",
    "SmolVLMForConditionalGeneration",
    metadata=(
        *VISION,
        projector_type("idefics3"),
        norm_epsilon("layer_norm_eps", default=1e-5),
        u32("vision.projector.scale_factor", of_model("scale_factor", default=2)),
        USE_GELU,
        u32("vision.preproc_image_size", _longest_edge),
    ),
    # These are transformers' defaults, because config.json may lack the keys.
    prepare=with_vision(
        hidden_size=of_vision("hidden_size", default=1152),
        num_attention_heads=of_vision("num_attention_heads", default=16),
        intermediate_size=of_vision("intermediate_size", default=3072),
    ),
    takes=lambda name: (
        "language_model." not in name
        and any(part in name for part in ("vision_tower", "vision_model", "model.connector"))
    ),
    forced_types={"v.patch_embd": as_f32, "v.position_embd": as_f32},
    model_tensors=("v.patch_embd", "mm.model.fc"),
)
