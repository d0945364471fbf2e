"""Llama 4: experts in some layers at regular intervals, stored stacked and transposed."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Rule
from gguf_forge.architectures.families.llama import llama
from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.operations import chain, half, transpose
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe

_EXPERTS = "model.layers.{i}.feed_forward.experts."


def _dense_size(site: Site) -> Config:
    """The config with the dense layers' size under the usual key, which Llama 4 uses for the experts' size."""
    config = site.config
    return config.updated(
        intermediate_size=config.integer("intermediate_size_mlp"), expert_size=config.integer("intermediate_size")
    )


def _has_experts(site: Site) -> bool:
    step = site.config.integer("interleave_moe_layer_step", minimum=0)
    return step > 0 and site.layer is not None and (site.layer + 1) % step == 0


def _no_window(site: Site) -> int | None:
    """0 if all layers have full attention, as in MobileLLM; otherwise None."""
    types = site.config.find("layer_types")
    return 0 if isinstance(types, list) and all(kind == "full_attention" for kind in types) else None


llama4 = llama.derive(
    "llama4",
    hf=("Llama4ForConditionalGeneration", "Llama4ForCausalLM"),
    metadata=(
        *llama.metadata,
        u32("interleave_moe_layer_step", "interleave_moe_layer_step"),
        u32("expert_feed_forward_length", "expert_size"),
        u32("attention.sliding_window", _no_window),
    ),
    tokenizer=bpe,
    prepare=_dense_size,
    # The graph rotates heads in the order of the checkpoint, so their rows are not permuted.
    operations={},
    rules=(
        Rule((_EXPERTS + "down_proj",), "blk.{i}.ffn_down_exps.weight", transpose),
        Rule((_EXPERTS + "gate_up_proj",), "blk.{i}.ffn_gate_exps.weight", chain(transpose, half(0))),
        Rule((_EXPERTS + "gate_up_proj",), "blk.{i}.ffn_up_exps.weight", chain(transpose, half(1))),
    ),
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *(EXPERTS if _has_experts(site) else GATED)),
)
