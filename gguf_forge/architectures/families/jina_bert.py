"""Jina's second embeddings: BERT with linear biases in place of positions."""

from __future__ import annotations

from gguf_forge.architectures.families.bert import ENCODER_LAYER, ENCODER_SHAPES, bert
from gguf_forge.tokenizer import (
    bpe,
    either,
    fixed_token_type_count,
    has_pre_tokenizer,
    has_tokenizer_class,
    in_order,
    whitespace,
    wordpiece,
)

jina_bert_v2 = bert.derive(
    "jina-bert-v2",
    hf=("JinaBertModel", "JinaBertForMaskedLM"),
    tokenizer=either(
        has_tokenizer_class("RobertaTokenizer"),
        in_order(either(has_pre_tokenizer("Whitespace"), whitespace, bpe), fixed_token_type_count(2)),
        wordpiece,
    ),
    rules=(),
    hf_names=(
        *(f"encoder.layer.{{i}}.mlp.{name}" for name in ("gated_layers", "wo", "layernorm")),
        *bert.hf_names,
    ),
    # gate and up in one, or each by itself
    shapes={role: sizes for role, sizes in ENCODER_SHAPES.items() if role != "ffn_up"},
    model_tensors=("token_embd", "token_types", "token_embd_norm"),
    layer_tensors=lambda site: ENCODER_LAYER,
)
