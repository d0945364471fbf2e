"""The language model of Qwen3-TTS: text and codes of sound in one vocabulary, of which it predicts codes."""

from __future__ import annotations

from collections.abc import Mapping

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Rule
from gguf_forge.architectures.families.qwen import qwen3
from gguf_forge.architectures.metadata import DECODER, flag, u32
from gguf_forge.architectures.operations import concat
from gguf_forge.architectures.projector import always
from gguf_forge.architectures.renames import starts
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.network import ACTIVATIONS, ThroughNetwork
from gguf_forge.tokenizer import bpe, first_of, sentencepiece, with_codes

# Of the codes, all but so many last ones can be sampled.
_OTHERS = 1024
_CODES = "codec_vocab_size"
_NETWORK = tuple(f"text_projection.linear_fc{n}.{part}" for n in (1, 2) for part in ("weight", "bias"))


def _talker(raw: Mapping[str, object]) -> Config:
    """The talker's config, in which `vocab_size` counts the tokens of text, and another key the codes."""
    talker = raw.get("talker_config")
    if not isinstance(talker, dict):
        raise InputError("config.json has no talker_config", file="config.json")
    sizes = {"vocab_size": Config(talker).integer("text_vocab_size"), _CODES: Config(talker).integer("vocab_size")}
    return Config.raw({**raw, **talker, **sizes, "architectures": raw.get("architectures")})


def _end(site: Site) -> int:
    return site.config.integer("vocab_size") + site.config.integer("codec_eos_token_id")


def _suppressed(site: Site) -> list[int]:
    size = site.config.integer("vocab_size") + site.config.integer(_CODES)
    return [token for token in range(max(0, size - _OTHERS), size) if token != _end(site)]


def _embeddings(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """Those of text, after the network that the model puts behind them, and those of codes."""
    text, first, first_bias, second, second_bias, codes = sources
    activation = site.config.find("hidden_act")
    if activation not in ACTIVATIONS:
        raise UnsupportedError(f"the text goes through {activation!r:.40}, which is not known here", file="config.json")
    network = ThroughNetwork(text, first, first_bias, second, second_bias, activation)
    return concat(-2)(site, network, codes)


qwen3_tts_talker = qwen3.derive(
    "qwen3tts",
    hf=("Qwen3TTSForConditionalGeneration",),
    metadata=(
        *DECODER,
        u32("tokenizer.ggml.suppress_tokens", _suppressed),
        u32("tokenizer.ggml.eos_token_id", _end),
        flag("tokenizer.ggml.add_eos_token", always(False)),
    ),
    tokenizer=with_codes(first_of(sentencepiece, bpe), _CODES),
    read_config=_talker,
    prepare=lambda site: site.config,
    takes=lambda name: name.startswith("talker.") and not name.startswith("talker.code_predictor."),
    renames=(starts("talker.", ""),),
    names={"codec_head": "output"},
    rules=(
        Rule(
            ("model.text_embedding.weight", *_NETWORK, "model.codec_embedding.weight"),
            "token_embd.weight",
            _embeddings,
        ),
    ),
    model_tensors=("token_embd", "output_norm", "output"),
)
