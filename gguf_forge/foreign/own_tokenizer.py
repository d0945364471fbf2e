"""The token ids that a checkpoint's own tokenizer gives to texts. It runs in a child process (`limited.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def token_ids(request: Mapping[str, Any]) -> list[list[int]]:
    """The ids of each text, without the tokens around it.

    Args:
        request: `json`, the bytes of tokenizer.json, or `model`, those of a SentencePiece model; and `texts`.

    Raises:
        ModuleNotFoundError: the library for it is not installed.
    """
    if request["json"] is not None:
        from tokenizers import Tokenizer

        engine = Tokenizer.from_buffer(request["json"])
        engine.no_truncation()
        engine.no_padding()
        return [engine.encode(text, add_special_tokens=False).ids for text in request["texts"]]
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(request["model"])
    return [processor.EncodeAsIds(text) for text in request["texts"]]
