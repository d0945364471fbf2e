"""Llama, and the models that kept its tensors: Mistral, Mixtral, SmolLM3, Arcee and parts of multimodal models."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gguf_forge.architectures.completeness import ATTENTION, DENSE, EXPERTS, GATED
from gguf_forge.architectures.declaration import Architecture, Drop
from gguf_forge.architectures.metadata import DECODER, u32
from gguf_forge.architectures.operations import NUMBERED, experts, permute_rope
from gguf_forge.architectures.pooling import POOLING
from gguf_forge.architectures.renames import INSIDE_MODEL, WRAPPERS, inside, starts
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tokenizer import (
    Reader,
    TokenizerSource,
    add_bos_token,
    any_vocabulary,
    configured_space_prefix,
    either,
    glm_edge,
    has_tekken_alone,
    has_tokenizer_class,
    has_vocab_size,
    in_order,
    mistral,
    special_ids,
    when,
)

HEADS = ("n_heads", "num_attention_heads")
KEY_HEADS = ("n_kv_heads", "num_key_value_heads")
EXPERT_COUNT = ("num_local_experts", "num_experts", "n_routed_experts")


def _over(number: float, by: NDArray[np.float32]) -> NDArray[np.float32]:
    """A number divided by an array, rounded as torch does: it multiplies with the reciprocal."""
    quotient: NDArray[np.float32] = np.float32(1) / by * np.float32(number)
    return quotient


def llama3_rope_factors(site: Site) -> Iterable[tuple[str, NDArray[np.float32]]]:
    """Llama 3.1's divisor of each rotary frequency: 1 for short waves, `factor` for long ones, a blend between them.

    Source: the `llama3` rope type of transformers, computed in float32 as the reference does.
    """
    if str(site.config.rope.get("rope_type", "")).lower() != "llama3":
        return
    factor = site.config.rope_number("factor", 8.0)
    low, high = site.config.rope_number("low_freq_factor", 1.0), site.config.rope_number("high_freq_factor", 4.0)
    trained = site.config.rope_number("original_max_position_embeddings", 8192)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        exponents = np.arange(0, site.config.head_dim, 2, dtype=np.float32) / np.float32(site.config.head_dim)
        # The power is computed in float64 and rounded once, which gives the same bits on every machine.
        powers = np.power(site.config.rope_number("rope_theta", 10000.0), exponents.astype(np.float64))
        frequencies = np.float32(1.0) / powers.astype(np.float32)
        wavelengths = _over(2 * math.pi, frequencies)
        blend = (_over(trained, wavelengths) - np.float32(low)) / np.float32(high - low or 1)
        blended = np.float32(1) / ((np.float32(1) - blend) / np.float32(factor) + blend)
        factors = np.where(
            wavelengths < trained / high,
            np.float32(1),
            np.where(wavelengths > trained / low, np.float32(factor), blended),
        )
    yield rope_freqs(factors)


def rope_freqs(factors: NDArray[np.floating]) -> tuple[str, NDArray[np.float32]]:
    """The tensor of the divisors of rotary frequencies; InputError if float32 does not hold them."""
    with np.errstate(over="ignore"):
        rounded = factors.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise InputError("the rotary parameters of llama3 give no numbers of float32", file="config.json")
    return "rope_freqs.weight", rounded


def _refuse_dna(source: TokenizerSource) -> Metadata:
    """Refuses the tokenizer of Carbon. Code in its folder makes the vocabulary, of files of another repository."""
    raise UnsupportedError(
        "its tokenizer reads DNA six letters at a time, and code of the model makes its vocabulary, which is never run",
        file=source.files.folder.path / "tokenizer_config.json",
        hint="make a float file with llama.cpp's converter, if you trust the code, and use `gguf-forge quantize` on it",
    )


def llama_vocabulary(architecture: str) -> Reader:
    """A reader of all vocabularies that Llamas have. One of Mistral's keys begins with the GGUF architecture's name."""
    usual = in_order(
        configured_space_prefix,
        any_vocabulary,
        # Code Llama, and the small Granite models
        when(has_vocab_size(32016), special_ids({"prefix": 32007, "suffix": 32008, "middle": 32009, "eot": 32010})),
        when(has_vocab_size(49152), add_bos_token(False)),
    )
    usual = either(has_tokenizer_class("HybridDNATokenizer"), _refuse_dna, usual)
    return either(has_tekken_alone, mistral(architecture, native=False), usual)


llama = Architecture(
    "llama",
    hf=(
        *("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "IQuestCoderForCausalLM"),
        *("LlavaForConditionalGeneration", "VoxtralForConditionalGeneration"),
        # Draft models are a Llama unless their config tells otherwise.
        *("LlamaForCausalLMEagle3", "Eagle3LlamaForCausalLM", "Eagle3Speculator", "Eagle3DraftModel"),
    ),
    metadata=(
        *DECODER,
        u32("vocab_size", "vocab_size"),
        u32("rope.dimension_count", lambda site: site.config.head_dim),
    ),
    tokenizer=llama_vocabulary("llama"),
    rules=experts("model.layers.{i}.block_sparse_moe.experts.{e}", *NUMBERED),
    operations={"attn_q": permute_rope(HEADS), "attn_k": permute_rope(KEY_HEADS)},
    generated=llama3_rope_factors,
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *(EXPERTS if site.config.find(*EXPERT_COUNT) else GATED)),
)

# Models without the head, whose names lack the outermost module.
llama_base = llama.derive("llama", hf=("LlamaModel",), renames=(*WRAPPERS, *INSIDE_MODEL))

llama_embed = llama.derive("llama-embed", hf=("LlamaBidirectionalModel",))

# Speech models that contain a Llama.
glmasr = llama.derive("llama", hf=("GlmasrModel",), tokenizer=glm_edge)

# SmolVLM2's language model, whose config may lack the number of heads.
vllama3 = llama.derive(
    "llama",
    hf=("VLlama3ForCausalLM",),
    renames=(*WRAPPERS, inside(".text_model.", ".")),
    prepare=lambda site: site.config.updated(num_attention_heads=site.config.get("num_attention_heads", 32)),
)

# Language models of models that read pictures. Janus also makes pictures.
janus = llama.derive(
    "llama",
    hf=("JanusForConditionalGeneration",),
    drops=tuple(
        Drop(f"model.{name}.*")
        for name in ("aligner", "vqmodel", "generation_embeddings", "generation_aligner", "generation_head")
    ),
)

sarashina2 = llama.derive(
    "llama",
    hf=("Sarashina2VisionForCausalLM",),
    renames=(starts("llm.", put_back=True), *WRAPPERS),
    drops=(Drop("norm.*"),),
)

smollm3 = llama.derive("smollm3", hf=("SmolLM3ForCausalLM",), tokenizer=llama_vocabulary("smollm3"), rules=())

arcee = llama.derive(
    "arcee",
    hf=("ArceeForCausalLM",),
    metadata=(*llama.metadata, *POOLING),
    tokenizer=llama_vocabulary("arcee"),
    rules=(),
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *DENSE),
)
