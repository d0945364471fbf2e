"""Mamba, Mamba 2 and Falcon Mamba, which have only state space layers. mamba_ssm has other config keys."""

from __future__ import annotations

from gguf_forge.architectures.completeness import MAMBA, MAMBA2
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture, Drop, MetadataLine
from gguf_forge.architectures.metadata import f32, file_type, flag, u32
from gguf_forge.architectures.operations import chain, neg_exp, reshape, squeeze, unsqueeze
from gguf_forge.architectures.renames import WRAPPERS, ends, starts
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tokenizer import TokenizerSource, bpe, builtin, first_of, sentencepiece, with_rounded_size

# The default context of a user who chooses none. The model itself has no limit.
CONTEXT = 1 << 20
DT_BIAS = ends(".dt_bias", ".dt_proj.bias")

EPSILON = ("layer_norm_epsilon", "rms_norm_eps")


def given(site: Site, default: object, *keys: str) -> object:
    """The value of the first key that exists. The default also replaces null and 0."""
    return site.config.find(*keys) or default


def time_step_rank(site: Site, *keys: str) -> object:
    return given(site, -(-site.config.integer("hidden_size") // 16), *keys)


def _inner_size(site: Site) -> int:
    width = site.config.integer("hidden_size")
    if given(site, 2 * width, "intermediate_size", "d_inner") != 2 * width:
        raise UnsupportedError("llama.cpp knows Mamba with an inner size of twice the hidden size only")
    return 2 * width


def _as_named_today(site: Site) -> Config:
    """The config with the width under transformers' key."""
    return site.config.updated(hidden_size=site.config.integer("hidden_size", "d_model", "dim"))


def _is_tied(site: Site) -> bool:
    """Whether the output is a copy of the embeddings."""
    embedding = next(
        (name for name in site.tensors if name.endswith((".embeddings.weight", ".embedding.weight"))), None
    )
    return embedding is not None and site.has_same_values(embedding, "lm_head.weight")


mamba = Architecture(
    "mamba",
    hf=("MambaForCausalLM", "MambaLMHeadModel", "FalconMambaForCausalLM"),
    metadata=(
        u32("context_length", lambda site: CONTEXT),
        u32("embedding_length", "hidden_size"),
        u32("feed_forward_length", lambda site: 0),
        u32("attention.head_count", lambda site: 0),
        u32("block_count", lambda site: site.block_count),
        u32("ssm.conv_kernel", lambda site: given(site, 4, "conv_kernel", "d_conv")),
        u32("ssm.inner_size", _inner_size),
        u32("ssm.state_size", lambda site: given(site, 16, "state_size", "d_state")),
        u32("ssm.time_step_rank", lambda site: time_step_rank(site, "time_step_rank", "dt_rank")),
        f32("attention.layer_norm_rms_epsilon", lambda site: given(site, 1e-5, *EPSILON)),
        flag("ssm.dt_b_c_rms", lambda site: site.config.find("model_type") == "falcon_mamba"),
        file_type,
    ),
    tokenizer=with_rounded_size(first_of(bpe, sentencepiece, builtin("gpt-neox")), 8),
    operations={"ssm_a": neg_exp, "ssm_conv1d": squeeze},
    drops=(Drop("lm_head.weight", when=_is_tied),),
    read_config=Config.raw,
    prepare=_as_named_today,
    layer_tensors=lambda site: ("attn_norm", *MAMBA),
)


def groups(site: Site) -> int:
    return site.config.integer("n_groups", "mamba_n_groups") if given(site, None, "n_groups", "mamba_n_groups") else 1


def _size(site: Site, *keys: str) -> int:
    """A whole number; 0 if it is missing or null."""
    return site.config.integer(*keys, minimum=0, default=0)


def inner_size(site: Site) -> int:
    told = _size(site, "mamba_d_ssm", "intermediate_size", "d_inner")
    return told or (_size(site, "mamba_expand", "expand") or 2) * site.config.integer("hidden_size")


def _heads(site: Site) -> int:
    inner, width = inner_size(site), _size(site, "mamba_d_head", "head_dim") or 64
    if inner % width:
        raise InputError(f"the inner size {inner} is not a multiple of a head's {width}", file="config.json")
    return inner // width


# The metadata of Mamba 2. Hybrid models with attention write it too, followed by other keys.
MAMBA2_KEYS: tuple[MetadataLine, ...] = (
    u32("context_length", lambda site: CONTEXT),
    u32("embedding_length", "hidden_size"),
    u32("feed_forward_length", lambda site: 0),
    u32("attention.head_count", lambda site: 0),
    u32("block_count", lambda site: site.block_count),
    u32("ssm.conv_kernel", lambda site: given(site, 4, "conv_kernel", "d_conv", "mamba_d_conv")),
    u32("ssm.inner_size", inner_size),
    u32("ssm.state_size", lambda site: given(site, 128, "state_size", "d_state", "mamba_d_state")),
    u32("ssm.time_step_rank", _heads),
    u32("ssm.group_count", groups),
    f32("attention.layer_norm_rms_epsilon", lambda site: given(site, 1e-5, *EPSILON)),
    file_type,
)


MAMBA2_OPERATIONS = {
    "ssm_conv1d": squeeze,
    # one number for a head, as a column: Mamba has a row for each channel
    "ssm_a": chain(unsqueeze(-1), neg_exp),
    "ssm_d": unsqueeze(-1),
    "ssm_norm": reshape(groups, -1),
}


# Checkpoints store these as vectors, or with an axis of length 1.
MAMBA2_STORED_AS = {"ssm_conv1d": unsqueeze(1), **dict.fromkeys(("ssm_a", "ssm_d", "ssm_norm"), reshape(-1))}


def _under_another_name(source: TokenizerSource) -> Metadata | None:
    if source.files.content("tokenizer.model.v3") is not None:
        raise InputError("is not read under this name", file="tokenizer.model.v3", hint="rename it to tokenizer.model")
    return None


mamba2 = Architecture(
    "mamba2",
    hf=("Mamba2ForCausalLM",),
    metadata=MAMBA2_KEYS,
    tokenizer=with_rounded_size(first_of(sentencepiece, bpe, _under_another_name, builtin("gpt-neox")), 16),
    # Codestral Mamba has a module more in its names
    renames=(*WRAPPERS, starts("model.backbone.", "backbone.", put_back=False), DT_BIAS),
    operations=MAMBA2_OPERATIONS,
    read_config=Config.raw,
    prepare=_as_named_today,
    layer_tensors=lambda site: ("attn_norm", *MAMBA2),
)
