"""Layers behind a model's own, which predict further tokens (MTP, NextN): kept, left out, or taken alone."""

from __future__ import annotations

from gguf_forge.architectures.declaration import Drop
from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.renames import Appended, Rename
from gguf_forge.architectures.site import Site

# The options of the conversion that say which layers are wanted.
CHOICES = frozenset(("no_mtp", "mtp_only"))

# What the layer has on top of what a layer with attention has.
NEXTN = ("nextn.eh_proj", "nextn.enorm", "nextn.hnorm")

# What checkpoints call these tensors of the layer, for the way back.
NEXTN_NAMES = tuple(
    f"model.layers.{{i}}.{name}"
    for name in ("eh_proj", "enorm", "hnorm", "embed_tokens", "shared_head.norm", "shared_head.head")
)

# The names under `mtp.`, which count the appended layers by themselves.
MTP_NAMES: tuple[Rename, ...] = (
    Appended("mtp.layers.{i}."),
    Appended("mtp.fc.", "eh_proj."),
    Appended("mtp.pre_fc_norm_embedding.", "enorm."),
    Appended("mtp.pre_fc_norm_hidden.", "hnorm."),
    Appended("mtp.norm.", "shared_head.norm."),
)


def is_appended(site: Site) -> bool:
    """Is the layer at hand none of the model's own?"""
    return site.layer is not None and site.layer >= site.config.block_count


def is_left_out(site: Site) -> bool:
    """Does the conversion leave out the layer at hand?"""
    return ("no_mtp" if is_appended(site) else "mtp_only") in site.choices


def counted_layers(site: Site) -> int:
    """How many appended layers the config counts, of those that the conversion keeps."""
    if "no_mtp" in site.choices or site.config.find("num_nextn_predict_layers") is None:
        return 0
    return site.config.integer("num_nextn_predict_layers", minimum=0, maximum=1000)


def with_counted_layers(site: Site) -> int:
    """How many layers there are with those that the config counts behind the model's own."""
    return site.config.block_count + counted_layers(site)


# Some families say how many appended layers there are only if there are any, others say also that there are none.
SOME_NEXTN = u32("nextn_predict_layers", lambda site: counted_layers(site) or None)
NEXTN_COUNT = u32(
    "nextn_predict_layers",
    lambda site: None if "no_mtp" in site.choices else site.config.find("num_nextn_predict_layers"),
)

# What the conversion was told to leave out of the model's own layers and of those behind them.
LEFT_OUT_LAYERS = Drop("model.layers.{i}.*", when=is_left_out)
