"""Encoders that normalize before attention and feed-forward: ModernBERT, NeoBERT, EuroBERT and Jina embeddings v5."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.declaration import Architecture, Drop
from gguf_forge.architectures.families.bert import CLASSIFIER, ENCODER, ENCODER_SHAPES, NO_HEAD, OLD_NAMES
from gguf_forge.architectures.metadata import DECODER, LAYER_NORM_EPSILON, Lines, f32, flag, text, u32
from gguf_forge.architectures.pooling import CLS, POOLING
from gguf_forge.architectures.renames import WRAPPERS, starts
from gguf_forge.architectures.shapes import hidden, inner
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import add_bos_token, add_eos_token, add_sep_token, bpe, in_order, wordpiece
from gguf_forge.wording import log_of

log = log_of(__name__)

_NO_ROPE_SCALING = text("rope.scaling.type", lambda site: "none")
_NAMES = (starts("model."), *OLD_NAMES, *WRAPPERS)
# gate and up in one
_GATED_UP = {**ENCODER_SHAPES, "ffn_up": (lambda site: 2 * inner(site), hidden)}
_LAYER = ("attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down")


def _say_missing_epsilon(site: Site) -> Lines:
    """A warning where the config has the epsilon only as `norm_eps`. The reference takes that for the one of RMS norms,
    and llama.cpp does not load its file. Configs of published models have `layer_norm_eps`, too."""
    if "as_reference" not in site.choices and site.config.find(*LAYER_NORM_EPSILON) is None:
        epsilon = site.config.number("norm_eps", default=1e-5)
        problem = "config.json has no layer_norm_eps, and llama.cpp does not load the file without it"
        log.warning('%s: add "layer_norm_eps": %s to config.json', problem, epsilon)
    return ()


modern_bert = Architecture(
    "modern-bert",
    hf=("ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification"),
    metadata=(
        *ENCODER,
        _say_missing_epsilon,
        u32("attention.sliding_window", "local_attention"),
        u32("attention.sliding_window_pattern", "global_attn_every_n_layers"),
        _NO_ROPE_SCALING,
        u32("vocab_size", "vocab_size"),
        text("hidden_activation", lambda site: site.config.find("hidden_activation") or None),
    ),
    tokenizer=in_order(add_bos_token(True), add_eos_token(True), add_sep_token(True), bpe),
    renames=_NAMES,
    rules=CLASSIFIER,
    # The head that is only for guessing masked words.
    drops=(Drop("decoder.*"), *NO_HEAD),
    shapes=_GATED_UP,
    model_tensors=("token_embd", "token_embd_norm", "output_norm"),
    # the embeddings are normalized already
    layer_tensors=lambda site: (*(("attn_norm",) if site.layer else ()), *_LAYER),
)


def _two_thirds(site: Site) -> int:
    """The inner width. NeoBERT's config has that of a layer without gate that has the same number of weights."""
    return int(2 * site.config.integer("intermediate_size") / 3)


def _norm_eps(site: Site) -> object:
    return site.config.find("norm_eps") if "norm_eps" in site.config else 1e-6


neo_bert = Architecture(
    "neo-bert",
    hf=("NeoBERT", "NeoBERTLMHead", "NeoBERTForSequenceClassification"),
    metadata=(
        *ENCODER,
        u32("feed_forward_length", _two_thirds),
        f32("rope.freq_base", lambda site: 10000.0),
        _NO_ROPE_SCALING,
        f32("attention.layer_norm_rms_epsilon", _norm_eps),
        u32("pooling_type", lambda site: CLS),
    ),
    tokenizer=wordpiece,
    renames=_NAMES,
    rules=CLASSIFIER,
    drops=(Drop("decoder.*"), *NO_HEAD),
    shapes={
        **ENCODER_SHAPES,
        "ffn_up": (lambda site: 2 * _two_thirds(site), hidden),
        "ffn_down": (hidden, _two_thirds),
    },
    model_tensors=("token_embd", "enc.output_norm"),
    layer_tensors=lambda site: ("attn_norm", *_LAYER),
)

eurobert = Architecture(
    "eurobert",
    hf=("EuroBertModel", "JinaEmbeddingsV5Model"),
    metadata=(*DECODER, flag("attention.causal", lambda site: False), _NO_ROPE_SCALING, *POOLING),
    tokenizer=in_order(add_bos_token(False), bpe),
    renames=(starts("model."), *WRAPPERS),
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)
