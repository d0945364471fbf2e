"""Nemotron-H: each layer is only a state space, only attention or only a feed-forward part."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.appended_layers import CHOICES, NEXTN, is_appended, is_left_out
from gguf_forge.architectures.completeness import ATTENTION, DENSE, MAMBA2
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Drop, Rule
from gguf_forge.architectures.families.llama import HEADS, KEY_HEADS, llama
from gguf_forge.architectures.families.mamba import CONTEXT, DT_BIAS, MAMBA2_OPERATIONS
from gguf_forge.architectures.metadata import f32, flag, per_layer, u32
from gguf_forge.architectures.operations import experts, keep, permute_rope
from gguf_forge.architectures.parts import is_text
from gguf_forge.architectures.renames import WRAPPERS, Appended, starts
from gguf_forge.architectures.shapes import DECODER_SHAPES, heads, hidden, key_heads
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tokenizer import bpe, with_rounded_size

# The kinds of layers: the letters in older configs and the words in newer ones.
_MAMBA, _ATTENTION, _DENSE, _EXPERTS = "M", "*", "-", "E"
_WORDS = {
    "mamba": _MAMBA,
    "linear_attention": _MAMBA,
    "attention": _ATTENTION,
    "full_attention": _ATTENTION,
    "mlp": _DENSE,
    "moe": _EXPERTS,
}


def _kinds(config: Config) -> list[str]:
    """The kind of each of the model's own layers."""
    pattern = config.find("hybrid_override_pattern") or config.find("layers_block_type")
    if not isinstance(pattern, str | list) or not all(isinstance(kind, str) for kind in pattern):
        raise InputError("neither hybrid_override_pattern nor layers_block_type is there", file="config.json")
    if len(pattern) != config.block_count:
        raise InputError(f"the pattern has {len(pattern)} layers, not {config.block_count}", file="config.json")
    return [_WORDS.get(kind, kind) for kind in pattern]


def _is(site: Site, kind: str) -> bool:
    return not is_appended(site) and _kinds(site.config)[site.layer or 0] == kind


def _has_attention(site: Site) -> bool:
    return is_appended(site) or _is(site, _ATTENTION)


def _has_experts(site: Site) -> bool:
    return is_appended(site) or _is(site, _EXPERTS)


def _head(site: Site) -> int:
    return site.config.integer("attention_head_dim")


def _prepared(site: Site) -> Config:
    """The config with the layers counted, and with the head's size under a name that only attention looks at."""
    entries = {key: value for key, value in site.config.items() if key != "head_dim"}
    kinds, head = entries.get("layers_block_type"), site.config.find("head_dim", "attention_head_dim")
    layers = {"num_hidden_layers": len(kinds)} if isinstance(kinds, list) else {}
    return Config({**entries, **layers, "attention_head_dim": head})


def _inner_size(site: Site) -> int:
    return site.config.integer("mamba_num_heads", "num_heads") * site.config.integer("mamba_head_dim", "hidden_size")


_KEYS = (
    *llama.metadata,
    u32("ssm.conv_kernel", "conv_kernel", "d_conv"),
    u32("ssm.state_size", "state_size", "d_state", "state_dim", "ssm_state_size"),
    u32("ssm.group_count", "n_groups", "num_groups"),
    u32("ssm.inner_size", _inner_size),
    u32("ssm.time_step_rank", "n_heads", "num_heads", "mamba_n_heads", "mamba_num_heads"),
    u32("attention.head_count_kv", per_layer(lambda site: key_heads(site) if _has_attention(site) else 0)),
    flag("rope.scaling.finetuned", lambda site: _MAMBA not in _kinds(site.config)),
    u32("context_length", lambda site: CONTEXT if _MAMBA in _kinds(site.config) else None),
    u32("attention.key_length", _head),
    u32("attention.value_length", _head),
)

_MIXER = "backbone.layers.{i}.mixer."

nemotron_h = llama.derive(
    "nemotron_h",
    hf=("NemotronHForCausalLM",),
    metadata=(
        *_KEYS,
        u32(
            "feed_forward_length",
            per_layer(
                lambda site: site.config.integer("intermediate_size", "n_inner", "hidden_dim") * _is(site, _DENSE)
            ),
        ),
    ),
    tokenizer=with_rounded_size(bpe, 8),
    renames=(*WRAPPERS, starts("model.", "backbone.", put_back=False), DT_BIAS),
    operations={"attn_q": permute_rope(HEADS), "attn_k": permute_rope(KEY_HEADS), **MAMBA2_OPERATIONS},
    rules=(),
    generated=lambda site: (),
    prepare=_prepared,
    shapes={
        **{role: sizes for role, sizes in DECODER_SHAPES.items() if not role.startswith("ffn_")},
        "attn_q": (lambda site: heads(site) * _head(site), hidden),
        "attn_k": (lambda site: key_heads(site) * _head(site), hidden),
        "attn_v": (lambda site: key_heads(site) * _head(site), hidden),
        "attn_output": (hidden, lambda site: heads(site) * _head(site)),
    },
    layer_tensors=lambda site: (
        "attn_norm",
        *(MAMBA2 if _is(site, _MAMBA) else ATTENTION if _has_attention(site) else DENSE),
    ),
)

_MIXTURE = ("ffn_gate_inp", "ffn_up_exps", "ffn_down_exps", "ffn_up_shexp", "ffn_down_shexp")
# The layer that predicts a further token is stored as two: attention, and experts.
_MTP_NAMES = tuple(
    Appended(f"mtp.layers.{number}.{old}.", f"{new}.", "backbone.layers.")
    for number, old, new in (
        *((1, name, name) for name in ("mixer", "final_layernorm")),
        (1, "norm", "post_attention_layernorm"),
        *((0, f"mixer.{part}_proj", f"mixer.{part}_proj") for part in "qkvo"),
        *((0, name, name) for name in ("norm", "enorm", "hnorm", "eh_proj")),
    )
)


def _moe_layers(site: Site) -> tuple[str, ...]:
    if is_left_out(site):
        return ()
    if is_appended(site):
        return (*ATTENTION, "post_attention_norm", *_MIXTURE, *NEXTN, "nextn.shared_head_norm")
    return ("attn_norm", *_MIXTURE) if _has_experts(site) else nemotron_h.layer_tensors(site)  # type: ignore[misc]


def _with_mtp(site: Site) -> int:
    own = site.config.block_count
    predicted = site.config.find("num_nextn_predict_layers") or 0
    if "no_mtp" in site.choices or not predicted:
        return own
    if predicted != 1:
        raise UnsupportedError(f"num_nextn_predict_layers is {predicted!r:.20}; 1 is known", file="config.json")
    return own + 1


_OF_EXPERTS = (
    u32("expert_shared_feed_forward_length", "moe_shared_expert_intermediate_size"),
    u32("expert_count", "n_routed_experts"),
    u32("expert_shared_count", "n_shared_experts"),
    flag("expert_weights_norm", "norm_topk_prob"),
    f32("expert_weights_scale", "routed_scaling_factor"),
    u32("expert_group_count", "n_group"),
    u32("moe_latent_size", "moe_latent_size"),
)

nemotron_h_moe = nemotron_h.derive(
    "nemotron_h_moe",
    when=lambda config: "num_experts_per_tok" in config,
    metadata=(
        *_KEYS,
        u32(
            "feed_forward_length",
            per_layer(lambda site: site.config.integer("moe_intermediate_size") * _has_experts(site)),
        ),
        u32("expert_feed_forward_length", "moe_intermediate_size"),
        *_OF_EXPERTS,
        u32("nextn_predict_layers", lambda site: site.block_count - site.config.block_count or None),
    ),
    renames=(*nemotron_h.renames, *_MTP_NAMES),
    rules=(
        *experts(_MIXER + "experts.{e}", ("down_proj", "ffn_down_exps"), ("up_proj", "ffn_up_exps")),
        # the reference keeps routers in float32, but takes this one for another layer's tensor
        Rule(
            (_MIXER + "gate.weight",),
            "blk.{i}.ffn_gate_inp.weight",
            keep,
            when=is_appended,
            forced_type=lambda float_type: float_type,
        ),
    ),
    names={
        f"backbone.layers.{{i}}.{name}": f"blk.{{i}}.{target}"
        for name, target in (
            *((name, f"nextn.{name}") for name in ("enorm", "hnorm", "eh_proj")),
            ("final_layernorm", "nextn.shared_head_norm"),
            ("post_attention_layernorm", "post_attention_norm"),
        )
    },
    drops=(Drop("backbone.layers.{i}.*", when=is_left_out),),
    choices=CHOICES,
    block_count=_with_mtp,
    layer_tensors=_moe_layers,
)


def _prepared_puzzle(site: Site) -> Config:
    kinds = [block.get("block_type") for block in site.config.parts("block_configs")]
    return _prepared(site).updated(layers_block_type=kinds, num_hidden_layers=len(kinds), hybrid_override_pattern=None)


def _of_blocks(key: str) -> Callable[[Site], list[object]]:
    return lambda site: [block.get(key) or 0 for block in site.config.parts("block_configs")]


# Its layers have a config each; the layers that predict further tokens are not taken over.
nemotron_h_puzzle = nemotron_h_moe.derive(
    "nemotron_h_moe",
    hf=("NemotronHPuzzleForCausalLM",),
    when=None,
    metadata=(
        *_KEYS,
        u32("feed_forward_length", _of_blocks("moe_intermediate_size")),
        u32("expert_feed_forward_length", _of_blocks("moe_intermediate_size")),
        u32("expert_used_count", _of_blocks("num_experts_per_tok")),
        *_OF_EXPERTS,
    ),
    takes=lambda name: is_text(name) and not name.startswith("mtp."),
    prepare=_prepared_puzzle,
    choices=frozenset(),
    block_count=lambda site: site.config.block_count,
)
