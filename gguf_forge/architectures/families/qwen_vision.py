"""The encoders of pictures of Qwen2-VL to Qwen3.5, and of models that are built as they are."""

from __future__ import annotations

import re
from itertools import pairwise

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Rule
from gguf_forge.architectures.metadata import f32, flag, text, u32
from gguf_forge.architectures.operations import index, part_of
from gguf_forge.architectures.projector import (
    USE_GELU,
    USE_SILU,
    VISION,
    of_model,
    of_text,
    of_vision,
    one_after_the_other,
    projector,
    projector_type,
    vision,
    where,
    with_vision,
)
from gguf_forge.architectures.renames import OneWay, starts
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError

# The convolution takes two frames of a film. The weights of each frame are a tensor of their own.
FRAMES = tuple(
    Rule(("visual.patch_embed.proj.weight",), f"v.patch_embd.weight{suffix}", index(frame, -3, of=2))
    for frame, suffix in enumerate(("", ".1"))
)


def split_qkv(source: str) -> tuple[Rule, ...]:
    """Rules that cut queries, keys and values, stored as one tensor, into three."""
    return tuple(
        Rule((f"{source}.{kind}",), f"v.blk.{{i}}.attn_{part}.{kind}", part_of(which, 3))
        for kind in ("weight", "bias")
        for which, part in enumerate("qkv")
    )


_QWEN2_TYPES = {"qwen2_vl": "qwen2vl_merger", "qwen2_5_vl": "qwen2.5vl_merger", "qwen2_5_omni": "qwen2.5o"}


def _qwen2_type(site: Site) -> str:
    kind = site.config.find("model_type")
    if not isinstance(kind, str) or kind not in _QWEN2_TYPES:
        raise UnsupportedError(f"model_type is {kind!r:.40}, not one of {', '.join(_QWEN2_TYPES)}", file="config.json")
    return _QWEN2_TYPES[kind]


def window_pattern(site: Site) -> int:
    """The interval of the layers that attend to the whole picture."""
    full = vision(site).integers("fullatt_block_indexes")
    if not full:
        raise InputError("fullatt_block_indexes names no layer", file="config.json")
    step = full[0] + 1
    if any(later - layer != step for layer, later in pairwise(full)):
        raise InputError(f"fullatt_block_indexes is {full!r:.40}, not every {step}. layer", file="config.json")
    return step


# If the encoder's config has `embed_dim` as its width, its `hidden_size` is the width of the language model.
QWEN2_CONFIG = with_vision(
    image_size=of_vision("image_size", default=560),
    num_attention_heads=of_vision("num_heads"),
    num_hidden_layers=of_vision("depth"),
    intermediate_size=lambda site: of_vision("hidden_size" if "embed_dim" in vision(site) else "intermediate_size")(
        site
    ),
    hidden_size=of_vision("embed_dim", "hidden_size"),
)
QWEN2_SHAPE = (
    text("projector_type", _qwen2_type),
    where(
        lambda site: site.config.find("model_type") != "qwen2_vl",
        USE_SILU,
        u32("vision.n_wa_pattern", window_pattern),
    ),
    f32("vision.attention.layer_norm_epsilon", of_model("rms_norm_eps", default=1e-6)),
)
QWEN2_RULES = (*FRAMES, *split_qkv("visual.blocks.{i}.attn.qkv"))

qwen2_vision = projector(
    "Qwen2VLModel",
    "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    metadata=(*VISION, *QWEN2_SHAPE),
    prepare=QWEN2_CONFIG,
    takes=lambda name: name.startswith("visual."),
    rules=QWEN2_RULES,
    model_tensors=("v.patch_embd", "mm.0", "mm.2"),
)

sarashina_vision = qwen2_vision.derive(
    "clip",
    hf=("Sarashina2VisionForCausalLM",),
    prepare=one_after_the_other(
        lambda site: site.config.updated(model_type="qwen2_vl"),
        QWEN2_CONFIG,
    ),
)


def _image_size(site: Site) -> int:
    """The side in pixels of the square picture whose patches have learned positions."""
    found = vision(site)
    positions = found.integer("num_position_embeddings") if "num_position_embeddings" in found else 2304
    return int(positions**0.5 * (found.integer("patch_size") if "patch_size" in found else 16))


def deepstack_layers(site: Site) -> list[int]:
    """The layers of the encoder that feed layers of the language model, too."""
    layers, count = of_vision("deepstack_visual_indexes", default=[])(site), vision(site).integer("num_hidden_layers")
    if not isinstance(layers, list) or not all(type(layer) is int and 0 <= layer < count for layer in layers):
        raise InputError(f"deepstack_visual_indexes is {layers!r:.40}, not a list of layers", file="config.json")
    return layers


def _is_deepstack(site: Site) -> list[bool]:
    layers = set(deepstack_layers(site))
    return [layer in layers for layer in range(vision(site).integer("num_hidden_layers", maximum=10_000))]


_DEEPSTACK_PARTS = {"norm": "norm", "linear_fc1": "fc1", "linear_fc2": "fc2"}


def _of_layer(name: str, site: Site) -> str:
    found = re.match(r"visual\.deepstack_merger_list\.([0-9]{1,6})\.(norm|linear_fc1|linear_fc2)\.", name)
    layers = deepstack_layers(site) if found else []
    if found is None or int(found[1]) >= len(layers):
        return name
    return f"v.deepstack.{layers[int(found[1])]}.{_DEEPSTACK_PARTS[found[2]]}.{name[found.end() :]}"


# Numbers the projectors of layers inside the encoder by these layers, where checkpoints count the projectors.
DEEPSTACK = OneWay(_of_layer)


QWEN3_CONFIG = with_vision(
    image_size=lambda site: of_vision("image_size", default=_image_size(site))(site),
    num_attention_heads=of_vision("num_heads"),
    num_hidden_layers=of_vision("depth"),
)
QWEN3_SHAPE = (
    USE_GELU,
    u32("vision.spatial_merge_size", of_vision("spatial_merge_size", default=None)),
    f32("vision.attention.layer_norm_epsilon", of_text("rms_norm_eps", default=1e-6)),
    flag("vision.is_deepstack_layers", _is_deepstack),
)
QWEN3_RENAMES = (
    starts("visual.merger.linear_fc1.", "mm.0."),
    starts("visual.merger.linear_fc2.", "mm.2."),
    starts("visual.merger.norm.", "v.post_ln."),
    DEEPSTACK,
)

qwen3_vision = projector(
    "Qwen3VLForConditionalGeneration",
    "Qwen3VLMoeForConditionalGeneration",
    "Qwen3_5ForConditionalGeneration",
    "Qwen3_5MoeForConditionalGeneration",
    "Qwen4ExpForConditionalGeneration",
    metadata=(*VISION, projector_type("qwen3vl_merger"), *QWEN3_SHAPE),
    prepare=QWEN3_CONFIG,
    takes=lambda name: name.startswith(("visual.", "model.visual.")),
    renames=(starts("model."), *QWEN3_RENAMES),
    rules=FRAMES,
    model_tensors=("v.patch_embd", "mm.0", "mm.2"),
)


def _without_merger(site: Site) -> Config:
    if vision(site).find("disable_merger_proj") is not True:
        raise UnsupportedError("disable_merger_proj is not true; only such a projector is known", file="config.json")
    return site.config


ling_vision = projector(
    "BailingMoeV3VLForConditionalGeneration",
    metadata=(*VISION, projector_type("ling3vl"), *QWEN3_SHAPE[:-1]),
    prepare=one_after_the_other(_without_merger, QWEN3_CONFIG),
    takes=lambda name: name.startswith(("visual.", "model.visual.", "linear_proj.")),
    # the projector stands outside of the encoder, which ends with a norm
    renames=(
        starts("model."),
        starts("linear_proj.", "mm."),
        starts("visual.merger.norm.", "mm.input_norm."),
        DEEPSTACK,
    ),
    rules=FRAMES,
    model_tensors=("v.patch_embd", "mm.0", "mm.2"),
)
