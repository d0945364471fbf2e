"""Chat templates as they come out: each is rendered for a sample chat, in a child process with limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gguf_forge.errors import InputError
from gguf_forge.foreign.jinja import render
from gguf_forge.foreign.limited import LimitError, run_limited
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tokenizer import special_token, templates_in

_MEMORY, _SECONDS, _MOST_OUTPUT = 256 << 20, 5, 1 << 20
_SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
SAMPLE_CHAT = (
    {"role": "user", "content": "Hello, who are you?"},
    {"role": "assistant", "content": "I am a language model."},
    {"role": "user", "content": "What is 2 + 2?"},
)


@dataclass(frozen=True)
class RenderedTemplate:
    """A chat template, rendered for a sample chat.

    Attributes:
        name: `default`, or the name of a further template.
        text: What it makes of the chat; None if it fails.
        problem: Why it fails, or why it is rendered without the message of the system; None for neither.
    """

    name: str
    text: str | None = None
    problem: str | None = None


def rendered_templates(metadata: Metadata) -> list[RenderedTemplate]:
    """Every chat template of a file, rendered for `SAMPLE_CHAT` with the beginning of an answer."""
    return [_rendered(name, template, metadata) for name, template in templates_in(metadata).items()]


def _rendered(name: str, template: str, metadata: Metadata) -> RenderedTemplate:
    attempts = ((_SYSTEM, *SAMPLE_CHAT), SAMPLE_CHAT)
    problem = None
    for messages in attempts:
        argument = {"template": template, "variables": _variables(messages, metadata)}
        try:
            text = run_limited(render, argument, memory=_MEMORY, seconds=_SECONDS, most_output=_MOST_OUTPUT)
        except LimitError as error:
            return RenderedTemplate(name, None, error.words.problem)
        except InputError as error:
            problem = problem or error.words.problem
        else:
            return RenderedTemplate(name, text, problem)
    return RenderedTemplate(name, None, problem)


def _variables(messages: tuple[dict[str, str], ...], metadata: Metadata) -> dict[str, Any]:
    """The variables that transformers gives to a template. An unknown token is an empty text."""
    return {
        "messages": list(messages),
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
        **{f"{kind}_token": special_token(metadata, kind) or "" for kind in ("bos", "eos", "unk", "pad")},
    }
