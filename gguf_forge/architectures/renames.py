"""How a family's checkpoint names are rewritten before the name tables are asked: anchored replacements, in order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Protocol

from gguf_forge.architectures.site import Site


class Rename(Protocol):
    """One step of the rewriting, and the way back from it."""

    def __call__(self, name: str, site: Site, /) -> str: ...

    def undone(self, name: str, site: Site, /) -> str:
        """The name before, on the way back to a checkpoint."""
        ...


@dataclass(frozen=True)
class Replacement:
    """Some parts of a checkpoint name replaced.

    Attributes:
        old: What is replaced; with its dots, so that it matches whole parts of a name.
        new: What takes its place.
        where: At the start of the name, at its end, or once anywhere.
        put_back: Whether checkpoints always have the old name, so that the way back restores it.
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
    """Replaces the beginning of a name. What is only taken away is not put back: checkpoints come with and without it.

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
    """A tensor that checkpoints keep beside the model's layers, as one of the layers behind them.

    Layers that predict further tokens are stored so: `mtp.layers.0.` stands in the first layer after the model's own.

    Attributes:
        old: How the name begins; `{i}` is the number among the appended layers, which is 0 where it does not stand.
        new: What the name begins with inside the layer.
        layers: What the names of the model's own layers begin with.
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


# What multimodal checkpoints put around their language model, and how sigmoid routers call their correction.
WRAPPERS: tuple[Rename, ...] = (
    starts("language_model."),
    starts("model.language_model.", "model.", put_back=False),
    ends("e_score_correction_bias", "e_score_correction.bias"),
)

# What tensors are called in checkpoints of a body alone, without the head: no `model.` stands before.
BODY_NAMES = (
    *("embed_tokens", "norm"),
    *(f"layers.{{i}}.{name}_layernorm" for name in ("input", "post_attention", "pre_feedforward", "post_feedforward")),
    *(f"layers.{{i}}.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
    *(f"layers.{{i}}.mlp.{name}_proj" for name in ("gate", "up", "down")),
)
