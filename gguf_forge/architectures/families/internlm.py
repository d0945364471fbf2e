"""InternLM 2 and 3."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.declaration import Architecture, Operation, Rule
from gguf_forge.architectures.families.llama import llama
from gguf_forge.architectures.metadata import DECODER
from gguf_forge.architectures.operations import chain, cut, permute_rope, reshape
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import internlm2 as internlm2_vocabulary
from gguf_forge.tokenizer import internlm3 as internlm3_vocabulary

_HEADS, _KEY_HEADS, _WIDTH = "num_attention_heads", "num_key_value_heads", "hidden_size"


def _head(site: Site) -> int:
    return site.config.integer(_WIDTH) // site.config.integer(_HEADS)


def _queries(site: Site) -> int:
    """The number of query rows that share a key head."""
    return site.config.integer(_HEADS) // site.config.integer(_KEY_HEADS) * _head(site)


def _keys_end(site: Site) -> int:
    return _queries(site) + _head(site)


def _part(*cutting: Operation) -> Operation:
    """Selects rows of each group, which has queries and then their key and value."""
    return chain(reshape(_KEY_HEADS, -1, _WIDTH), *cutting, reshape(-1, _WIDTH))


_QKV = ("model.layers.{i}.attention.wqkv.weight",)

internlm2 = Architecture(
    "internlm2",
    hf=("InternLM2ForCausalLM",),
    metadata=DECODER,
    tokenizer=internlm2_vocabulary,
    rules=(
        Rule(_QKV, "blk.{i}.attn_q.weight", chain(_part(cut(-2, 0, _queries)), permute_rope(_HEADS))),
        Rule(_QKV, "blk.{i}.attn_k.weight", chain(_part(cut(-2, _queries, _keys_end)), permute_rope(_KEY_HEADS))),
        Rule(_QKV, "blk.{i}.attn_v.weight", _part(cut(-2, _keys_end))),
    ),
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)

internlm3 = llama.derive(
    "llama",
    hf=("InternLM3ForCausalLM",),
    tokenizer=internlm3_vocabulary,
    takes=lambda name: not name.startswith(("mlp", "vision_model")),
)
