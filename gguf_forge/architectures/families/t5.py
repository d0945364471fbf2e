"""T5 and related models (Flan-T5, MT5, UMT5): an encoder with a decoder, or the encoder alone."""

from __future__ import annotations

from gguf_forge.architectures.declaration import Architecture, Rule, any_of
from gguf_forge.architectures.metadata import f32, file_type, u32
from gguf_forge.architectures.operations import keep
from gguf_forge.architectures.shapes import Size
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import t5 as t5_vocabulary

_ATTENTION = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_o")
_CROSS_ATTENTION = tuple(f"cross_{name}" for name in _ATTENTION)
_DENSE = ("ffn_norm", "ffn_up", "ffn_down")


def _width(site: Site) -> int:
    return site.config.integer("d_model")


def _inner(site: Site) -> int:
    return site.config.integer("d_ff")


def _heads(site: Site) -> int:
    return site.config.integer("num_heads") * site.config.integer("d_kv")


def _stack_shapes(stack: str, *attentions: str) -> dict[str, tuple[Size, ...]]:
    """The shapes of one stack's matrices, by role."""
    return {
        **{f"{stack}.blk.{{i}}.{name}_{part}": (_heads, _width) for name in attentions for part in "qkv"},
        **{f"{stack}.blk.{{i}}.{name}_o": (_width, _heads) for name in attentions},
        f"{stack}.blk.{{i}}.ffn_gate": (_inner, _width),
        f"{stack}.blk.{{i}}.ffn_up": (_inner, _width),
        f"{stack}.blk.{{i}}.ffn_down": (_width, _inner),
    }


def _layer(stack: str, *roles: str) -> tuple[str, ...]:
    return tuple(f"{stack}.blk.{{i}}.{name}" for name in roles)


def _encoder_layers(site: Site) -> int:
    return site.config.block_count


def _decoder_layers(site: Site) -> int:
    found = site.config.find("num_decoder_layers")
    return _encoder_layers(site) if found is None else site.config.integer("num_decoder_layers", maximum=10_000)


def _layer_tensors(site: Site) -> tuple[str, ...]:
    layer = site.layer or 0
    encoder = _layer("enc", *_ATTENTION, *_DENSE) if layer < _encoder_layers(site) else ()
    decoder = _layer("dec", *_ATTENTION, *_CROSS_ATTENTION, *_DENSE) if layer < _decoder_layers(site) else ()
    return (*encoder, *decoder)


_SIZES = (
    u32("context_length", lambda site: site.config.find("n_positions") or 512),
    u32("embedding_length", "d_model"),
    u32("feed_forward_length", "d_ff"),
    u32("block_count", _encoder_layers),
)
_HEADS = (
    u32("attention.head_count", "num_heads"),
    u32("attention.key_length", "d_kv"),
    u32("attention.value_length", "d_kv"),
    f32("attention.layer_norm_epsilon", "layer_norm_epsilon"),
    u32("attention.relative_buckets_count", "relative_attention_num_buckets"),
    f32("attention.layer_norm_rms_epsilon", "layer_norm_epsilon"),
)

t5 = Architecture(
    "t5",
    hf=(
        "T5ForConditionalGeneration",
        "T5WithLMHeadModel",
        "MT5ForConditionalGeneration",
        "UMT5ForConditionalGeneration",
        "UMT5Model",
    ),
    metadata=(
        *_SIZES,
        u32("decoder_block_count", "num_decoder_layers"),
        *_HEADS,
        u32("decoder_start_token_id", "decoder_start_token_id"),
        file_type,
    ),
    tokenizer=t5_vocabulary,
    rules=(
        Rule(
            (any_of("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),),
            "token_embd.weight",
            keep,
        ),
    ),
    shapes={
        "token_embd": (None, _width),
        "output": (None, _width),
        **_stack_shapes("enc", "attn"),
        **_stack_shapes("dec", "attn", "cross_attn"),
    },
    # the reference counts the encoder's layers alone, and stops at a longer decoder
    block_count=lambda site: max(_encoder_layers(site), _decoder_layers(site)),
    model_tensors=("token_embd", "enc.output_norm", "dec.output_norm"),
    layer_tensors=_layer_tensors,
)

t5_encoder = t5.derive(
    "t5encoder",
    hf=("T5EncoderModel",),
    metadata=(*_SIZES, *_HEADS, file_type),
    shapes={"token_embd": (None, _width), **_stack_shapes("enc", "attn")},
    block_count=_encoder_layers,
    model_tensors=("token_embd", "enc.output_norm"),
    layer_tensors=lambda site: _layer("enc", *_ATTENTION, *_DENSE),
)
