"""Checkpoints in Mistral's own form, which name no class: the file of their parameters stands for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.families.deepseek import absorbed, deepseek2
from gguf_forge.architectures.families.llama import llama
from gguf_forge.architectures.metadata import DECODER, Lines, f32, u32
from gguf_forge.architectures.operations import experts
from gguf_forge.architectures.site import Site
from gguf_forge.checkpoint.mistral_form import PARAMS
from gguf_forge.gguf_file import values
from gguf_forge.tokenizer import Reader, either, mistral

_NO_TEMPLATE = "no_community_template"


def _long_positions(site: Site) -> Lines:
    """The rotary parameters and the attention scale for positions beyond the trained length."""
    yarn = site.config.part("yarn")
    if yarn:
        yield "rope.scaling.type", values.string("yarn")
        yield from f32("rope.scaling.factor", lambda _: yarn.get("factor"))(site)
        yield from f32("rope.scaling.yarn_beta_fast", lambda _: yarn.get("beta"))(site)
        yield from f32("rope.scaling.yarn_beta_slow", lambda _: yarn.get("alpha"))(site)
        yield from f32("rope.scaling.yarn_log_multiplier", lambda _: 0.0 if yarn.get("apply_scale") else 1.0)(site)
        yield from u32("rope.scaling.original_context_length", _trained_length)(site)
    yield from f32("attention.temperature_scale", lambda _: site.config.part("llama_4_scaling").get("beta"))(site)


def _trained_length(site: Site) -> object:
    return site.config.part("yarn").get("original_max_position_embeddings")


def _vocabulary(architecture: str) -> Reader:
    return either(
        lambda source: bool(source.config.get(_NO_TEMPLATE)),
        mistral(architecture, community_template=False),
        mistral(architecture),
    )


def _parameters(raw: Mapping[str, object]) -> Config:
    return replace(Config.raw(raw), file=PARAMS)


def _with_choice(site: Site) -> Config:
    return site.config.updated(**{_NO_TEMPLATE: _NO_TEMPLATE in site.choices})


mistral_form = llama.derive(
    "llama",
    hf=(PARAMS,),
    metadata=(*DECODER, u32("rope.dimension_count", "head_dim"), _long_positions),
    tokenizer=_vocabulary("llama"),
    renames=(),
    rules=(),
    # heads are rotated as the checkpoint stores them
    operations={},
    read_config=_parameters,
    prepare=_with_choice,
    choices=frozenset((_NO_TEMPLATE,)),
)

mistral3_form = mistral_form.derive(
    "mistral3",
    when=lambda config: "llama_4_scaling" in config and config.find("moe") is None,
    tokenizer=_vocabulary("mistral3"),
)

# Key of Mistral's parameters -> key in transformers' configs.
_KEYS = {
    "dim": "hidden_size",
    "norm_eps": "rms_norm_eps",
    "n_kv_heads": "num_key_value_heads",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
}
_MOE_KEYS = {
    "route_every_n": "moe_layer_freq",
    "first_k_dense_replace": "first_k_dense_replace",
    "num_experts_per_tok": "num_experts_per_tok",
    "num_experts": "n_routed_experts",
    "expert_hidden_dim": "moe_intermediate_size",
    "routed_scale": "routed_scaling_factor",
    "num_shared_experts": "n_shared_experts",
    "num_expert_groups": "n_group",
    "num_expert_groups_per_tok": "topk_group",
}


def _as_deepseek(site: Site) -> Config:
    """The parameters under the keys that DeepSeek's configs have."""
    config, moe = _with_choice(site), site.config.part("moe")
    entries = {
        "max_position_embeddings": 128_000,
        **config,
        **{new: config[old] for old, new in _KEYS.items() if old in config},
        **{new: moe[old] for old, new in _MOE_KEYS.items() if old in moe},
        "norm_topk_prob": True,
        "scoring_func": "softmax",
        "tie_word_embeddings": config.get("tied_embeddings", False),
    }
    return replace(config, entries=entries)


mistral_moe_form = deepseek2.derive(
    "deepseek2",
    hf=(PARAMS,),
    when=lambda config: config.find("moe") is not None,
    metadata=(
        *deepseek2.metadata,
        _long_positions,
        u32("attention.temperature_length", _trained_length),
        # The file has a tenth of the value, as in DeepSeek's files.
        f32("rope.scaling.yarn_log_multiplier", lambda site: 0.1),
    ),
    tokenizer=_vocabulary("deepseek2"),
    renames=(),
    rules=(
        *experts("layers.{i}.experts.{e}", ("w2", "ffn_down_exps"), ("w1", "ffn_gate_exps"), ("w3", "ffn_up_exps")),
        *(replace(rule, sources=("layers.{i}.attention.wkv_b.weight",)) for rule in absorbed("num_key_value_heads")),
    ),
    read_config=_parameters,
    prepare=_as_deepseek,
    choices=frozenset((_NO_TEMPLATE,)),
)
