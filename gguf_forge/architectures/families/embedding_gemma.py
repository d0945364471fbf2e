"""EmbeddingGemma: the body of Gemma 3, which sees both ways."""

from __future__ import annotations

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.families.gemma import gemma3
from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.pooling import POOLING
from gguf_forge.architectures.renames import BODY_NAMES
from gguf_forge.architectures.site import Site
from gguf_forge.storage.json_file import read_json_object


def _sliding_window(site: Site) -> int:
    """As config.json has it: its class halves it for a model that sees both ways, and llama.cpp does so by itself."""
    return Config(read_json_object(site.folder / "config.json")).integer("sliding_window")


embedding_gemma = gemma3.derive(
    "gemma-embedding",
    hf=("Gemma3TextModel",),
    metadata=(*gemma3.metadata, u32("attention.sliding_window", _sliding_window), *POOLING),
    hf_names=BODY_NAMES,
)
