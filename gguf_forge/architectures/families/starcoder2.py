"""StarCoder 2."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, DENSE
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER
from gguf_forge.tokenizer import bpe

starcoder2 = Architecture(
    "starcoder2",
    hf=("Starcoder2ForCausalLM",),
    metadata=DECODER,
    tokenizer=bpe,
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *DENSE),
)
