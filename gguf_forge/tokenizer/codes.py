"""The vocabulary of a model of speech: tokens of text, then codes of sound.

Source: Qwen3TTSTalkerModel in conversion/qwen3tts.py of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator

from gguf_forge.gguf_file.values import Metadata, ValueType, array
from gguf_forge.tokenizer.checks import Place, as_id, vocabulary_size
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.vocabulary import Reader, TokenizerSource

_TOKENS, _SCORES, _TYPES = (f"tokenizer.ggml.{name}" for name in ("tokens", "scores", "token_type"))


def with_codes(reader: Reader, size_key: str) -> Reader:
    """The reader's vocabulary with codes after the tokens of text, as control tokens. The model has no chat template.

    Args:
        reader: Of the tokens of text.
        size_key: The config key with the number of codes. A key `*_id` of the config gives a code its name.
    """

    def read(source: TokenizerSource) -> Metadata | None:
        metadata = reader(source)
        if metadata is None:
            return None
        names = _names(source, size_key)
        longer = metadata | {
            _TOKENS: array(ValueType.STRING, [*metadata[_TOKENS].data, *names]),
            _TYPES: array(ValueType.INT32, [*metadata[_TYPES].data, *[int(TokenType.CONTROL)] * len(names)]),
        }
        if _SCORES in metadata:
            return longer | {_SCORES: array(ValueType.FLOAT32, [*metadata[_SCORES].data, *[0.0] * len(names)])}
        return {key: value for key, value in longer.items() if key != "tokenizer.chat_template"}

    return read


def _names(source: TokenizerSource, size_key: str) -> list[str]:
    place = source.files.place("config.json") / "talker_config"
    names = [f"<|codec_{code}|>" for code in range(vocabulary_size(source.config, place, (size_key,)) or 0)]
    for name, number, where in _named(source, place):
        names[as_id(number, where, maximum=len(names) - 1)] = f"<|{name}|>"
    return names


def _named(source: TokenizerSource, place: Place) -> Iterator[tuple[str, object, Place]]:
    """The names of codes, with their numbers and places."""
    raw = (source.files.config or {}).get("talker_config")
    for key, value in raw.items() if isinstance(raw, dict) else ():
        prefix, _, rest = key.rpartition("_id")
        if rest or not key.endswith("_id"):
            continue
        if isinstance(value, dict):
            yield from ((f"{prefix}_{name}", number, place / key / name) for name, number in value.items())
        elif isinstance(value, int) and not isinstance(value, bool):
            yield prefix, value, place / key
