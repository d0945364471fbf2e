"""Language models that fill in masked tokens: Dream, LLaDA and LLaDA with experts."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.families.llama import HEADS, KEY_HEADS
from gguf_forge.architectures.metadata import DECODER, flag, u32
from gguf_forge.architectures.operations import MLP_EXPERTS, permute_rope
from gguf_forge.architectures.pooling import POOLING
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import add_bos_token, bpe, bpe_as_marked, first_of, in_order, sentencepiece

_ALL_SEE_ALL = flag("attention.causal", lambda site: False)
_NO_SHIFT = flag("diffusion.shift_logits", lambda site: False)

dream = Architecture(
    "dream",
    hf=("DreamModel",),
    metadata=(
        *DECODER,
        *POOLING,
        _ALL_SEE_ALL,
        u32("tokenizer.ggml.mask_token_id", "mask_token_id"),
    ),
    tokenizer=first_of(sentencepiece, bpe_as_marked),
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)


def _head(site: Site) -> int:
    if site.config.find("head_dim") is not None:
        return site.config.integer("head_dim")
    return site.config.integer("hidden_size", "d_model") // site.config.integer("num_attention_heads", "n_heads")


llada = Architecture(
    "llada",
    hf=("LLaDAModelLM",),
    metadata=(
        *DECODER,
        *POOLING,
        u32("vocab_size", "vocab_size"),
        u32("rope.dimension_count", _head),
        u32("context_length", lambda site: site.config.get("max_sequence_length", 4096)),
        u32("embedding_length", lambda site: site.config.get("d_model", 4096)),
        u32("feed_forward_length", lambda site: site.config.get("mlp_hidden_size", 12288)),
        _ALL_SEE_ALL,
        _NO_SHIFT,
    ),
    tokenizer=in_order(bpe_as_marked, add_bos_token(True)),
    operations={"attn_q": permute_rope(HEADS), "attn_k": permute_rope(KEY_HEADS)},
    shapes={},
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)

llada_moe = Architecture(
    "llada-moe",
    hf=("LLaDAMoEModel", "LLaDAMoEModelLM"),
    metadata=(
        *DECODER,
        u32("expert_feed_forward_length", "expert_intermediate_size"),
        u32("tokenizer.ggml.mask_token_id", lambda site: 156895),
        _ALL_SEE_ALL,
        _NO_SHIFT,
    ),
    tokenizer=bpe,
    rules=MLP_EXPERTS,
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *EXPERTS),
)
