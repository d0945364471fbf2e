"""Reads from a tokenizer.json's post-processor which special tokens it adds to a prompt, and the role of each.

The rules are those of gguf-py's `SpecialVocab`. They are simple, and wrong for unusual templates. We still follow them
exactly, because all GGUF files are made by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gguf_forge.tokenizer.checks import Place, as_list, as_mapping
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.wording import log_of

log = log_of(__name__)


@dataclass(frozen=True)
class Additions:
    """The information that the post-processor adds to tokenizer_config.json.

    Attributes:
        settings: tokenizer_config.json, completed with the tokens that the post-processor implies.
        types: The kinds of special tokens to look for. A second end of sequence adds a kind.
        added: Kind -> whether the post-processor adds it to a prompt.
    """

    settings: Mapping[str, Any]
    types: tuple[str, ...]
    added: Mapping[str, bool]


def read_post_processor(files: TokenizerFiles, types: tuple[str, ...]) -> Additions:
    settings = dict(files.tokenizer_config or {})
    if not files.tokenizer:
        return Additions(settings, types, {})
    reading = _Reading(settings, types)
    place = files.place("tokenizer.json") / "post_processor"
    post_processor = files.tokenizer.get("post_processor")
    if post_processor:
        whole = as_mapping(post_processor, place)
        for step in as_list(whole.get("processors", [whole]), place / "processors"):
            reading.read(as_mapping(step, place), place)
    return Additions(reading.settings, reading.types, reading.added)


@dataclass
class _Reading:
    """The state while steps are read. `roles` has the tokens known so far: each is a text, an object, or None."""

    settings: dict[str, Any]
    types: tuple[str, ...]
    added: dict[str, bool] = field(default_factory=dict)
    roles: dict[str, Any] = field(default_factory=dict)
    configured: bool = False

    def __post_init__(self) -> None:
        self.configured = bool(self.settings)
        self.roles = {role: self.settings.get(f"{role}_token") for role in ("bos", "cls", "eos", "sep")}
        for role, stand_in in (("bos", "cls"), ("eos", "sep")):
            if not self.roles[role] and self.roles[stand_in]:
                self._assign(role, self.roles[stand_in])

    def read(self, step: Mapping[str, Any], place: Place) -> None:
        kind = step.get("type")
        if kind == "ByteLevel":
            self.added.setdefault("bos", False)
            self.added.setdefault("eos", False)
        elif kind == "RobertaProcessing":
            self._roberta(step, place)
        elif kind == "TemplateProcessing":
            self._template(step, place)

    def _assign(self, role: str, token: Any) -> None:
        self.roles[role] = token
        if self.configured:
            self.settings[f"{role}_token"] = token

    def _roberta(self, step: Mapping[str, Any], place: Place) -> None:
        self.added.update(bos=True, eos=True, sep=True)
        for role, stand_in in (("cls", "bos"), ("sep", "eos")):
            if not self.roles[role] and self.configured:
                pair = as_list(step.get(role, [self.roles[stand_in]]), place / role)
                self._assign(role, pair[0] if pair else None)

    def _template(self, step: Mapping[str, Any], place: Place) -> None:
        single = [as_mapping(item, place) for item in as_list(step.get("single", []), place / "single")]
        pair = [as_mapping(item, place) for item in as_list(step.get("pair", []), place / "pair")]
        first = last = None
        if len(single) > 1:
            first, last = _special(single[0], place), _special(single[-1], place)
            if first:
                self._leading(first)
            if last:
                self._trailing(last)
        if pair:
            self._pair(pair, first, last, place)

    def _leading(self, token: Any) -> None:
        if not self.configured:
            self.roles["bos"] = token
        elif token not in (self.roles["bos"], self.roles["cls"]):
            for role in ("bos", "cls"):
                if not self.roles[role]:
                    self._assign(role, token)
        self.added["bos"] = token in (self.roles["bos"], self.roles["cls"])

    def _trailing(self, token: Any) -> None:
        if not self.configured:
            self.roles["eos"] = token
        elif token != self.roles["eos"]:
            spare = next((kind for kind in ("eot", "eom") if kind not in self.types), None)
            if spare is None:
                log.warning("the end of sequence %r gives way to %r", self.roles["eos"], token)
            else:
                self.types += (spare,)
                self.settings[f"{spare}_token"] = self.roles["eos"]
            self._assign("eos", token)
        self.added["eos"] = token == self.roles["eos"]

    def _pair(self, pair: list[Mapping[str, Any]], first: Any, last: Any, place: Place) -> None:
        """Notes that a separator is added if the template for two sequences has one between them and adds no end."""
        start = 1 if first and _special(pair[0], place) == first else 0
        stop = -1 if last and _special(pair[-1], place) == last else None
        inner = pair[start:stop]
        if not inner or _sequence(inner[0], place) != "A" or _sequence(inner[-1], place) != "B":
            return
        between = [_special(item, place) for item in inner[1:-1]]
        if not between:
            return
        separators = (self.roles["sep"], self.roles["eos"])
        add = bool(between[0]) and between[0] in separators and not last
        if len(between) == 2 and between[1] and between[1] in separators:
            add = True
        self.added["sep"] = add
        if add and not self.roles["sep"] and self.configured:
            self.settings["sep_token"] = self.roles["eos"]


def _special(item: Mapping[str, Any], place: Place) -> Any:
    return as_mapping(item.get("SpecialToken", {}), place / "SpecialToken").get("id")


def _sequence(item: Mapping[str, Any], place: Place) -> Any:
    return as_mapping(item.get("Sequence", {}), place / "Sequence").get("id")
