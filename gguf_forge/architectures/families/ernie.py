"""ERNIE 4.5, dense and with experts, and the language model of PaddleOCR-VL."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture, Drop, Operation, Rule
from gguf_forge.architectures.metadata import DECODER, u32
from gguf_forge.architectures.operations import GATE_UP_DOWN, cut, experts, half, keep
from gguf_forge.architectures.renames import WRAPPERS, starts
from gguf_forge.architectures.shapes import keys, queries
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import configured_space_prefix, in_order, sentencepiece


def _queries_and_keys(site: Site) -> int:
    return queries(site) + keys(site)


def _all(site: Site) -> int:
    return queries(site) + 2 * keys(site)


_QKV = ("model.layers.{i}.self_attn.qkv_proj.weight",)
_UP_GATE = ("model.layers.{i}.mlp.up_gate_proj.weight",)


def _rules(*parts: tuple[tuple[str], str, Operation]) -> tuple[Rule, ...]:
    return tuple(Rule(source, f"blk.{{i}}.{role}.weight", operation) for source, role, operation in parts)


ernie45 = Architecture(
    "ernie4_5",
    hf=("Ernie4_5_ForCausalLM", "Ernie4_5ForCausalLM"),
    metadata=DECODER,
    tokenizer=in_order(sentencepiece, configured_space_prefix),
    renames=(*WRAPPERS, starts("ernie.", "model.", put_back=False)),
    # Some checkpoints store queries, keys and values as one matrix, and gate and up as another.
    rules=_rules(
        *(((f"model.layers.{{i}}.self_attn.{part}_proj.weight",), f"attn_{part}", keep) for part in "qkv"),
        *(((f"model.layers.{{i}}.mlp.{part}_proj.weight",), f"ffn_{part}", keep) for part in ("gate", "up")),
        (_QKV, "attn_q", cut(-2, 0, queries)),
        (_QKV, "attn_k", cut(-2, queries, _queries_and_keys)),
        (_QKV, "attn_v", cut(-2, _queries_and_keys, _all)),
        (_UP_GATE, "ffn_gate", half(0)),
        (_UP_GATE, "ffn_up", half(1)),
    ),
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)

paddle_ocr = ernie45.derive("paddleocr", hf=("PaddleOCRVLForConditionalGeneration",))


def _shared_length(site: Site) -> int | None:
    """The value in llama.cpp's own files. The shared experts are as wide as their tensors show."""
    shared, inner = site.config.find("moe_num_shared_experts"), site.config.find("intermediate_size")
    if not shared or inner is None or not site.config.find("num_key_value_heads"):
        return None
    return site.config.integer("intermediate_size", minimum=0) // site.config.integer("num_key_value_heads")


def _is_dense(site: Site) -> bool:
    return (site.layer or 0) < site.config.integer("moe_layer_start_index", minimum=0)


ernie45_moe = ernie45.derive(
    "ernie4_5-moe",
    hf=("Ernie4_5_MoeForCausalLM",),
    metadata=(
        *DECODER,
        u32("expert_count", "moe_num_experts"),
        u32("expert_used_count", "moe_k"),
        u32("interleave_moe_layer_step", "moe_layer_interval"),
        u32("leading_dense_block_count", "moe_layer_start_index"),
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        u32("expert_shared_count", "moe_num_shared_experts"),
        u32("expert_shared_feed_forward_length", _shared_length),
    ),
    rules=experts("model.layers.{i}.mlp.experts.{e}", *GATE_UP_DOWN),
    drops=tuple(
        Drop(f"model.{name}.{{i}}.*") for name in ("mtp_block", "mtp_emb_norm", "mtp_hidden_norm", "mtp_linear_proj")
    ),
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *(GATED if _is_dense(site) else EXPERTS)),
)
