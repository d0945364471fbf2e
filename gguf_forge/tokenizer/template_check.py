"""Checks chat templates against their vocabulary, before anybody wonders why a model answers badly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from gguf_forge.errors import InputError, printable, some_of
from gguf_forge.foreign.jinja import BOS_VARIABLE, survey
from gguf_forge.foreign.limited import LimitError, run_limited
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tokenizer.chat_template import KEY
from gguf_forge.tokenizer.special import ID_KEYS

_MEMORY, _SECONDS, _MOST_OUTPUT = 256 << 20, 5, 4 << 20
_TOKENS, _MODEL, _ADD_BOS = (f"tokenizer.ggml.{name}" for name in ("tokens", "model", "add_bos_token"))
# Texts that are special tokens wherever they occur. Other marks, such as <think>, are plain text in many models.
_SPECIAL = re.compile(
    r"<\|[^\s<>|]{1,60}\|>|<｜[^\s<>｜]{1,60}｜>|<(?:start|end)_of_turn>|</?s>"  # noqa: RUF001 (DeepSeek's bars)
)
_PATH = re.compile(r"[^{}\s]+\.(?:jinja2?|j2|json|txt)")


def templates_in(metadata: Metadata) -> dict[str, str]:
    """Name -> template of each chat template that the keys have; the one without a name is `default`."""
    found = {key: value.data for key, value in metadata.items() if key == KEY or key.startswith(f"{KEY}.")}
    return {key.removeprefix(KEY)[1:] or "default": text for key, text in found.items() if isinstance(text, str)}


def template_problems(metadata: Metadata) -> list[str]:
    """What is wrong with the chat templates, each as half a sentence that begins with the template.

    Example:
        >>> template_problems({"tokenizer.chat_template": string("{% if %}")})
        ['the chat template is broken: line 1: Expected an expression, got \\'end of statement block\\'']
    """
    problems: list[str] = []
    for name, template in templates_in(metadata).items():
        called = "the chat template" if name == "default" else f"the chat template {name!r}"
        problems += (f"{called} {problem}" for problem in _problems(template, metadata))
    return problems


def _problems(template: str, metadata: Metadata) -> Iterator[str]:
    if _PATH.fullmatch(template.strip()):
        yield f"is the name of a file, {printable(template.strip()):.60}, and not its text"
        return
    try:
        found = _survey(template)
    except LimitError as error:
        yield f"was not checked: {error.problem}"
        return
    except InputError as error:
        yield f"is broken: {error.problem}"
        return
    tokens = metadata.get(_TOKENS)
    if tokens is None:
        return
    known = {token if isinstance(token, str) else token.decode(errors="replace") for token in tokens.data}
    named = dict.fromkeys(text for part in found["texts"] for text in _SPECIAL.findall(part))
    unknown = [text for text in named if text not in known]
    if unknown:
        yield f"writes {some_of(unknown)}, which the vocabulary does not have as a token"
    if _adds_bos(metadata) and found["first"] is not None and _begins_with_bos(found["first"], metadata):
        yield "begins with the BOS token, which add_bos_token adds as well: a program that does both doubles it"


@lru_cache(maxsize=64)
def _survey(template: str) -> dict[str, Any]:
    return run_limited(survey, template, memory=_MEMORY, seconds=_SECONDS, most_output=_MOST_OUTPUT)


def _adds_bos(metadata: Metadata) -> bool:
    """Whether llama.cpp puts the beginning token before a text. It does so by default for SentencePiece models."""
    flag = metadata.get(_ADD_BOS)
    return bool(flag.data) if flag is not None else metadata[_MODEL].data == "llama"


def _begins_with_bos(first: str, metadata: Metadata) -> bool:
    id = metadata.get(ID_KEYS["bos"])
    tokens = metadata[_TOKENS].data
    if first == BOS_VARIABLE or id is None or not 0 <= id.data < len(tokens):
        return first == BOS_VARIABLE
    text = tokens[id.data]
    return first.startswith(text if isinstance(text, str) else text.decode(errors="replace"))
