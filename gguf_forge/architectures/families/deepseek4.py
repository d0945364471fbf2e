"""DeepSeek V4: compressed and sparse attention, hyper-connections, and layers that choose experts by token id.

Checkpoints use the names of DeepSeek's own code. Tensors in FP4 keep their bits, and every other matrix keeps its
stored precision.
"""

from __future__ import annotations

from gguf_forge.architectures.appended_layers import CHOICES, NEXTN, counted_layers, is_appended
from gguf_forge.architectures.completeness import EXPERTS, HYPER
from gguf_forge.architectures.declaration import Architecture, Drop, Rule
from gguf_forge.architectures.families.deepseek32 import INDEXER_METADATA
from gguf_forge.architectures.metadata import DECODER, HYPER_CONNECTIONS, SHARED_AND_SCALED, f32, text, u32
from gguf_forge.architectures.operations import NUMBERED, as_i32, concat, stack
from gguf_forge.architectures.parts import is_text
from gguf_forge.architectures.renames import Appended, starts
from gguf_forge.architectures.site import Site
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tokenizer import bpe
from gguf_forge.tokenizer.chat_template import bundled_template
from gguf_forge.types.tensor_type import BF16, F32, TensorType

_Q8_0 = TensorType.named("Q8_0")
LAYER, BLK = "model.layers.{i}.", "blk.{i}."


def _template(site: Site) -> str:
    """The template of the first release, or of the second, whose folders have its date in their name."""
    return bundled_template("deepseek-v4-flash-0731" if "0731" in site.folder.name else "deepseek-v4")


def _mtp_only(site: Site) -> bool:
    return "mtp_only" in site.choices


def _left_out(site: Site) -> bool:
    """Whether to leave out the site's layer. Layers that predict further tokens are always in a file of their own."""
    return is_appended(site) != _mtp_only(site)


def _block_count(site: Site) -> int:
    return site.config.block_count + (counted_layers(site) if _mtp_only(site) else 0)


def _is_hashed(site: Site) -> bool:
    return (site.layer or 0) < site.config.integer("num_hash_layers", minimum=0)


def _clamps(site: Site) -> list[float]:
    return [site.config.number("swiglu_limit")] * site.block_count


def _kept_type(expr: TensorExpr) -> TensorType | None:
    """The type of a tensor that was stored in FP8: the nearest type of ggml."""
    if isinstance(expr, Scaled):
        return _Q8_0
    return expr.dtype if expr.dtype in (BF16, F32) else None


HEAD = ("fn", "base", "scale")
_COMPRESSOR = {
    "wkv.weight": "kv.weight",
    "wgate.weight": "gate.weight",
    "ape": "ape.weight",
    "norm.weight": "norm.weight",
}
OF_LAYER = {
    **{name: f"{name}.weight" for name in HYPER},
    "attn_norm.weight": "attn_norm.weight",
    "ffn_norm.weight": "ffn_norm.weight",
    "attn.attn_sink": "attn_sinks.weight",
    "attn.wq_a.weight": "attn_q_a.weight",
    "attn.wq_b.weight": "attn_q_b.weight",
    "attn.q_norm.weight": "attn_q_a_norm.weight",
    "attn.wkv.weight": "attn_kv.weight",
    "attn.kv_norm.weight": "attn_kv_a_norm.weight",
    "attn.wo_a.weight": "attn_output_a.weight",
    "attn.wo_b.weight": "attn_output_b.weight",
    **{f"attn.compressor.{name}": f"attn_compressor_{role}" for name, role in _COMPRESSOR.items()},
    "attn.indexer.wq_b.weight": "indexer.attn_q_b.weight",
    "attn.indexer.weights_proj.weight": "indexer.proj.weight",
    **{f"attn.indexer.compressor.{name}": f"indexer_compressor_{role}" for name, role in _COMPRESSOR.items()},
    "ffn.gate.weight": "ffn_gate_inp.weight",
    "ffn.gate.bias": "exp_probs_b.bias",
    "ffn.gate.bias_vl": "exp_probs_b_vl.bias",
    "ffn.shared_experts.w1.weight": "ffn_gate_shexp.weight",
    "ffn.shared_experts.w2.weight": "ffn_down_shexp.weight",
    "ffn.shared_experts.w3.weight": "ffn_up_shexp.weight",
    "enorm.weight": "nextn.enorm.weight",
    "hnorm.weight": "nextn.hnorm.weight",
    "norm.weight": "nextn.shared_head_norm.weight",
}


def _layer(site: Site) -> tuple[str, ...]:
    if _left_out(site):
        return ()
    return (
        *("attn_norm", "attn_q_a", "attn_q_a_norm", "attn_q_b", "attn_kv", "attn_kv_a_norm", "attn_sinks"),
        *("attn_output_a", "attn_output_b", "ffn_norm", *EXPERTS, *HYPER),
        *("ffn_gate_shexp", "ffn_down_shexp", "ffn_up_shexp"),
        *(("ffn_gate_tid2eid",) if _is_hashed(site) else ()),
        *(NEXTN if is_appended(site) else ()),
    )


deepseek4 = Architecture(
    "deepseek4",
    hf=("DeepseekV4ForCausalLM",),
    takes=lambda name: is_text(name) and not name.startswith(("aligner.", "image_")),
    # The checkpoints have no chat template.
    early=(text("tokenizer.chat_template", _template),),
    metadata=(
        *DECODER,
        u32("rope.dimension_count", "qk_rope_head_dim"),
        u32("attention.q_lora_rank", "q_lora_rank"),
        u32("attention.sliding_window", "sliding_window"),
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        *SHARED_AND_SCALED,
        f32("swiglu_clamp_exp", _clamps),
        f32("swiglu_clamp_shexp", _clamps),
        *INDEXER_METADATA,
        u32("attention.output_group_count", "o_groups"),
        u32("attention.output_lora_rank", "o_lora_rank"),
        u32("attention.compress_ratios", "compress_ratios"),
        f32("attention.compress_rope_freq_base", "compress_rope_theta"),
        *HYPER_CONNECTIONS,
        u32("hash_layer_count", "num_hash_layers"),
        u32("embedding_length_out", lambda site: site.config.integer("hidden_size") * site.config.integer("hc_mult")),
        u32("nextn_predict_layers", lambda site: counted_layers(site) or None if _mtp_only(site) else None),
    ),
    tokenizer=bpe,
    renames=(Appended("mtp.{i}."), starts("layers.", "model.layers.")),
    names={
        "embed.weight": "token_embd.weight",
        "norm.weight": "output_norm.weight",
        "head.weight": "output.weight",
        **{f"hc_head_{name}": f"output_hc_{name}.weight" for name in HEAD},
        # A layer that predicts further tokens has its own head, which is the only one in its file.
        **{f"{LAYER}hc_head_{name}": f"output_hc_{name}.weight" for name in HEAD},
        **{LAYER + name: BLK + role for name, role in OF_LAYER.items()},
    },
    rules=(
        Rule((f"{LAYER}ffn.gate.tid2eid",), f"{BLK}ffn_gate_tid2eid.weight", as_i32, when=_is_hashed, first=1),
        *(
            Rule((f"{LAYER}ffn.experts.{{e}}.{name}.weight",), f"{BLK}{role}.weight", stack, first=2)
            for name, role in NUMBERED
        ),
        Rule(
            (f"{LAYER}e_proj.weight", f"{LAYER}h_proj.weight"),
            f"{BLK}nextn.eh_proj.weight",
            concat(-1),
            first=3,
            forced_type=lambda base: _Q8_0,
        ),
    ),
    drops=(
        # Layers that choose experts by token id have this bias but do not use it.
        Drop(f"{LAYER}ffn.gate.bias", when=lambda site: _left_out(site) or _is_hashed(site)),
        Drop(f"{LAYER}*", when=_left_out),
        *(Drop(f"hc_head_{name}", when=_mtp_only) for name in HEAD),
    ),
    block_count=_block_count,
    kept_type=_kept_type,
    choices=CHOICES,
    shapes={},
    layer_tensors=_layer,
)
