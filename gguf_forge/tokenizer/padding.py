"""Brings a vocabulary to the number of rows of the embeddings, which training tools pad for speed."""

from __future__ import annotations

from pathlib import Path

from gguf_forge.gguf_file.values import Metadata, Value, array
from gguf_forge.tokenizer.checks import Place, check_vocabulary_memory
from gguf_forge.tokenizer.scored_vocabulary import PADDING_SCORE
from gguf_forge.tokenizer.token_types import TokenType

_TOKENS, _SCORES, _TYPES = (f"tokenizer.ggml.{name}" for name in ("tokens", "scores", "token_type"))


def with_padding(metadata: Metadata, size: int, folder: Path) -> Metadata:
    """The keys with unused tokens `[PADn]` after the last one, up to `size` tokens.

    llama.cpp loads no file whose embeddings have another number of rows than the vocabulary has tokens.

    Raises:
        InputError: the memory does not hold as many tokens; `folder` is the model's, for the message.
    """
    check_vocabulary_memory(size, Place(folder))
    holes = range(len(metadata[_TOKENS].data), size)
    more: dict[str, list[str] | list[float] | list[int]] = {
        _TOKENS: [f"[PAD{id}]" for id in holes],
        _SCORES: [int(PADDING_SCORE)] * len(holes),
        _TYPES: [int(TokenType.UNUSED)] * len(holes),
    }
    return metadata | {key: _longer(metadata[key], items) for key, items in more.items() if key in metadata}


def _longer(value: Value, items: list[str] | list[float] | list[int]) -> Value:
    assert value.element is not None
    return array(value.element, [*value.data, *items])
