"""GPT-2 and closely related models: GPT-NeoX (Pythia), BLOOM, StarCoder, and Russian GPT-3 XL."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, DENSE
from gguf_forge.architectures.declaration import Architecture, Rule
from gguf_forge.architectures.metadata import DECODER, f32, file_type, flag, u32
from gguf_forge.architectures.operations import concat, reorder, transpose
from gguf_forge.architectures.renames import WRAPPERS, starts
from gguf_forge.architectures.site import Site
from gguf_forge.tokenizer import bpe

_WIDTH, _HEADS = ("n_embd", "hidden_size", "n_embed"), ("n_head", "num_attention_heads")


def width(site: Site) -> int:
    return site.config.integer(*_WIDTH)


def four_times_width(site: Site) -> int:
    return 4 * width(site)


# Every layer has a bias beside each matrix; the two norms and the two parts of the dense layer are always there.
LAYER = (*ATTENTION, "ffn_norm", *DENSE)

gpt2 = Architecture(
    "gpt2",
    hf=("GPT2LMHeadModel",),
    metadata=(
        u32("block_count", lambda site: site.block_count),
        u32("context_length", "n_ctx", "n_positions"),
        u32("embedding_length", width),
        u32("feed_forward_length", four_times_width),
        u32("attention.head_count", *_HEADS),
        f32("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        file_type,
    ),
    tokenizer=bpe,
    # stored as the layers of a convolution: inputs before outputs
    operations={"attn_qkv": transpose, "attn_output": transpose, "ffn_up": transpose, "ffn_down": transpose},
    shapes={},
    layer_tensors=lambda site: LAYER,
)

_QKV = tuple(f"model.layers.{{i}}.self_attn.{part}_proj" for part in "qkv")

ru_gpt3xl = Architecture(
    "gpt2",
    hf=("RuGPT3XLForCausalLM",),
    metadata=DECODER,
    tokenizer=bpe,
    rules=(
        Rule(tuple(f"{name}.weight" for name in _QKV), "blk.{i}.attn_qkv.weight", concat()),
        Rule(tuple(f"{name}.bias" for name in _QKV), "blk.{i}.attn_qkv.bias", concat(-1)),
    ),
    shapes={},
    layer_tensors=lambda site: LAYER,
)


def _rotated(site: Site) -> int:
    share = site.config.number("rotary_pct")
    return int(share * (width(site) // site.config.integer(*_HEADS)))


# The queries, keys and values of each head are stored together. They are reordered into three parts of all heads.
_PARTED = "each head's queries, keys and values put apart"

gpt_neox = Architecture(
    "gptneox",
    hf=("GPTNeoXForCausalLM",),
    metadata=(
        u32("context_length", "max_position_embeddings"),
        u32("embedding_length", width),
        u32("block_count", lambda site: site.block_count),
        u32("feed_forward_length", "intermediate_size"),
        u32("rope.dimension_count", _rotated),
        u32("attention.head_count", *_HEADS),
        flag("use_parallel_residual", lambda site: site.config.get("use_parallel_residual", True)),
        f32("attention.layer_norm_epsilon", "layer_norm_eps"),
    ),
    tokenizer=bpe,
    operations={"attn_qkv": reorder(0, (_HEADS, 3, -1), (1, 0, 2), _PARTED)},
    shapes={},
    layer_tensors=lambda site: LAYER,
)

bloom = Architecture(
    "bloom",
    hf=("BloomForCausalLM", "BloomModel"),
    metadata=(
        u32("context_length", lambda site: site.config.get("seq_length", width(site))),
        u32("embedding_length", width),
        u32("feed_forward_length", four_times_width),
        u32("block_count", lambda site: site.block_count),
        u32("attention.head_count", *_HEADS),
        u32("attention.head_count_kv", *_HEADS),
        f32("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        file_type,
    ),
    tokenizer=bpe,
    renames=(*WRAPPERS, starts("transformer.")),
    operations={"attn_qkv": reorder(0, (_HEADS, 3, -1), (1, 0, 2), _PARTED)},
    shapes={},
    layer_tensors=lambda site: LAYER,
)

starcoder = gpt2.derive(
    "starcoder",
    hf=("GPTBigCodeForCausalLM",),
    metadata=(
        u32("context_length", "n_positions"),
        u32("embedding_length", width),
        u32("feed_forward_length", four_times_width),
        u32("block_count", lambda site: site.block_count),
        u32("attention.head_count", *_HEADS),
        u32("attention.head_count_kv", lambda site: 1),
        f32("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        file_type,
    ),
    operations={},
)
