"""GPT-OSS, with its experts in MXFP4 or in bfloat16."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.metadata import DECODER, u32
from gguf_forge.architectures.operations import chain, every_second, keep, transpose
from gguf_forge.tokenizer import bpe

_EXPERTS = "model.layers.{i}.mlp.experts."

gpt_oss = Architecture(
    "gpt-oss",
    hf=("GptOssForCausalLM",),
    metadata=(
        *DECODER,
        u32("attention.sliding_window", "sliding_window"),
        u32("expert_feed_forward_length", "intermediate_size"),
    ),
    tokenizer=bpe,
    # gate and up are interleaved row by row
    rules=(
        Rule((_EXPERTS + "down_proj",), "blk.{i}.ffn_down_exps.weight", transpose),
        Rule((_EXPERTS + "gate_up_proj",), "blk.{i}.ffn_gate_exps.weight", chain(transpose, every_second(0, -2))),
        Rule((_EXPERTS + "gate_up_proj",), "blk.{i}.ffn_up_exps.weight", chain(transpose, every_second(1, -2))),
        Rule((_EXPERTS + "down_proj_bias",), "blk.{i}.ffn_down_exps.bias", keep),
        Rule((_EXPERTS + "gate_up_proj_bias",), "blk.{i}.ffn_gate_exps.bias", every_second(0, -1)),
        Rule((_EXPERTS + "gate_up_proj_bias",), "blk.{i}.ffn_up_exps.bias", every_second(1, -1)),
    ),
    names={"model.layers.{i}.self_attn.sinks": "blk.{i}.attn_sinks.weight"},
    layer_tensors=lambda site: (*ATTENTION, "attn_sinks", *EXPERTS),
)
