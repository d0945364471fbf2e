"""The encoder of pictures of CogVLM."""

from __future__ import annotations

from gguf_forge.architectures.projector import VISION, norm_epsilon, projector, projector_type

cogvlm_vision = projector(
    "CogVLMForCausalLM",
    metadata=(*VISION, norm_epsilon("layer_norm_eps", default=1e-6), projector_type("cogvlm")),
    takes=lambda name: name.startswith("model.vision."),
    model_tensors=("v.patch_embd",),
)
