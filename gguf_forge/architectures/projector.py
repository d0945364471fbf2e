"""Common parts of the declarations of projectors for pictures and sound: how to find their configs, and metadata.

The file of a projector also holds the encoder of pictures (`v.` tensors, `clip.vision.` keys), the encoder of sound
(`a.` tensors, `clip.audio.` keys), or both. Source: MmprojModel in llama.cpp's conversion/base.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gguf_forge.architectures.config import OTHER_FOLDER, Config
from gguf_forge.architectures.declaration import Architecture, MetadataLine, Operation
from gguf_forge.architectures.metadata import Lines, f32, file_type, flag, text, u32
from gguf_forge.architectures.operations import Number, number_of, reorder, reshape
from gguf_forge.architectures.renames import ends
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.storage.json_file import read_json_object
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import length
from gguf_forge.types.tensor_type import F16, F32, TensorType

# The limit on layers in files with both encoders. Either encoder may have this many.
MOST_LAYERS = 128

_REQUIRED = object()
_PREPROCESSOR = "preprocessor_config.json"
_PROCESSOR = "processor_config.json"


BLOCKS = (
    "n_layers",
    "num_hidden_layers",
    "n_layer",
    "num_layers",
    "depth",
    "layers",
    "encoder_layers",
    "vt_num_hidden_layers",
)


def vision(site: Site) -> Config:
    """The config of the pictures' encoder."""
    return site.config.part("vision_config")


def audio(site: Site) -> Config:
    """The config of the sounds' encoder."""
    return site.config.part("whisper_config" if "whisper_config" in site.config else "audio_config")


def has_vision(site: Site) -> bool:
    return bool(vision(site))


def has_audio(site: Site) -> bool:
    return bool(audio(site))


def preprocessor(site: Site) -> Config:
    """The preprocessing of pictures and sounds: preprocessor_config.json, overridden by processor_config.json."""
    found: dict[str, object] = {}
    for name, inner in ((_PREPROCESSOR, "media_proc_cfg"), (_PROCESSOR, "image_processor")):
        if site.folder.has(name):
            values = read_json_object(site.folder, name)
            nested = values.get(inner)
            found |= {**values, **(nested if isinstance(nested, dict) else {})}
    return Config(found, _PREPROCESSOR)


def of_vision(*keys: str, default: object = _REQUIRED) -> Callable[[Site], object]:
    """The value of the first of these keys that the config of the pictures' encoder has."""
    return lambda site: _value(vision(site), keys, default, "vision_config")


def of_audio(*keys: str, default: object = _REQUIRED) -> Callable[[Site], object]:
    """The value of the first of these keys that the config of the sounds' encoder has."""
    return lambda site: _value(audio(site), keys, default, "audio_config")


def of_preprocessor(*keys: str, default: object = _REQUIRED) -> Callable[[Site], object]:
    """The value of the first of these keys that the preprocessor's config files have."""
    return lambda site: _value(preprocessor(site), keys, default, "it")


def of_model(*keys: str, default: object = _REQUIRED) -> Callable[[Site], object]:
    """The value of the first of these keys that config.json has outside of the encoders."""
    return lambda site: _value(site.config, keys, default, "it")


def of_text(*keys: str, default: object = _REQUIRED) -> Callable[[Site], object]:
    """The value of the first of these keys that the language model's part of config.json has."""
    return lambda site: _value(site.config.part("text_config"), keys, default, "text_config")


def text_width(site: Site) -> int:
    """The width of the language model's embeddings."""
    return site.config.updated(**site.config.part("text_config")).integer("hidden_size", "n_embd")


def _value(config: Config, keys: tuple[str, ...], default: object, where: str) -> object:
    if any(key in config for key in keys):
        return config.find(*keys)
    if default is _REQUIRED:
        raise InputError(f"{where} lacks {' / '.join(keys)}", file=config.file, hint=OTHER_FOLDER)
    return default


def always(value: object) -> Callable[[Site], object]:
    """A value that does not depend on the model."""
    return lambda site: value


def where(condition: Callable[[Site], bool], *lines: MetadataLine) -> MetadataLine:
    """Metadata lines that are written only for models that meet the condition."""

    def chosen(site: Site) -> Lines:
        return (pair for line in lines for pair in line(site)) if condition(site) else ()

    return chosen


def with_vision(**changes: Callable[[Site], object]) -> Callable[[Site], Config]:
    """The config with further values for the pictures' encoder, in addition to those of its config."""
    return lambda site: _changed(site, vision_config={**vision(site), **_values(site, changes)})


def with_audio(**changes: Callable[[Site], object]) -> Callable[[Site], Config]:
    """The config with further values for the sounds' encoder, in addition to those of its config."""
    return lambda site: _changed(site, audio_config={**audio(site), **_values(site, changes)})


def audio_under(key: str) -> Callable[[Site], Config]:
    """The config with the sounds' encoder moved from `key` to the key that all other families use."""
    return lambda site: _changed(site, audio_config=site.config.part(key))


def one_after_the_other(*steps: Callable[[Site], Config]) -> Callable[[Site], Config]:
    """Several changes of the config, each applied to the result of the one before."""

    def prepared(site: Site) -> Config:
        for step in steps:
            site = replace(site, config=step(site))
        return site.config

    return prepared


def _values(site: Site, changes: Mapping[str, Callable[[Site], object]]) -> dict[str, object]:
    return {key: value(site) for key, value in changes.items()}


def _changed(site: Site, **changes: object) -> Config:
    return site.config.without("whisper_config").updated(**changes)


def normalization(mean: list[float], deviation: list[float]) -> tuple[MetadataLine, ...]:
    """How pictures are normalized, according to the preprocessor's config files, or else with these numbers."""
    return (
        f32("vision.image_mean", of_preprocessor("image_mean", default=mean)),
        f32("vision.image_std", of_preprocessor("image_std", default=deviation)),
    )


# The keys of every encoder of pictures: its sizes, and how pictures are normalized.
VISION_SIZES: tuple[MetadataLine, ...] = (
    flag("has_vision_encoder", always(True)),
    u32("vision.projection_dim", text_width),
    u32("vision.image_size", of_vision("image_size")),
    u32("vision.patch_size", of_vision("patch_size")),
    u32("vision.embedding_length", of_vision("hidden_size", "width", "vt_hidden_size")),
    u32("vision.feed_forward_length", of_vision("intermediate_size", "vt_intermediate_size")),
    u32("vision.block_count", of_vision(*BLOCKS)),
    u32(
        "vision.attention.head_count",
        of_vision("num_attention_heads", "num_heads", "heads", "vt_num_attention_heads"),
    ),
)
VISION: tuple[MetadataLine, ...] = (
    *VISION_SIZES,
    f32("vision.image_mean", of_preprocessor("image_mean")),
    f32("vision.image_std", of_preprocessor("image_std")),
)

AUDIO: tuple[MetadataLine, ...] = (
    flag("has_audio_encoder", always(True)),
    u32("audio.projection_dim", text_width),
    u32("audio.embedding_length", of_audio("hidden_size")),
    u32("audio.feed_forward_length", of_audio("intermediate_size")),
    u32("audio.block_count", of_audio(*BLOCKS)),
    u32("audio.attention.head_count", of_audio("num_attention_heads")),
)

# How CLIP normalizes pictures, for models whose files do not say it.
CLIP_MEAN, CLIP_DEVIATION = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]

USE_GELU = flag("use_gelu", always(True))
USE_SILU = flag("use_silu", always(True))


def _activation(site: Site) -> str:
    return str(vision(site).find("hidden_act")).lower()


# The keys for the activation of the pictures' encoder, for projectors where llama.cpp reads it from the file.
ACTIVATION = (
    where(lambda site: _activation(site) == "gelu", USE_GELU),
    where(lambda site: _activation(site) == "silu", USE_SILU),
)


def known_activation(*gelu: str, default: object = _REQUIRED) -> MetadataLine:
    """The keys for the activation of the pictures' encoder; an error if llama.cpp does not have this activation.

    Args:
        gelu: The names that mean GELU.
        default: The activation of a config that names none.
    """

    def line(site: Site) -> Lines:
        name = of_vision("hidden_act", default=default)(site)
        if name not in (*gelu, "silu"):
            known = ", ".join((*gelu, "silu"))
            raise UnsupportedError(f"hidden_act is {name!r:.40}, not one of {known}", file="config.json")
        return (USE_SILU if name == "silu" else USE_GELU)(site)

    return line


MIN_PIXELS = u32("vision.image_min_pixels", of_preprocessor("min_pixels"))
MAX_PIXELS = u32("vision.image_max_pixels", of_preprocessor("max_pixels"))


def projector_type(name: str) -> MetadataLine:
    """The kind of projector that llama.cpp builds, for files with one encoder."""
    return text("projector_type", always(name))


def norm_epsilon(*keys: str, default: object = _REQUIRED) -> MetadataLine:
    """The epsilon in the norms of the pictures' encoder, which is added to the variance before the square root."""
    return f32("vision.attention.layer_norm_epsilon", of_vision(*keys, default=default))


def _layers(prefix: str) -> tuple[str, ...]:
    roles = ("ln1", "ln2", *(f"attn_{part}|attn_qkv" for part in "qkv"), "attn_out", "ffn_up", "ffn_down")
    return tuple("|".join(f"{prefix}.blk.{{i}}.{role}" for role in each.split("|")) for each in roles)


_VISION_LAYER, _AUDIO_LAYER = _layers("v"), _layers("a")


def usual_layer(site: Site) -> tuple[str, ...]:
    """The tensors of a transformer layer, for each encoder that has the site's layer."""
    layer = site.layer or 0
    found: tuple[str, ...] = ()
    if has_vision(site) and layer < vision(site).integer(*BLOCKS, minimum=0):
        found += _VISION_LAYER
    if has_audio(site) and layer < audio(site).integer(*BLOCKS, minimum=0):
        found += _AUDIO_LAYER
    return found


def _block_count(site: Site) -> int:
    return (vision(site) or audio(site)).integer(*BLOCKS, minimum=0, maximum=10_000)


def as_base(base: TensorType) -> TensorType:
    """F16 in a file of F16, otherwise F32. llama.cpp's convolutions take only these two types."""
    return F16 if base == F16 else F32


def as_f16(base: TensorType) -> TensorType:
    return F16


def as_f32(base: TensorType) -> TensorType:
    return F32


# Types of the convolutions that cut a picture into patches, and of their further parts.
PATCHES = {"*.patch_embd": as_base, "*.patch_embd.weight.{i}": as_base, "*.patch_merger": as_base}


def colour_planes(side: Number) -> Operation:
    """Reorders the weights of patches with `side` x `side` pixels, so that all pixels of one colour are together.

    Checkpoints store the colours of each pixel together.
    """
    by_colour = reorder(-1, (side, side, -1), (2, 0, 1), "columns in the order of colours")

    def apply(site: Site, /, *sources: TensorExpr) -> TensorExpr:
        (x,) = sources
        if len(x.shape) == 1:  # the bias
            return x
        pixels = number_of(side, site)
        return reshape(length(x, 0), -1, pixels, pixels)(site, by_colour(site, x))

    return apply


def projector(*hf: str, metadata: tuple[MetadataLine, ...] = VISION, **changes: Any) -> Architecture:
    """A declaration of a projector with its encoders.

    Args:
        hf: The class names in config.json.
        metadata: All keys except the file type.
        changes: Parts of the declaration that differ from the usual ones.

    Example:
        >>> projector("Gemma3ForConditionalGeneration", takes=lambda name: name.startswith("vision_tower.")).name
        'clip'
    """
    usual: dict[str, Any] = {
        "read_config": Config.in_parts,
        "renames": (ends("e_score_correction_bias", "e_score_correction.bias"),),
        "shapes": {},
        "model_tensors": (),
        "layer_tensors": usual_layer,
        "block_count": _block_count,
        "forced_types": PATCHES,
    }
    return Architecture(
        "clip", hf=hf, metadata=(file_type, *metadata), tokenizer=None, part="mmproj", **{**usual, **changes}
    )
