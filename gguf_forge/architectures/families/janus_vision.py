"""The encoder of pictures of Janus-Pro."""

from __future__ import annotations

from gguf_forge.architectures.projector import (
    ACTIVATION,
    VISION,
    norm_epsilon,
    projector,
    projector_type,
    vision,
    with_vision,
)
from gguf_forge.architectures.renames import starts
from gguf_forge.architectures.site import Site

_MOST_LAYERS = 8


def _inner(site: Site) -> object:
    found = vision(site)
    if "intermediate_size" in found:
        return found["intermediate_size"]
    return round(found.integer("hidden_size") * found.number("mlp_ratio"))


janus_vision = projector(
    "JanusForConditionalGeneration",
    metadata=(*VISION, projector_type("janus_pro"), norm_epsilon("layer_norm_eps", default=1e-6), *ACTIVATION),
    prepare=with_vision(intermediate_size=_inner),
    takes=lambda name: name.removeprefix("model.").startswith(("aligner.", "vision_model.")),
    renames=(
        starts("aligner.", "model.aligner."),
        starts("vision_model.", "model.vision_model."),
        starts("model.aligner.fc1.", "mm.0."),
        *(starts(f"model.aligner.hidden_layers.{layer}.", f"mm.{layer + 1}.") for layer in range(_MOST_LAYERS)),
    ),
    model_tensors=("v.patch_embd", "mm.0"),
)
