"""Nomic's BERT with rotary positions: nomic-embed-text v1 and v1.5, and v2 with experts."""

from __future__ import annotations

from collections.abc import Mapping

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Drop, Rule
from gguf_forge.architectures.families.bert import ENCODER, ENCODER_LAYER, ENCODER_SHAPES, bert
from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.operations import chain, of_width, reshape, transpose
from gguf_forge.architectures.shapes import hidden, inner, n_expert
from gguf_forge.architectures.site import Site
from gguf_forge.errors import UnsupportedError
from gguf_forge.tokenizer import either, has_model_type, nomic_bert_moe, wordpiece, xlm_roberta

# Values that llama.cpp's graph assumes.
_GRAPH: Mapping[str, object] = {
    "causal": False,
    "prenorm": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
}
_DENSE_GRAPH = {**_GRAPH, "activation_function": "swiglu"}
_EXPERT_GRAPH = {**_GRAPH, "activation_function": "gelu"}
_BIASES = ("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias")
# Positions in config.json -> positions that the model was trained for. v1 and v1.5 claim more than they support.
_TRAINED_POSITIONS = {8192: 2048, 2048: 512}


def _checked(config: Config, wanted: Mapping[str, object]) -> Config:
    """The config of a model that llama.cpp's graph fits, with the positions that it was trained for."""
    odd = next((key for key, value in wanted.items() if config.find(key) != value), None)
    if odd is not None:
        raise UnsupportedError(
            f"{odd} is {config.find(odd)!r:.40}; llama.cpp runs such a model with {wanted[odd]!r} only",
            file="config.json",
        )
    positions = config.integer("n_positions")
    if positions not in _TRAINED_POSITIONS or config.find("max_trained_positions") not in (None, 2048):
        raise UnsupportedError(f"n_positions {positions} is of no model that Nomic published", file="config.json")
    return config.updated(n_positions=_TRAINED_POSITIONS[positions])


nomic_bert = bert.derive(
    "nomic-bert",
    hf=("NomicBertModel",),
    metadata=ENCODER,
    tokenizer=either(has_model_type("Unigram"), xlm_roberta, wordpiece),
    prepare=lambda site: _checked(site.config, {**_DENSE_GRAPH, **dict.fromkeys(_BIASES, False)}),
    rules=(),
    shapes={**ENCODER_SHAPES, "ffn_gate": (inner, hidden)},
    model_tensors=("token_embd", "token_embd_norm"),
    layer_tensors=lambda site: (*ENCODER_LAYER, "ffn_gate"),
)

_EXPERTS = "encoder.layers.{i}.mlp.experts.mlp"
_STACKED = chain(of_width("n_embd"), reshape(n_expert, "n_inner", "n_embd"))


def _has_experts(site: Site) -> bool:
    """Whether the layer has experts, which is so for the second layer of every `moe_every_n_layers`."""
    return (site.layer or 0) % site.config.integer("moe_every_n_layers") == 1


def _expert_layer(site: Site) -> tuple[str, ...]:
    parts = ("ffn_up", "ffn_down")
    experts = ("ffn_gate_inp", *(f"{part}_exps" for part in parts))
    return (*(role for role in ENCODER_LAYER if role not in parts), *(experts if _has_experts(site) else parts))


nomic_bert_experts = nomic_bert.derive(
    "nomic-bert-moe",
    when=lambda config: bool(config.find("moe_every_n_layers")),
    metadata=(
        *ENCODER,
        u32("moe_every_n_layers", "moe_every_n_layers"),
        u32("expert_used_count", "moe_top_k"),
    ),
    tokenizer=either(has_model_type("Unigram"), nomic_bert_moe, wordpiece),
    prepare=lambda site: _checked(site.config, {**_EXPERT_GRAPH, **dict.fromkeys(_BIASES, True)}),
    rules=(
        Rule((f"{_EXPERTS}.w1",), "blk.{i}.ffn_up_exps.weight", _STACKED),
        Rule((f"{_EXPERTS}.w2",), "blk.{i}.ffn_down_exps.weight", chain(_STACKED, transpose)),
    ),
    # llama.cpp's graph has no place for it
    drops=(Drop("encoder.layers.{i}.mlp.experts.bias"), *bert.drops),
    shapes={**ENCODER_SHAPES, "ffn_gate_inp": (n_expert, hidden)},
    layer_tensors=_expert_layer,
)
