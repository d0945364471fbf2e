"""MiniMax: Text-01 and M1 with linear attention between layers of attention, M2, and M3 with sparse attention."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.metadata import DECODER, Lines, f32, flag, u32
from gguf_forge.architectures.operations import NUMBERED, add, experts, keep
from gguf_forge.architectures.site import Site
from gguf_forge.errors import UnsupportedError
from gguf_forge.gguf_file import values
from gguf_forge.gguf_file.values import ValueType
from gguf_forge.tokenizer import base_vocabulary_size, bpe, in_order, own_chat_template
from gguf_forge.types.tensor_type import F32

_MOE = "model.layers.{i}.block_sparse_moe."
_OUT = "model.layers.{i}.self_attn.o_proj.weight"
_EXPERTS = experts(_MOE + "experts.{e}", *NUMBERED)

# The parts of a layer whose output and input are scaled before they are added. Their names are in the config keys.
_SUMMED = ("full_attention", "linear_attention", "mlp")


def _suppressed(site: Site) -> Lines:
    """The tokens that must never be sampled, because their embeddings, after those of the vocabulary, are zeros."""
    if not site.tensors:
        return
    known = base_vocabulary_size(site.folder)
    found = site.zero_rows("model.embed_tokens.weight", known) if known is not None else []
    if found:
        yield "tokenizer.ggml.suppress_tokens", values.array(ValueType.INT32, found)


def _attends_to_all(site: Site) -> bool:
    kinds, layer = site.config.find("attn_type_list"), site.layer or 0
    return isinstance(kinds, list) and layer < len(kinds) and kinds[layer] == 1


def _residual_scale(site: Site) -> float:
    scales = {site.config.number(f"layernorm_{part}_alpha") for part in _SUMMED}
    others = {site.config.number(f"layernorm_{part}_beta") for part in _SUMMED}
    if len(scales) > 1 or others != {1.0}:
        raise UnsupportedError("llama.cpp knows one layernorm alpha for all parts, and a beta of 1", file="config.json")
    return scales.pop()


minimax_01 = Architecture(
    "minimax-01",
    hf=("MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM"),
    metadata=(
        *DECODER,
        _suppressed,
        f32("residual_scale", _residual_scale),
        u32("rope.dimension_count", "rotary_dim"),
    ),
    tokenizer=in_order(bpe, own_chat_template("minimax-m1")),
    rules=(
        *_EXPERTS,
        # In layers of linear attention, the last module is called `out_proj`.
        Rule((_OUT,), "blk.{i}.attn_output.weight", keep, when=_attends_to_all),
    ),
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *EXPERTS),
)

minimax_m2 = Architecture(
    "minimax-m2",
    hf=("MiniMaxM2ForCausalLM",),
    metadata=(
        *DECODER,
        u32("expert_feed_forward_length", "intermediate_size"),
        u32("rope.dimension_count", "rotary_dim"),
    ),
    tokenizer=bpe,
    rules=_EXPERTS,
    layer_tensors=lambda site: (*ATTENTION, "attn_q_norm", "attn_k_norm", "ffn_norm", *EXPERTS),
)


def _with_experts(site: Site) -> list[bool]:
    return [each != 0 for each in site.config.by_layer("moe_layer_freq")]


def _dense_layers(site: Site) -> int:
    """The number of layers before the first one with experts."""
    return (*_with_experts(site), True).index(True)


def _sparse(key: str) -> Callable[[Site], object]:
    return lambda site: site.config.part("sparse_attention_config")[key]


def _block(site: Site) -> tuple[str, ...]:
    return (*EXPERTS, "exp_probs_b") if _with_experts(site)[site.layer or 0] else GATED


minimax_m3 = minimax_m2.derive(
    "minimax-m3",
    hf=("MiniMaxM3SparseForCausalLM", "MiniMaxM3SparseForConditionalGeneration"),
    metadata=(
        *minimax_m2.metadata,
        u32("expert_shared_count", "n_shared_experts"),
        f32("expert_weights_scale", "routed_scaling_factor"),
        flag("expert_weights_norm", lambda site: True),
        u32("attention.indexer.head_count", _sparse("sparse_num_index_heads")),
        u32("attention.indexer.key_length", _sparse("sparse_index_dim")),
        u32("attention.indexer.top_k", _sparse("sparse_topk_blocks")),
        u32("attention.indexer.block_size", _sparse("sparse_block_size")),
        u32("attention.indexer.local_blocks", _sparse("sparse_local_block")),
        u32("leading_dense_block_count", _dense_layers),
    ),
    # norms multiply by 1 + weight
    operations={"*norm": add(1)},
    forced_types={"indexer.*": lambda base: F32},
    layer_tensors=lambda site: (*ATTENTION, "attn_q_norm", "attn_k_norm", "ffn_norm", *_block(site)),
)
