"""The encoder of pictures of Granite 4 Vision: several projectors, each of them for one layer of the language model."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from gguf_forge.architectures.families.granite_moe import picture_layers
from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.projector import (
    USE_GELU,
    VISION,
    norm_epsilon,
    of_model,
    of_vision,
    projector,
    projector_type,
    vision,
)
from gguf_forge.architectures.renames import OneWay
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError

_PROJECTOR = re.compile(r"model\.(layerwise|spatial)_projectors\.([0-9]{1,6})\.")
_INNER_LAYER = re.compile(r"\.([0-9]{1,6})\.")


@dataclass(frozen=True)
class _Projector:
    """One projector. They are numbered in the order of the language model's layers.

    Attributes:
        to_layer: The layer of the language model that it feeds.
        from_layer: The layer of the encoder whose output it takes.
        kind: The list of the checkpoint that it is in.
        number: Its place in this list.
    """

    to_layer: int
    from_layer: int
    kind: str
    number: int


def _counted(layer: int, count: int) -> int:
    """The number of a layer. A negative number counts from the end."""
    return layer + count if layer < 0 else layer


def _projectors(site: Site) -> list[_Projector]:
    """The projectors that the config describes."""
    config, n_vision = site.config, vision(site).block_count
    n_text = site.config.part("text_config").block_count
    pairs, targets = picture_layers(site)
    source = _counted(config.integer("spatial_vision_layer", minimum=-(2**31), default=-1), n_vision)
    found = [
        _Projector(_counted(to, n_text), _counted(of, n_vision), "layerwise", number)
        for number, (of, to) in enumerate(sorted(pairs))
    ]
    found += [_Projector(to, source, "spatial", number) for number, to in enumerate(targets)]
    return sorted(found, key=lambda one: one.to_layer)


def _by_layer(name: str, site: Site) -> str:
    """Gives the projectors the numbers that they have in the file, which the layers inside of them take, too."""
    found = _PROJECTOR.match(name)
    which = [(one.kind, one.number) for one in _projectors(site)] if found else []
    if found is None or (found[1], int(found[2])) not in which:
        return name
    number, rest = which.index((found[1], int(found[2]))), name[found.end() :]
    stem = f"model.{found[1]}_projectors."
    inner = _INNER_LAYER.search(rest)
    if inner is None:
        return f"{stem}{number}.{rest}"
    return f"{stem}{rest[: inner.start()]}.{number}.{rest[inner.end() :]}"


def _side(which: int) -> Callable[[Site], int]:
    """The side of the window of queries (0), or of the window of features that they stand for (1)."""

    def side(site: Site) -> int:
        rate = of_model("downsample_rate")(site)
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", rate) if isinstance(rate, str) else None
        if found is None:
            raise InputError(f"downsample_rate is {rate!r:.40}, not two numbers such as 4/8", file="config.json")
        return int(found[which + 1])

    return side


def _resolutions(site: Site) -> list[int] | None:
    """The sizes that a picture is scaled to, width before height."""
    if not site.config.find("image_grid_pinpoints"):
        return None
    return [side for height, width in site.config.pairs("image_grid_pinpoints") for side in (width, height)]


granite4_vision = projector(
    "Granite4VisionForConditionalGeneration",
    metadata=(
        *VISION,
        projector_type("granite4_vision"),
        norm_epsilon("layer_norm_eps", default=1e-6),
        USE_GELU,
        u32("vision.preproc_image_size", of_vision("image_size", default=384)),
        u32("vision.projector.query_side", _side(0)),
        u32("vision.projector.window_side", _side(1)),
        u32("vision.feature_layer", lambda site: [one.from_layer for one in _projectors(site)]),
        u32(
            "vision.projector.spatial_offsets",
            lambda site: [one.number if one.kind == "spatial" else -1 for one in _projectors(site)],
        ),
        u32("vision.image_grid_pinpoints", _resolutions),
    ),
    takes=lambda name: (
        "vision_model.head" not in name and not name.startswith("lm_head") and "language_model." not in name
    ),
    renames=(OneWay(_by_layer),),
    model_tensors=("v.patch_embd",),
)
