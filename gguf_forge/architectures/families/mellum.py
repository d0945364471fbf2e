"""Mellum 2: experts, and layers that attend within a window."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, SLIDING_PATTERN, Lines, u32
from gguf_forge.architectures.operations import MLP_EXPERTS
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe


def _window(site: Site) -> Lines:
    """The window and the layers that have it, unless the config switches it off."""
    if site.config.find("use_sliding_window") in (True, None) and site.config.find("sliding_window") is not None:
        yield from u32("attention.sliding_window", "sliding_window")(site)
        yield from SLIDING_PATTERN(site)


mellum = Architecture(
    "mellum",
    hf=("MellumForCausalLM",),
    metadata=(*DECODER, u32("expert_feed_forward_length", "moe_intermediate_size"), _window),
    tokenizer=bpe,
    rules=MLP_EXPERTS,
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *EXPERTS),
)
