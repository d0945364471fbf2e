"""How a family's checkpoint names are rewritten before the name tables are asked: anchored replacements, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Rename:
    """One replacement in a checkpoint name.

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

    def __call__(self, name: str) -> str:
        return _replaced(name, self.old, self.new, self.where)

    def undone(self, name: str) -> str:
        """The name before, on the way back to a checkpoint."""
        return _replaced(name, self.new, self.old, self.where) if self.put_back else name


def _replaced(name: str, old: str, new: str, where: str) -> str:
    if where == "start":
        return new + name[len(old) :] if name.startswith(old) else name
    if where == "end":
        return name[: -len(old)] + new if name.endswith(old) else name
    return name.replace(old, new, 1)


def starts(old: str, new: str = "", *, put_back: bool | None = None) -> Rename:
    """Replaces the beginning of a name. What is only taken away is not put back: checkpoints come with and without it.

    Example:
        >>> starts("bert.")("bert.encoder.layer.0.output.dense.weight")
        'encoder.layer.0.output.dense.weight'
    """
    return Rename(old, new, "start", bool(new) if put_back is None else put_back)


def ends(old: str, new: str) -> Rename:
    """Replaces the end of a name.

    Example:
        >>> ends(".gamma", ".weight")("embeddings.LayerNorm.gamma")
        'embeddings.LayerNorm.weight'
    """
    return Rename(old, new, "end")


def inside(old: str, new: str) -> Rename:
    """Replaces some parts in the middle of a name; both texts begin and end with a dot.

    Example:
        >>> inside(".moe.", ".feed_forward.")("model.layers.0.moe.router.weight")
        'model.layers.0.feed_forward.router.weight'
    """
    return Rename(old, new, "inside")


# What multimodal checkpoints put around their language model, and how sigmoid routers call their correction.
WRAPPERS = (
    starts("language_model."),
    starts("model.language_model.", "model.", put_back=False),
    ends("e_score_correction_bias", "e_score_correction.bias"),
)
