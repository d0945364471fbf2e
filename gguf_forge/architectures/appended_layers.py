"""Layers behind a model's own, which predict further tokens (MTP, NextN): kept, left out, or taken alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gguf_forge.architectures.declaration import Architecture, Drop
from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.renames import Appended, Rename
from gguf_forge.architectures.site import Site

# The options of the conversion that say which layers are wanted.
CHOICES = frozenset(("no_mtp", "mtp_only"))

# The tensors that an appended layer has in addition to those of a layer with attention.
NEXTN = ("nextn.eh_proj", "nextn.enorm", "nextn.hnorm")

# The checkpoint names of these tensors. The conversion back from GGUF to a checkpoint needs them.
NEXTN_NAMES = tuple(
    f"model.layers.{{i}}.{name}"
    for name in ("eh_proj", "enorm", "hnorm", "embed_tokens", "shared_head.norm", "shared_head.head")
)

# Names that begin with `mtp.`. They count the appended layers from 0, apart from the model's own layers.
MTP_NAMES: tuple[Rename, ...] = (
    Appended("mtp.layers.{i}."),
    Appended("mtp.fc.", "eh_proj."),
    Appended("mtp.pre_fc_norm_embedding.", "enorm."),
    Appended("mtp.pre_fc_norm_hidden.", "hnorm."),
    Appended("mtp.norm.", "shared_head.norm."),
)


def is_appended(site: Site) -> bool:
    """Whether the site's layer is an appended layer, behind the model's own."""
    return site.layer is not None and site.layer >= site.config.block_count


def is_left_out(site: Site) -> bool:
    """Whether the conversion leaves out the site's layer."""
    return ("no_mtp" if is_appended(site) else "mtp_only") in site.choices


def counted_layers(site: Site) -> int:
    """How many appended layers the config counts; 0 if the conversion leaves them out."""
    if "no_mtp" in site.choices or site.config.find("num_nextn_predict_layers") is None:
        return 0
    return site.config.integer("num_nextn_predict_layers", minimum=0, maximum=1000)


def with_counted_layers(site: Site) -> int:
    """The number of layers in total: the model's own and the appended ones that the conversion keeps."""
    return site.config.block_count + counted_layers(site)


# SOME_NEXTN writes the number of appended layers only if it is not 0. NEXTN_COUNT writes it even if it is 0.
SOME_NEXTN = u32("nextn_predict_layers", lambda site: counted_layers(site) or None)
NEXTN_COUNT = u32(
    "nextn_predict_layers",
    lambda site: None if "no_mtp" in site.choices else site.config.find("num_nextn_predict_layers"),
)

# Leaves out the layers that the options exclude: the appended ones (`no_mtp`), or the model's own (`mtp_only`).
LEFT_OUT_LAYERS = Drop("model.layers.{i}.*", when=is_left_out)


def with_appended_layers(own: Architecture, count: Callable[[Site], int] = counted_layers) -> Architecture:
    """A declaration of a model with appended layers, which the options leave out or take alone.

    Args:
        own: The declaration. Its `layer_tensors` says what a layer has in any case.
        count: How many appended layers the file has.
    """
    tensors = own.layer_tensors

    def of_layer(site: Site) -> tuple[str, ...]:
        if tensors is None or is_left_out(site):
            return ()
        return (*tensors(site), *(NEXTN if is_appended(site) else ()))

    return replace(
        own,
        drops=(*own.drops, LEFT_OUT_LAYERS),
        block_count=lambda site: site.config.block_count + count(site),
        choices=CHOICES,
        drop_extra_layers=False,
        layer_tensors=None if tensors is None else of_layer,
    )
