"""BERT and related models with learned positions: CamemBERT, DistilBERT, RoBERTa, XLM-RoBERTa."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Drop, Rule
from gguf_forge.architectures.metadata import DECODER, f32, flag, text
from gguf_forge.architectures.operations import keep, skip_rows
from gguf_forge.architectures.pooling import POOLING
from gguf_forge.architectures.renames import WRAPPERS, ends, starts
from gguf_forge.architectures.shapes import Size, hidden, inner
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tokenizer import bpe, first_of, in_order, token_type_count, wordpiece, xlm_roberta

# The tensors in a layer of an encoder that normalizes after attention and after the feed-forward part.
ENCODER_LAYER = (
    *(f"attn_{name}|attn_qkv" for name in "qkv"),
    *("attn_output", "attn_output_norm", "ffn_up", "ffn_down", "layer_output_norm"),
)
ENCODER_SHAPES: Mapping[str, tuple[Size, ...]] = {
    "token_embd": (None, hidden),
    "token_types": (None, hidden),
    "position_embd": (None, hidden),
    **{f"attn_{name}": (hidden, hidden) for name in ("q", "k", "v", "output")},
    "attn_qkv": (lambda site: 3 * hidden(site), hidden),
    "ffn_up": (inner, hidden),
    "ffn_down": (hidden, inner),
    "cls": (None, hidden),
    "cls.output": (None, hidden),
}


def _labels(site: Site) -> list[str] | None:
    """The class names of a classification head; None if there are none, or only the default of two unnamed classes."""
    named = site.config.find("id2label")
    if not named:
        return None
    if not isinstance(named, dict) or not all(isinstance(label, str) for label in named.values()):
        raise InputError("id2label is not an object that names classes", file="config.json")
    try:
        labels = [label for _, label in sorted((int(number), label) for number, label in named.items())]
    except ValueError:
        raise InputError("id2label has keys that are no numbers", file="config.json") from None
    return None if len(labels) == 2 and labels[0] == "LABEL_0" else labels


ENCODER = (
    *DECODER,
    flag("attention.causal", lambda site: False),
    *POOLING,
    text("classifier.output_labels", _labels),
)

# The last layer of a classification head in models with this name. In RoBERTa it is `classifier.out_proj`.
CLASSIFIER = tuple(Rule((f"classifier.{suffix}",), f"cls.output.{suffix}", keep) for suffix in ("weight", "bias"))
NO_HEAD = (
    Drop("embeddings.position_ids"),
    Drop("pooler.dense.*"),
    Drop("cls.predictions.*"),
    Drop("cls.seq_relationship.*"),
)
OLD_NAMES = (starts("bert."), ends(".gamma", ".weight", put_back=False), ends(".beta", ".bias", put_back=False))

bert = Architecture(
    "bert",
    hf=("BertModel", "BertForMaskedLM", "BertForSequenceClassification", "CamembertModel"),
    metadata=ENCODER,
    tokenizer=wordpiece,
    renames=(*OLD_NAMES, *WRAPPERS),
    rules=tuple(replace(rule, when=lambda site: _labels(site) is not None) for rule in CLASSIFIER),
    drops=NO_HEAD,
    shapes=ENCODER_SHAPES,
    model_tensors=("token_embd", "position_embd", "token_embd_norm"),
    layer_tensors=lambda site: ENCODER_LAYER,
)

distilbert = bert.derive(
    "bert",
    hf=("DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification"),
    metadata=(f32("attention.layer_norm_epsilon", lambda site: 1e-12), *ENCODER),
    renames=(starts("distilbert."), *bert.renames),
    rules=CLASSIFIER,
    drops=(*(Drop(f"vocab_{name}.*") for name in ("transform", "layer_norm", "projector")), *NO_HEAD),
)


def _first_position(site: Site) -> int:
    """Removes RoBERTa's unused first rows. Its positions begin after the id of the padding token."""
    padding = site.config.find("pad_token_id")
    return 0 if padding is None else 1 + site.config.integer("pad_token_id", minimum=0)


def used_positions(site: Site) -> Config:
    """The config with the number of positions that a text can really have."""
    if "max_position_embeddings" not in site.config:
        return site.config
    first = _first_position(site)
    positions = site.config.integer("max_position_embeddings", minimum=first + 1)
    return site.config.updated(max_position_embeddings=positions - first)


roberta = bert.derive(
    "bert",
    hf=("RobertaModel", "RobertaForSequenceClassification"),
    tokenizer=first_of(in_order(bpe, token_type_count), wordpiece),
    renames=(starts("roberta."), *bert.renames),
    operations={"position_embd": skip_rows(_first_position)},
    prepare=used_positions,
)

xlm_roberta_encoder = roberta.derive(
    "bert",
    hf=("XLMRobertaModel", "XLMRobertaForSequenceClassification"),
    tokenizer=xlm_roberta,
)
