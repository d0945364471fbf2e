"""Decides by its name which part of the model a checkpoint tensor belongs to."""

from __future__ import annotations

from gguf_forge.architectures.declaration import Architecture

# Names of tensors that belong to encoders, projectors and speech parts. The file of a language model leaves them out.
# Source: the filter of the reference's text models, conversion/base.py.
_NOT_TEXT_PREFIXES = (
    "mlp",
    "vit.",
    "vpm.",
    "siglip2.",
    "conformer.",
    "merger.",
    "resampler.",
    "sound_encoder.",
    "sound_projection.",
    "speech_embeddings.",
)
_NOT_TEXT_INSIDE = (
    "visual.",
    "vision.",
    "audio.",
    "talker.",
    "vision_",
    "audio_",
    "token2wav.",
    "code2wav.",
    "projector.",
    "pre_mm_projector_norm",
    "image_newline",
    "view_seperator",  # spelled as checkpoints spell it
    "patch_embed",
    "patch_merger.",
    "patch_merge_mlp.",
    "model.connector.",
)


def is_text(name: str) -> bool:
    """Whether a checkpoint tensor belongs to the language model.

    Example:
        >>> is_text("model.layers.0.mlp.up_proj.weight"), is_text("model.visual.blocks.0.norm1.weight")
        (True, False)
    """
    return not name.startswith(_NOT_TEXT_PREFIXES) and not any(part in name for part in _NOT_TEXT_INSIDE)


def is_projector(name: str) -> bool:
    """Whether a checkpoint tensor belongs to the encoders or the projector."""
    return "language_model." not in name


_USUAL = {"text": is_text, "mmproj": is_projector}


def belongs_to(architecture: Architecture, name: str) -> bool:
    """Whether a checkpoint tensor belongs to the part of the model that a declaration is for."""
    return (architecture.takes or _USUAL[architecture.part])(name)
