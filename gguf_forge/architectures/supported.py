"""The classes of models that can be converted, and the proof for each, from the families and a table of proofs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.registry import by_class
from gguf_forge.architectures.site import Part


@dataclass(frozen=True)
class SupportedClass:
    """One part of the models of a class.

    Attributes:
        name: The class, as `architectures` in config.json names it.
        part: The part of the model.
        architectures: The GGUF architectures that its files can have.
        vocabularies: The values of `tokenizer.ggml.model` in the files that prove it; empty for a part without a
            vocabulary.
        proof: Test checkpoints whose files are byte-identical to those of the reference's converter.
        proved_as: The class that the proof was made with, if it is another class with the same declaration.
    """

    name: str
    part: Part
    architectures: tuple[str, ...]
    vocabularies: tuple[str, ...]
    proof: tuple[str, ...]
    proved_as: str

    @property
    def proof_text(self) -> str:
        """The proof in words: up to three checkpoints."""
        if not self.proof:
            return "none yet"
        more = len(self.proof) - 3
        cases = ", ".join(self.proof[:3]) + (f" and {more} more" if more > 0 else "")
        return f"{cases} (as {self.proved_as})" if self.proved_as else cases


def supported_classes() -> tuple[SupportedClass, ...]:
    """Every class and part that a family declares, by name.

    Example:
        >>> next(found.architectures for found in supported_classes() if found.name == "Qwen3ForCausalLM")
        ('qwen3',)
    """
    return tuple(_supported(name, part, found) for (name, part), found in sorted(by_class().items()))


def _supported(name: str, part: Part, declarations: tuple[Architecture, ...]) -> SupportedClass:
    siblings = (other for declaration in declarations for other in declaration.hf)
    proved = next((other for other in (name, *siblings) if _has_proof(other, part)), name)
    found = _proofs().get(proved, {}).get(part, {})
    return SupportedClass(
        name,
        part,
        _unique(declaration.name for declaration in declarations),
        tuple(found.get("vocabularies", ())),
        tuple(found.get("cases", ())),
        proved if proved != name else "",
    )


def _has_proof(name: str, part: Part) -> bool:
    return part in _proofs().get(name, {})


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


@lru_cache
def _proofs() -> Mapping[str, Any]:
    """Class -> part -> its cases and their vocabularies. tools/refresh_proofs.py generates this table."""
    table: Mapping[str, Any] = json.loads(files(__package__).joinpath("proofs.json").read_text())
    return table
