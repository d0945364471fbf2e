"""Draft models that DFlash and DSpark train for another model: they have its vocabulary, and read its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gguf_forge.architectures.completeness import ATTENTION, GATED
from gguf_forge.architectures.config import Config, rope_parameters
from gguf_forge.architectures.declaration import Drop, Operation
from gguf_forge.architectures.families.qwen import qwen3
from gguf_forge.architectures.metadata import DECODER, f32, flag, u32
from gguf_forge.architectures.operations import reorder, token_table
from gguf_forge.architectures.registry import find_architecture
from gguf_forge.architectures.renames import INSIDE_MODEL, WRAPPERS
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.gguf_file import values
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tokenizer import TokenizerSource, in_order
from gguf_forge.tokenizer.checks import as_id

_ROPE = ("rope_parameters", "rope_scaling", "rope_theta")


def _settings(config: Mapping[str, object]) -> Mapping[str, object]:
    """The part of the config that describes the draft model."""
    found = config.get("dflash_config") or {}
    if not isinstance(found, dict):
        raise InputError(f"dflash_config is {found!r:.40}, not an object", file="config.json")
    return found


def _setting(key: str, beside: str | None = None) -> Callable[[Site], object]:
    """A value from the draft model's part of the config, or else from the whole config."""

    def value(site: Site) -> object:
        found = _settings(site.config).get(key)
        return site.config.find(beside) if found is None and beside is not None else found

    return value


def _softcap(site: Site) -> object:
    cap = _setting("final_logit_softcapping", "final_logit_softcapping")(site)
    return None if isinstance(cap, int | float) and cap <= 0 else cap


def _of_convolutions(key: str) -> Callable[[Site], object]:
    return lambda site: _settings(site.config).get(key) if "conv_kernel_size" in _settings(site.config) else None


def _target_layers(site: Site) -> list[int] | None:
    """The target's layers whose inputs the draft reads. The config has the numbers of the layers before them."""
    layers = _setting("target_layer_ids", "target_layer_ids")(site)
    return None if layers in (None, []) else _behind(layers, "target_layer_ids")


def target_layers(key: str) -> Callable[[Site], list[int]]:
    """The same from a key that the config must have."""
    return lambda site: _behind(site.config.find(key), key)


def _behind(layers: object, key: str) -> list[int]:
    if not isinstance(layers, list) or not all(isinstance(each, int) for each in layers):
        raise InputError(f"{key} is {layers!r:.40}, not a list of layers", file="config.json")
    return [each + 1 for each in layers]


def _window(site: Site) -> object:
    settings = _settings(site.config)
    is_used = site.config.find("use_sliding_window") or settings.get("use_swa")
    return (settings.get("swa_window_size") or site.config.find("sliding_window") or None) if is_used else None


def _windowed_layers(site: Site) -> list[bool] | None:
    if _window(site) is None:
        return None
    if _settings(site.config).get("use_swa"):
        return [True] * site.block_count
    kinds = site.config.listed("layer_types") if site.config.find("layer_types") else []
    return [kind == "sliding_attention" for kind in kinds]


def _is_causal(site: Site) -> object:
    causal = site.config.find("is_causal")
    causal = _settings(site.config).get("causal") if causal is None else causal
    return None if causal is None else bool(causal)


def _rotated(site: Site) -> int | None:
    rope = site.config.part("rope_parameters")
    if rope.find("partial_rotary_factor") is None:
        return None
    return int(site.config.head_dim * rope.number("partial_rotary_factor"))


def _sections(site: Site) -> list[int] | None:
    """The rotary sections of the draft. If the target rotates by time, height and width, the draft uses only time."""
    if site.target is None or "mrope_section" not in site.target.config.part("rope_parameters"):
        return None
    return [site.config.head_dim // 2, 0, 0, 0]


def target_vocabulary(source: TokenizerSource) -> Metadata | None:
    """The tokenizer metadata that the target's family reads from the target's folder."""
    target = find_architecture(source.files.config or {})
    reader = qwen3.tokenizer if target.vocabulary_of_target else target.tokenizer
    return reader(source) if reader is not None else None


def mask_token(source: TokenizerSource, id: object, *path: str) -> Metadata:
    """The token that stands for those to predict. Its id is under these keys of config.json."""
    place = source.files.place("config.json")
    for key in path:
        place = place / key
    return {"tokenizer.ggml.mask_token_id": values.u32(as_id(id, place))}


def _mask(source: TokenizerSource) -> Metadata:
    id = _settings(source.config).get("mask_token_id")
    return {} if id is None else mask_token(source, id, "dflash_config", "mask_token_id")


_FROM_PAIRS = reorder(
    0, (-1, lambda site: site.config.head_dim // 2, 2), (0, 2, 1), "rows from pairs to halves for rotary embedding"
)


def _to_halves(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """Reorders the rows of each head from interleaved pairs to two halves, if the config says that they are pairs."""
    (x,) = sources
    return x if site.config.get("rope_is_neox_style", True) else _FROM_PAIRS(site, x)


_SINKS = ("self_attn.sinks", "self_attn.attention_sink_bias", "self_attn.learnable_sink_param")
_ROTATED: Mapping[str, Operation] = dict.fromkeys(("attn_q", "attn_k", "attn_q_norm", "attn_k_norm"), _to_halves)

_MASK_ROW = "mask_embedding.pt"


def _checked(site: Site) -> Config:
    if site.folder.has(_MASK_ROW):
        raise UnsupportedError("the row of the mask token is not read yet", file=site.folder.path / _MASK_ROW)
    return site.config


dflash = qwen3.derive(
    "dflash",
    hf=("DFlashDraftModel", "DFlash2DraftModel"),
    metadata=(
        *DECODER,
        u32("rope.dimension_count", _rotated),
        f32("attention.value_scale", _setting("attention_value_scale")),
        u32("block_size", lambda site: _settings(site.config).get("block_size", site.config.get("block_size", 16))),
        u32("conv_kernel_size", _of_convolutions("conv_kernel_size")),
        u32("conv_group_size", _of_convolutions("conv_group_size")),
        u32("selector_rank", _of_convolutions("selector_rank")),
        u32("selector_top_k", _of_convolutions("selector_top_k")),
        f32("logit_scale", _setting("output_multiplier", "output_multiplier")),
        f32("final_logit_softcapping", _softcap),
        f32("embedding_scale", _setting("input_embedding_scale", "input_embedding_scale")),
        u32("target_layers", _target_layers),
        u32("attention.sliding_window", _window),
        flag("attention.sliding_window_pattern", _windowed_layers),
        flag("attention.causal", _is_causal),
        u32("rope.dimension_sections", _sections),
    ),
    tokenizer=in_order(target_vocabulary, _mask),
    vocabulary_of_target=True,
    renames=(*INSIDE_MODEL, *WRAPPERS),
    names={
        **{f"model.layers.{{i}}.{name}": "blk.{i}.attn_sinks.weight" for name in _SINKS},
        "model.candidate_selector.predecessor_codebook": "selector_predecessor.weight",
        "model.candidate_selector.successor_codebook": "selector_successor.weight",
    },
    rules=(),
    operations=_ROTATED,
    drops=(Drop("model.embed_tokens.weight", when=lambda site: not site.config.get("has_embed_tokens", True)),),
    prepare=_checked,
    model_tensors=("fc", "enc.output_norm", "output_norm"),
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *GATED),
)


_TABLE = "d2t"


def with_layer_config(config: Config) -> Config:
    """The config with the values of `transformer_layer_config` at the top. The speculators library nests them there."""
    nested = config.find("transformer_layer_config")
    if not isinstance(nested, dict):
        return config
    has_rope = any(key in nested for key in _ROPE)
    merged = {**{key: value for key, value in config.items() if not (has_rope and key in _ROPE)}, **nested}
    return Config({**merged, "rope_parameters": rope_parameters(merged)})


def _of_dspark(site: Site) -> Config:
    """Turns both forms of a DSpark config into the form of DFlash.

    Raises:
        UnsupportedError: the head is not a vanilla Markov head.
        InputError: the draft has more tokens than the target, or fewer and no table that maps them.
    """
    config = _checked(site)
    is_speculator = "transformer_layer_config" in config or "aux_hidden_state_layer_ids" in config
    merged = with_layer_config(config)
    layers = merged.get("aux_hidden_state_layer_ids")
    if isinstance(layers, list) and all(isinstance(each, int) for each in layers):
        own = {"mask_token_id": merged.get("mask_token_id"), "target_layer_ids": [each - 1 for each in layers]}
    else:
        own = {key: merged[key] for key in ("target_layer_ids", "mask_token_id") if key in merged}
    found = Config({"dflash_config": own, "sample_from_anchor": not is_speculator, **merged})
    if found.get("markov_head_type", "vanilla") != "vanilla":
        raise UnsupportedError(f"the Markov head {found['markov_head_type']!r:.40} is not known", file="config.json")
    if _n_tokens(found) > found.integer("vocab_size"):
        raise InputError("draft_vocab_size is larger than vocab_size", file="config.json")
    if site.tensors and not _has_all_tokens(found) and _TABLE not in site.tensors:
        raise InputError("draft_vocab_size is smaller than vocab_size, and d2t is missing", file=site.folder.path)
    return found


def _n_tokens(config: Config) -> int:
    return config.integer("draft_vocab_size") if config.find("draft_vocab_size") else config.integer("vocab_size")


def _has_all_tokens(config: Config) -> bool:
    return _n_tokens(config) == config.integer("vocab_size")


def has_confidence_head(site: Site) -> bool:
    return any("confidence_head.proj" in name or "confidence_proj" in name for name in site.tensors)


dspark = dflash.derive(
    "dflash",
    hf=("Qwen3DSparkModel", "DSparkDraftModel", "DSparkSpeculator", "Lfm2DSparkDraftModel", "LingDSparkModel"),
    metadata=(
        *dflash.metadata,
        flag("sample_from_anchor", "sample_from_anchor"),
        flag("has_confidence_head", has_confidence_head),
    ),
    rules=(token_table(f"model.{_TABLE}", "vocab_size"),),
    drops=(
        *dflash.drops,
        Drop("model.t2d"),
        Drop("model.lm_head.weight", when=lambda site: _has_all_tokens(site.config)),
    ),
    prepare=_of_dspark,
)
