"""Checks chat templates against their vocabulary, before anybody wonders why a model answers badly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from gguf_forge.errors import InputError, printable, some_of
from gguf_forge.foreign.jinja import BOS_VARIABLE, survey
from gguf_forge.foreign.limited import LimitError, run_limited
from gguf_forge.gguf_file.values import Metadata, ValueType
from gguf_forge.tokenizer.chat_template import KEY
from gguf_forge.tokenizer.special import ID_KEYS

# A hostile file may have thousands of templates, each of which costs a process.
_MOST_TEMPLATES = 16
_MEMORY, _SECONDS, _MOST_OUTPUT = 256 << 20, 5, 4 << 20
_TOKENS, _MODEL, _ADD_BOS = (f"tokenizer.ggml.{name}" for name in ("tokens", "model", "add_bos_token"))
# Texts that are special tokens wherever they occur. Other marks, such as <think>, are plain text in many models.
_SPECIAL = re.compile(
    r"<\|[^\s<>|]{1,60}\|>|<｜[^\s<>｜]{1,60}｜>|<(?:start|end)_of_turn>|</?s>"  # noqa: RUF001 (DeepSeek's bars)
)
_PATH = re.compile(r"[^{}\s]+\.(?:jinja2?|j2|json|txt)")


def templates_in(metadata: Metadata) -> dict[str, str]:
    """Name -> template of each chat template that the keys have, the first ones of many; that without a name first.

    It is called `default`.
    """
    names = sorted((key for key in metadata if key == KEY or key.startswith(f"{KEY}.")), key=lambda key: key != KEY)
    texts = {key.removeprefix(KEY)[1:] or "default": metadata[key].data for key in names[:_MOST_TEMPLATES]}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def special_token(metadata: Metadata, kind: str) -> str | None:
    """The text of the token for a role, such as `bos`; None if the keys name no such token.

    Example:
        >>> special_token({}, "bos") is None
        True
    """
    id, tokens = metadata.get(ID_KEYS[kind]), metadata.get(_TOKENS)
    if id is None or tokens is None or tokens.element is not ValueType.STRING:
        return None
    known = isinstance(id.data, int) and 0 <= id.data < len(tokens.data)
    return _text(tokens.data[id.data]) if known else None


def template_problems(metadata: Metadata) -> list[str]:
    """What is wrong with the chat templates, each as half a sentence that begins with the template.

    Example:
        >>> from gguf_forge.gguf_file.values import string
        >>> template_problems({"tokenizer.chat_template": string("{% if %}")})
        ["the chat template is broken: line 1: Expected an expression, got 'end of statement block'"]
    """
    problems: list[str] = []
    for name, template in templates_in(metadata).items():
        called = "the chat template" if name == "default" else f"the chat template {name!r}"
        problems += (f"{called} {problem}" for problem in _problems(template, metadata))
    return problems


def fault_of(template: str) -> str | None:
    """Why no program can use a template, as half a sentence; None if one can, or if it took too long to find out.

    Example:
        >>> fault_of("model.jinja")
        'is the name of a file, model.jinja, and not its text'
    """
    if _PATH.fullmatch(template.strip()):
        return f"is the name of a file, {printable(template.strip()):.60}, and not its text"
    return _survey(template).fault


def _problems(template: str, metadata: Metadata) -> Iterator[str]:
    fault = fault_of(template)
    if fault is not None:
        yield fault
        return
    surveyed = _survey(template)
    found = surveyed.found
    if found is None:
        yield f"was not checked: {surveyed.limit}"
        return
    tokens = metadata.get(_TOKENS)
    if tokens is None or tokens.element is not ValueType.STRING:
        return
    known = set(map(_text, tokens.data))
    named = dict.fromkeys(text for part in found["texts"] for text in _SPECIAL.findall(part))
    unknown = [text for text in named if text not in known]
    if unknown:
        yield f"writes {some_of(unknown)}, which the vocabulary does not have as a token"
    if _adds_bos(metadata) and _begins_with_bos(found["first"], metadata):
        yield "begins with the BOS token, which add_bos_token adds as well: a program that does both doubles it"


class _Survey(NamedTuple):
    """What a template may write, or why it cannot be parsed, or the limit that parsing it went beyond."""

    found: dict[str, Any] | None = None
    fault: str | None = None
    limit: str | None = None


@lru_cache(maxsize=64)
def _survey(template: str) -> _Survey:
    try:
        return _Survey(run_limited(survey, template, memory=_MEMORY, seconds=_SECONDS, most_output=_MOST_OUTPUT))
    except LimitError as error:
        return _Survey(limit=error.words.problem)
    except InputError as error:
        return _Survey(fault=f"is broken: {error.words.problem}")


def _adds_bos(metadata: Metadata) -> bool:
    """Whether llama.cpp puts the beginning token before a text. It does so by default for SentencePiece models."""
    flag, model = metadata.get(_ADD_BOS), metadata.get(_MODEL)
    return bool(flag.data) if flag is not None else model is not None and model.data == "llama"


def _begins_with_bos(first: str | None, metadata: Metadata) -> bool:
    if first is None or first == BOS_VARIABLE:
        return first == BOS_VARIABLE
    text = special_token(metadata, "bos")
    return bool(text) and first.startswith(str(text))


def _text(token: str | bytes) -> str:
    return token if isinstance(token, str) else token.decode(errors="replace")
