"""Rewrites a family's checkpoint names before they are looked up in the name tables: replacements, in order."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from gguf_forge.architectures.site import Site


class Rename(Protocol):
    """One step of the rewriting, and the step that undoes it."""

    def __call__(self, name: str, site: Site, /) -> str: ...

    def undone(self, name: str, site: Site, /) -> str:
        """The name before this step. The conversion back to a checkpoint needs it."""
        ...


@dataclass(frozen=True)
class Replacement:
    """Replaces some parts of a checkpoint name.

    Attributes:
        old: The text to replace, with its dots, so that it matches whole parts of a name.
        new: The text that replaces it.
        where: At the start of the name, at its end, or once anywhere.
        put_back: Whether checkpoints always have the old name, so that the conversion back restores it.
    """

    old: str
    new: str
    where: Literal["start", "end", "inside"]
    put_back: bool = True

    def __call__(self, name: str, site: Site, /) -> str:
        return self.applied(name)

    def applied(self, name: str) -> str:
        """The name with the replacement made."""
        return _replaced(name, self.old, self.new, self.where)

    def undone(self, name: str, site: Site, /) -> str:
        return _replaced(name, self.new, self.old, self.where) if self.put_back else name


def _replaced(name: str, old: str, new: str, where: str) -> str:
    if where == "start":
        return new + name[len(old) :] if name.startswith(old) else name
    if where == "end":
        return name[: -len(old)] + new if name.endswith(old) else name
    return name.replace(old, new, 1)


def starts(old: str, new: str = "", *, put_back: bool | None = None) -> Replacement:
    """Replaces the beginning of a name.

    By default, a beginning that is only removed is not put back, because some checkpoints have it and some do not.

    Example:
        >>> starts("bert.").applied("bert.encoder.layer.0.output.dense.weight")
        'encoder.layer.0.output.dense.weight'
    """
    return Replacement(old, new, "start", bool(new) if put_back is None else put_back)


def ends(old: str, new: str, *, put_back: bool = True) -> Replacement:
    """Replaces the end of a name.

    Example:
        >>> ends(".gamma", ".weight").applied("embeddings.LayerNorm.gamma")
        'embeddings.LayerNorm.weight'
    """
    return Replacement(old, new, "end", put_back)


def inside(old: str, new: str) -> Replacement:
    """Replaces some parts in the middle of a name; both texts begin and end with a dot.

    Example:
        >>> inside(".moe.", ".feed_forward.").applied("model.layers.0.moe.router.weight")
        'model.layers.0.feed_forward.router.weight'
    """
    return Replacement(old, new, "inside")


@dataclass(frozen=True)
class Appended:
    """Renames a tensor that checkpoints store outside of the model's layers to a tensor of an appended layer.

    Layers that predict further tokens are stored like this: `mtp.layers.0.` becomes the first layer after the model's
    own.

    Attributes:
        old: The beginning of the name. `{i}` is the number among the appended layers; without `{i}` it is 0.
        new: The beginning of the name inside the layer.
        layers: The beginning of the names of the model's own layers.
    """

    old: str
    new: str = ""
    layers: str = "model.layers."

    def __call__(self, name: str, site: Site, /) -> str:
        found = re.match(re.escape(self.old).replace(r"\{i\}", "([0-9]{1,6})"), name)
        if found is None:
            return name
        layer = site.config.block_count + int(found[1] if found.lastindex else 0)
        return f"{self.layers}{layer}.{self.new}{name[found.end() :]}"

    def undone(self, name: str, site: Site, /) -> str:
        found = re.match(rf"{re.escape(self.layers)}([0-9]{{1,6}})\.{re.escape(self.new)}", name)
        number = int(found[1]) - site.config.block_count if found else -1
        if found is None or number < 0 or (number > 0 and "{i}" not in self.old):
            return name
        return self.old.replace("{i}", str(number)) + name[found.end() :]


@dataclass(frozen=True)
class OneWay:
    """A renaming that the conversion back to a checkpoint does not undo.

    Attributes:
        renamed: Gives a tensor its new name.
    """

    renamed: Callable[[str, Site], str]

    def __call__(self, name: str, site: Site, /) -> str:
        return self.renamed(name, site)

    def undone(self, name: str, site: Site, /) -> str:
        return name


# Removes the prefixes that multimodal checkpoints put before the names of their language model, and gives the
# correction of sigmoid routers its usual name.
WRAPPERS: tuple[Rename, ...] = (
    starts("language_model."),
    starts("model.language_model.", "model.", put_back=False),
    ends("e_score_correction_bias", "e_score_correction.bias"),
)

# Puts the prefix `model.` before all names. Checkpoints of a model without a head lack it, or have it.
INSIDE_MODEL: tuple[Rename, ...] = (starts("model."), starts("", "model."))

# Names of tensors in checkpoints that hold only the body of a model, without its head. They lack the prefix `model.`.
BODY_NAMES = (
    *("embed_tokens", "norm"),
    *(f"layers.{{i}}.{name}_layernorm" for name in ("input", "post_attention", "pre_feedforward", "post_feedforward")),
    *(f"layers.{{i}}.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
    *(f"layers.{{i}}.mlp.{name}_proj" for name in ("gate", "up", "down")),
)
