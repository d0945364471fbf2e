"""Tokenizers without tokenizer.json: BPE from vocab.json and merges.txt, WordPiece from vocab.txt.

Source: transformers 4.57.6, `convert_slow_tokenizer.py`, and the slow classes that it converts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gguf_forge.tokenizer.checks import Place, as_id, as_text
from gguf_forge.tokenizer.files import TokenizerFiles

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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


def build_slow_tokenizer(files: TokenizerFiles, name: str, settings: Mapping[str, Any], place: Place) -> Tokenizer:
    """The tokenizer that the class `name` makes from its vocabulary."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    if name in _WORDPIECE:
        return _wordpiece(files, settings, place)
    vocab = {as_text(text, place): as_id(id, place / repr(text)) for text, id in (files.vocab or {}).items()}
    engine = Tokenizer(models.BPE(vocab, _merges(files, name), continuing_subword_prefix="", end_of_word_suffix=""))
    space = bool(settings.get("add_prefix_space", False))
    if name == _QWEN2:
        engine.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(_QWEN2_PATTERN), behavior="isolated", invert=False)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False)
        engine.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    else:
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    engine.decoder = decoders.ByteLevel()
    return engine


def slow_ends(settings: Mapping[str, Any], name: str) -> tuple[str, str]:
    """The roles of the tokens that the slow class puts before and after a text; empty for none."""
    if name == "RobertaTokenizerFast" or name in _WORDPIECE:
        return "cls", "sep"
    return ("bos", "") if settings.get("add_bos_token") and name != _QWEN2 else ("", "")


def _wordpiece(files: TokenizerFiles, settings: Mapping[str, Any], place: Place) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    lines = (files.wordpieces or "").split("\n")
    vocab = {text: id for id, text in enumerate(lines[:-1] if not lines[-1] else lines)}
    engine = Tokenizer(models.WordPiece(vocab, unk_token=as_text(settings["unk_token"], place)))
    engine.normalizer = normalizers.BertNormalizer()
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece(prefix="##")
    return engine


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
