"""The decoder of WavTokenizer, which makes sound of tokens: a position network and ConvNeXt blocks."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.metadata import DECODER, f32, flag, u32
from gguf_forge.architectures.parts import is_text
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import no_vocabulary

_CONVNEXT = ("dw", "norm", "pw1", "pw2", "gamma")
_RESIDUAL = ("norm1", "conv1", "norm2", "conv2")
_ATTENTION = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output")
# The blocks of the position network, of which llama.cpp knows six.
_POSNET = (_RESIDUAL, _RESIDUAL, _ATTENTION, _RESIDUAL, _RESIDUAL, ("attn_norm",))
# Tensors of the codebook that only training needs.
_OF_TRAINING = tuple(f"codebook.{name}" for name in ("cluster_size", "embed_avg", "inited"))


def _of(part: str, key: str) -> Callable[[Site], int]:
    """A number that one part's own config has."""
    return lambda site: site.config.part(part).integer(key, maximum=100_000)


def _layer(site: Site) -> tuple[str, ...]:
    layer = site.layer or 0
    blocks = _CONVNEXT if layer < _of("convnext", "n_layer")(site) else ()
    positions = _POSNET[layer] if layer < min(_of("posnet", "n_layer")(site), len(_POSNET)) else ()
    return (*(f"convnext.{{i}}.{name}" for name in blocks), *(f"posnet.{{i}}.{name}" for name in positions))


wavtokenizer = Architecture(
    "wavtokenizer-dec",
    hf=("WavTokenizerDec",),
    metadata=(
        *DECODER,
        u32("vocab_size", "vocab_size"),
        u32("features_length", "n_embd_features"),
        u32("feed_forward_length", "n_ff"),
        f32("attention.group_norm_epsilon", "group_norm_epsilon"),
        u32("attention.group_norm_groups", "group_norm_groups"),
        u32("posnet.embedding_length", _of("posnet", "n_embd")),
        u32("posnet.block_count", _of("posnet", "n_layer")),
        u32("convnext.embedding_length", _of("convnext", "n_embd")),
        u32("convnext.block_count", _of("convnext", "n_layer")),
        flag("attention.causal", lambda site: False),
    ),
    tokenizer=no_vocabulary,
    takes=lambda name: is_text(name) and not name.endswith(_OF_TRAINING),
    shapes={},
    model_tensors=("token_embd", "conv1d", "token_embd_norm", "output_norm", "output"),
    layer_tensors=_layer,
)
