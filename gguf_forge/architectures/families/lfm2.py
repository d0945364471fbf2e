"""LFM2: short convolutions between layers of attention; with experts, as an embedding model, and as a tokenizer of
sound."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, EXPERTS, GATED
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Drop
from gguf_forge.architectures.metadata import DECODER, SIGMOID, f32, flag, u32
from gguf_forge.architectures.operations import NUMBERED, experts, squeeze
from gguf_forge.architectures.parts import is_text
from gguf_forge.architectures.pooling import POOLING
from gguf_forge.architectures.renames import INSIDE_MODEL, WRAPPERS, ends, starts
from gguf_forge.architectures.shapes import DECODER_SHAPES, hidden
from gguf_forge.architectures.site import Site
from gguf_forge.tensors.row_maps import length
from gguf_forge.tokenizer import bpe, no_vocabulary

# The first name is the one inside of models that hear and speak.
_RENAMES = (*WRAPPERS, starts("lfm.", "model.", put_back=False))
_DENSE = "dense_2."
_BIDIRECTIONAL = "Lfm2BidirectionalModel"
_NOT_TEXT = ("audio", "codebook", "conformer", "depth_embedding", "depthformer", "depth_linear")


def _has_attention(site: Site) -> bool:
    return bool(site.config.by_layer("layer_types")[site.layer or 0] != "conv")


def _key_heads_by_layer(site: Site) -> Config:
    """The config with the number of key heads of each layer, which is 0 in layers without attention."""
    count = site.config.integer("num_key_value_heads")
    return site.config.updated(
        num_key_value_heads=[0 if kind == "conv" else count for kind in site.config.by_layer("layer_types")]
    )


def _inner_size(site: Site) -> int:
    """The size of the feed-forward part: 2/3 of the config's value, times a factor, rounded up."""
    size = site.config.integer("block_ff_dim", "intermediate_size")
    if not site.config.find("block_auto_adjust_ff_dim"):
        return size
    size = 2 * size // 3
    if site.config.find("block_ffn_dim_multiplier") is not None:
        size = int(site.config.number("block_ffn_dim_multiplier") * size)
    multiple = site.config.integer("block_multiple_of")
    return -(-size // multiple) * multiple


def _mixer(site: Site) -> tuple[str, ...]:
    if _has_attention(site):
        return (*ATTENTION, "attn_q_norm", "attn_k_norm")
    return ("attn_norm", *_CONVOLUTION)


_CONVOLUTION = ("shortconv.conv", "shortconv.in_proj", "shortconv.out_proj")

lfm2 = Architecture(
    "lfm2",
    hf=("Lfm2ForCausalLM", "LFM2ForCausalLM"),
    metadata=(
        *DECODER,
        u32("vocab_size", "vocab_size"),
        u32("shortconv.l_cache", "conv_L_cache"),
        f32("attention.layer_norm_rms_epsilon", "norm_eps"),
        u32("feed_forward_length", _inner_size),
    ),
    tokenizer=bpe,
    takes=lambda name: is_text(name) and not any(part in name for part in _NOT_TEXT),
    renames=_RENAMES,
    operations={"shortconv.conv": squeeze},
    prepare=_key_heads_by_layer,
    shapes={
        **DECODER_SHAPES,
        "ffn_gate": (_inner_size, hidden),
        "ffn_up": (_inner_size, hidden),
        "ffn_down": (hidden, _inner_size),
    },
    model_tensors=("token_embd", "token_embd_norm"),
    layer_tensors=lambda site: (*_mixer(site), "ffn_norm", *GATED),
)


def _dense_width(site: Site) -> int | None:
    """The length of the vectors after the last module."""
    dense = site.tensors.get(f"{_DENSE}linear.weight")
    return length(dense, 0) if dense is not None else None


# An embedding model, whose names lack the outermost module.
lfm2_base = lfm2.derive(
    "lfm2",
    hf=("Lfm2Model", _BIDIRECTIONAL),
    early=(u32("embedding_length_out", _dense_width),),
    metadata=(
        *lfm2.metadata,
        flag("attention.causal", lambda site: False if _BIDIRECTIONAL in site.config.listed("architectures") else None),
        *POOLING,
    ),
    renames=(*_RENAMES, *INSIDE_MODEL),
    modules={"1_Dense/model.safetensors": _DENSE},
    names={f"model.{_DENSE}linear": "dense_2"},
)

# The part that speaks. Its input are codes of sound, and its vocabulary is elsewhere.
lfm2_audio_tokenizer = lfm2.derive(
    "lfm2",
    hf=("Lfm25AudioTokenizer",),
    metadata=(
        *lfm2.metadata,
        u32("attention.sliding_window", "sliding_window"),
        u32("embedding_length_out", "output_size"),
    ),
    tokenizer=no_vocabulary,
    renames=(*_RENAMES, starts("lin.", "dense_2_out.")),
    drops=(Drop("istft.window"), Drop("emb.emb.*")),
    model_tensors=("token_embd_norm",),
)


def _is_dense(site: Site) -> bool:
    return (site.layer or 0) < site.config.integer("num_dense_layers", minimum=0)


def _key_heads_of_full(site: Site) -> Config:
    count, kinds = site.config.integer("num_key_value_heads"), site.config.by_layer("layer_types")
    return site.config.updated(num_key_value_heads=[count if kind == "full_attention" else 0 for kind in kinds])


lfm2_moe = lfm2.derive(
    "lfm2moe",
    hf=("Lfm2MoeForCausalLM",),
    metadata=(
        *DECODER,
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        u32("leading_dense_block_count", "num_dense_layers"),
        u32("expert_gating_func", lambda site: SIGMOID),
        u32("vocab_size", "vocab_size"),
        u32("shortconv.l_cache", "conv_L_cache"),
    ),
    takes=None,
    renames=(*WRAPPERS, ends(".expert_bias", ".expert_bias.bias")),
    rules=experts("model.layers.{i}.feed_forward.experts.{e}", *NUMBERED),
    prepare=_key_heads_of_full,
    shapes=DECODER_SHAPES,
    layer_tensors=lambda site: (*_mixer(site), "ffn_norm", *(GATED if _is_dense(site) else (*EXPERTS, "exp_probs_b"))),
)
