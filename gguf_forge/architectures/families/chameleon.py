"""Chameleon's language model, which reads images as tokens; their encoder has no place in a GGUF file yet."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.declaration import Architecture, Drop, Operation
from gguf_forge.architectures.families.llama import HEADS, KEY_HEADS
from gguf_forge.architectures.metadata import DECODER, flag
from gguf_forge.architectures.operations import Number, chain, first_of_equal, permute_rope, reorder, repeat
from gguf_forge.tokenizer import bpe


def _head_norm(heads: Number) -> Operation:
    """Repeats the first head's norm for every head, with its halves interleaved like the rows of the queries.

    Each checkpoint has the same numbers for all heads. Source: the script in transformers that made these checkpoints.
    """
    return chain(first_of_equal(-2), reorder(-1, (2, -1), (1, 0), "its halves interleaved"), repeat(-2, heads))


chameleon = Architecture(
    "chameleon",
    hf=("ChameleonForConditionalGeneration", "ChameleonForCausalLM"),
    metadata=(*DECODER, flag("swin_norm", lambda site: site.config.find("swin_norm") or False)),
    tokenizer=bpe,
    operations={
        "attn_q": permute_rope(HEADS),
        "attn_k": permute_rope(KEY_HEADS),
        "attn_q_norm": _head_norm(HEADS),
        "attn_k_norm": _head_norm(KEY_HEADS),
    },
    drops=(Drop("model.vqmodel.*"),),
    layer_tensors=lambda site: (*ATTENTION, "attn_q_norm", "attn_k_norm", "ffn_norm", *GATED),
)
