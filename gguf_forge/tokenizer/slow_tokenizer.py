"""Tokenizers without tokenizer.json: BPE from vocab.json and merges.txt, WordPiece from vocab.txt.

Source: transformers 4.57.6, `convert_slow_tokenizer.py`, and the slow classes that it converts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gguf_forge.tokenizer.checks import Place, as_id, as_text
from gguf_forge.tokenizer.files import TokenizerFiles

_QWEN2 = "Qwen2TokenizerFast"
_QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


# The classes whose vocabulary is vocab.txt.
_WORDPIECE = ("BertTokenizerFast", "DistilBertTokenizerFast", "ElectraTokenizerFast")


def slow_vocabulary(files: TokenizerFiles, name: str) -> Place | None:
    """The file that the class `name` makes a tokenizer from; None if the folder lacks it."""
    if name in _WORDPIECE:
        return files.place("vocab.txt") if files.wordpieces is not None else None
    return files.place("vocab.json") if files.vocab is not None and files.merges is not None else None


def slow_settings(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings as a slow class passes them on: special tokens are normalized, except Qwen2's and BERT's."""
    if name == _QWEN2 or name in _WORDPIECE:
        return dict(settings)
    return {
        key: {"content": value, "normalized": True} if key.endswith("_token") and isinstance(value, str) else value
        for key, value in settings.items()
    }


def slow_parts(files: TokenizerFiles, name: str, settings: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """What the class `name` makes its tokenizer of, for `foreign/tokenizer_engine.py`."""
    if name in _WORDPIECE:
        lines = (files.wordpieces or "").split("\n")
        vocab = {text: id for id, text in enumerate(lines[:-1] if not lines[-1] else lines)}
        return {"vocab": vocab, "merges": None, "unk_token": as_text(settings["unk_token"], place)}
    return {
        "vocab": {as_text(text, place): as_id(id, place / repr(text)) for text, id in (files.vocab or {}).items()},
        "merges": _merges(files, name),
        "pattern": _QWEN2_PATTERN if name == _QWEN2 else None,
        "prefix_space": bool(settings.get("add_prefix_space", False)),
    }


def slow_ends(settings: Mapping[str, Any], name: str) -> tuple[str, str]:
    """The roles of the tokens that the slow class puts before and after a text; empty for none."""
    if name == "RobertaTokenizerFast" or name in _WORDPIECE:
        return "cls", "sep"
    return ("bos", "") if settings.get("add_bos_token") and name != _QWEN2 else ("", "")


def _merges(files: TokenizerFiles, name: str) -> list[tuple[str, str]]:
    """The merges as the slow classes read them: GPT-2's skips the first and the last line."""
    lines = (files.merges or "").split("\n")
    if name == _QWEN2:
        lines = [line for line in lines[lines[0].startswith("#version:") :] if line.strip()]
    else:
        lines = lines[1:-1]
    pairs = []
    for line in lines:
        parts = line.split()
        if len(parts) != 2:
            raise files.place("merges.txt").error(f"has a line that is not a pair of tokens: {line[:60]!r}")
        pairs.append((parts[0], parts[1]))
    return pairs
