"""The shapes that tensors must have according to the config. No program could load a file that disagrees with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError

# A size along one axis; None if the config does not determine it.
Size: TypeAlias = Callable[[Site], int] | None


def at_layer(site: Site, *keys: str) -> int:
    """A whole number of the config. The config may also have a list of them, with one number for each layer."""
    found = site.config.find(*keys)
    if not isinstance(found, list) or site.layer is None:
        return site.config.integer(*keys)
    if site.layer >= len(found):
        raise InputError(f"{keys[0]} has no value for layer {site.layer}", file=site.config.file)
    return site.config.updated(**{keys[0]: found[site.layer]}).integer(keys[0])


def hidden(site: Site) -> int:
    return site.config.integer("hidden_size", "n_embd", "dim")


def inner(site: Site) -> int:
    """The width inside of a dense feed-forward part, which models with experts may have under a key of its own."""
    dense = ("prefix_dense_intermediate_size", "dense_intermediate_size")
    return at_layer(site, *dense, "intermediate_size", "n_inner", "hidden_dim")


def heads(site: Site) -> int:
    return at_layer(site, "num_attention_heads", "n_head", "n_heads")


def key_heads(site: Site) -> int:
    found = site.config.find("num_key_value_heads", "n_kv_heads", "n_head_kv")
    return heads(site) if found is None else at_layer(site, "num_key_value_heads", "n_kv_heads", "n_head_kv")


def queries(site: Site) -> int:
    return heads(site) * site.config.head_dim


def keys(site: Site) -> int:
    return key_heads(site) * site.config.head_dim


def n_expert(site: Site) -> int:
    return site.config.expert_count


# GGUF role of a weight -> its shape, outermost axis first, as nearly every decoder has it.
DECODER_SHAPES: Mapping[str, tuple[Size, ...]] = {
    "token_embd": (None, hidden),
    "output": (None, hidden),
    "output_norm": (hidden,),
    "attn_norm": (hidden,),
    "attn_q": (queries, hidden),
    "attn_k": (keys, hidden),
    "attn_v": (keys, hidden),
    "attn_output": (hidden, queries),
    "ffn_gate": (inner, hidden),
    "ffn_up": (inner, hidden),
    "ffn_down": (hidden, inner),
    "ffn_gate_inp": (n_expert, hidden),
    "ffn_gate_exps": (n_expert, None, hidden),
    "ffn_up_exps": (n_expert, None, hidden),
    "ffn_down_exps": (n_expert, hidden, None),
}

# The shapes that are left where attention has others: latent attention, or heads that differ from layer to layer.
SHAPES_WITHOUT_ATTENTION = {
    role: sizes for role, sizes in DECODER_SHAPES.items() if not role.startswith("attn_") or role == "attn_norm"
}


def disagreement(shape: tuple[int, ...], sizes: tuple[Size, ...], site: Site) -> str | None:
    """The end of a message about a tensor's wrong shape; None if the shape agrees with the config.

    Example:
        >>> from pathlib import Path
        >>> from gguf_forge.architectures.config import Config
        >>> from gguf_forge.storage.local.folder import LocalFolder
        >>> site = Site(Config.of({"hidden_size": 5}), LocalFolder(Path(".")))
        >>> disagreement((8, 4), (None, hidden), site)
        'is 8 x 4, the config says any x 5'
    """
    wanted = [size and size(site) for size in sizes]
    if len(shape) == len(wanted) and all(want in (None, have) for have, want in zip(shape, wanted, strict=True)):
        return None
    said = " x ".join("any" if want is None else str(want) for want in wanted)
    return f"is {' x '.join(map(str, shape))}, the config says {said}"
