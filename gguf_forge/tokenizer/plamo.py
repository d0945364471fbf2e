"""PLaMo's vocabularies (llama.cpp's model `plamo2`): tokenizer.jsonl, with one token per line.

Source: `_set_vocab_plamo` and PLaMo 3's `set_vocab` in llama.cpp's converter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gguf_forge.gguf_file.values import Metadata, boolean, u32
from gguf_forge.tokenizer.chat_template import templates_of
from gguf_forge.tokenizer.checks import MAX_TOKENS, Place, as_list, as_number, as_text, vocabulary_size
from gguf_forge.tokenizer.scored_vocabulary import scored_vocabulary
from gguf_forge.tokenizer.sentencepiece_model import Pieces
from gguf_forge.tokenizer.special import ID_KEYS
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.vocabulary import TokenizerSource

FILE = "tokenizer.jsonl"
_TYPES = {"UNKNOWN": TokenType.UNKNOWN, "CONTROL": TokenType.CONTROL, "BYTE": TokenType.BYTE}
_PADDING_SCORE = -1000.0
# The token `<|plamo:op|>`, which starts the next turn.
_TURN_END = 4


def plamo(source: TokenizerSource) -> Metadata | None:
    """The metadata of PLaMo 2's vocabulary; None without tokenizer.jsonl.

    Raises:
        InputError: a line is not a token, or tokenizer_config.json names a token that the vocabulary lacks.
    """
    lines = source.files.text(FILE)
    if lines is None:
        return None
    place = source.files.place(FILE)
    pieces = _pieces(lines, place)
    size = vocabulary_size(source.config, source.files.place("config.json")) or len(pieces.texts)
    for number in range(1, size - len(pieces.texts) + 1):
        pieces.append(b"[PAD%d]" % number, _PADDING_SCORE, TokenType.UNUSED)
    settings = source.files.tokenizer_config or {}
    return {
        **scored_vocabulary(pieces, "plamo2"),
        **_ids(pieces, settings, source.files.place("tokenizer_config.json")),
        ID_KEYS["eot"]: u32(_TURN_END),
        "tokenizer.ggml.add_space_prefix": boolean(False),
    }


def plamo3(source: TokenizerSource) -> Metadata | None:
    """The metadata of PLaMo 3's vocabulary, with its chat template, for which chat_template.jinja counts first."""
    metadata = plamo(source)
    if metadata is None:
        return None
    template = source.files.chat_template_jinja
    if template is None:
        template = (source.files.tokenizer_config or {}).get("chat_template")
    return {**metadata, **templates_of(template, source.files.place("tokenizer_config.json") / "chat_template")}


def _pieces(lines: str, place: Place) -> Pieces:
    pieces = Pieces()
    for number, line in enumerate(lines.split("\n"), 1):
        if not line.strip():
            continue
        if len(pieces.texts) == MAX_TOKENS:
            raise place.error(f"has more than {MAX_TOKENS} tokens")
        here = place / f"line {number}"
        try:
            fields = as_list(json.loads(line), here)
        except (ValueError, RecursionError) as error:
            raise here.error("is not valid JSON", "download it again") from error
        if len(fields) < 2:
            raise here.expected("a token, its score and its type", fields)
        text = as_text(fields[0], here)
        pieces.append(text.encode(), as_number(fields[1], here), _type(text, fields[2:]))
    return pieces


def _type(text: str, rest: list[Any]) -> TokenType:
    if rest and isinstance(rest[0], str) and rest[0] in _TYPES:
        return _TYPES[rest[0]]
    looks_like_control = text.startswith("<|plamo:") and text.endswith("|>")
    return TokenType.CONTROL if looks_like_control else TokenType.NORMAL


def _ids(pieces: Pieces, settings: Mapping[str, Any], place: Place) -> Metadata:
    by_text = {text: id for id, text in reversed(list(enumerate(pieces.texts)))}
    ids: Metadata = {}
    for kind in ("bos", "eos", "pad", "sep", "unk"):
        name = f"{kind}_token"
        if settings.get(name) is not None:
            id = by_text.get(as_text(settings[name], place / name).encode())
            if id is None:
                raise (place / name).error(f"is {settings[name]!r}, which is not a token of {FILE}")
            ids[ID_KEYS[kind]] = u32(id)
    return ids
