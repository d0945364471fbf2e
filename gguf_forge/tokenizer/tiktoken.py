"""Vocabularies of tiktoken files, whose special tokens are in the publisher's code: Qwen's, HunYuan's and Kimi's.

The code is never run. This module has its special tokens as data.

Source: `_set_vocab_qwen` and the `set_vocab` of HunYuan, DeepSeek V2 and Kimi in llama.cpp's converter;
tokenization_qwen.py, tokenization_hy.py and tokenization_kimi.py of the publishers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gguf_forge.gguf_file.values import Metadata, ValueType, array, u32
from gguf_forge.tokenizer.base_vocabulary import BaseVocabulary
from gguf_forge.tokenizer.bpe import bpe
from gguf_forge.tokenizer.checks import as_decimal_id, as_id, as_mapping, as_text, vocabulary_size
from gguf_forge.tokenizer.extra_keys import default_chat_template
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.pre_tokenizers import checked_name
from gguf_forge.tokenizer.ranks import joined, merges_of, read_ranks, shown
from gguf_forge.tokenizer.special import ID_KEYS, special_tokens
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.vocabulary import Reader, TokenizerSource, first_of, in_order

_QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN_EXTRAS = 205
_HUNYUAN_TOKENS = ("<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>")
# llama.cpp's own corrections of HunYuan's config.json, for its published models.
_HUNYUAN_MOE_BOS = 127959
_HUNYUAN_7B_BOS = 127958
_HUNYUAN_7B_WIDTH = 4096
_KIMI_SPECIAL = 256


@dataclass(frozen=True)
class _Tiktoken:
    vocabulary: BaseVocabulary
    merges: list[str]

    def metadata(self) -> Metadata:
        merges = {"tokenizer.ggml.merges": array(ValueType.STRING, self.merges)} if self.merges else {}
        return {**self.vocabulary.metadata("gpt2"), **merges}


def _read(
    source: TokenizerSource, name: str, pre: str, special: Callable[[TokenizerFiles, int, int], list[str]]
) -> _Tiktoken | None:
    """The vocabulary of a tiktoken file, with special tokens after the ranks. `pre` is its pre-tokenizer's name."""
    data = source.files.content(name)
    if data is None:
        return None
    place = source.files.place(name)
    ranks = read_ranks(data, place)
    size = vocabulary_size(source.config, source.files.place("config.json"))
    if size is None:
        raise source.files.place("config.json").error("has no vocab_size, which this tokenizer needs")
    special_ids = {text: len(ranks) + index for index, text in enumerate(special(source.files, len(ranks), size))}
    ids = {rank: shown(token) for token, rank in ranks.items()} | {id: text for text, id in special_ids.items()}
    if max(ids) >= size:
        raise place.error(f"has a token with id {max(ids)}, and the model's vocab_size is {size}")
    controls = set(special_ids.values())
    texts = [ids.get(id, f"[PAD{id}]") for id in range(size)]
    types = [
        TokenType.CONTROL if id in controls else TokenType.NORMAL if id in ids else TokenType.UNUSED
        for id in range(size)
    ]
    name = pre if source.pre_tokenizer is None else checked_name(source.pre_tokenizer)
    return _Tiktoken(BaseVocabulary(name, texts, types, special_ids), [joined(pair) for pair in merges_of(ranks)])


def _configured(key: str) -> Reader:
    """The end-of-sequence id from a key of the configuration; nothing if the key is missing."""

    def read(source: TokenizerSource) -> Metadata:
        end = source.config.get(key)
        return {} if end is None else {ID_KEYS["eos"]: u32(as_id(end, source.files.place("config.json") / key))}

    return read


def qwen(source: TokenizerSource) -> Metadata | None:
    """The reading of qwen.tiktoken by the first generation of Qwen; None without it."""
    found = _read(source, "qwen.tiktoken", "qwen2", _qwen_tokens)
    if found is None:
        return None
    end = found.vocabulary.added[_QWEN_TOKENS[0]]
    known = any(key in ID_KEYS.values() for key in special_tokens(source.files))
    fallback = {"unk": end} if known else {"bos": end, "eos": end, "unk": end}
    return {**found.metadata(), **special_tokens(source.files, fallback=fallback)}


def hunyuan_moe(source: TokenizerSource) -> Metadata | None:
    """HunYuan MoE's reading of hy.tiktoken; None without it."""
    found = _read(source, "hy.tiktoken", "hunyuan", _hunyuan_tokens)
    if found is None:
        return None
    return {**found.metadata(), **special_tokens(source.files), ID_KEYS["bos"]: u32(_HUNYUAN_MOE_BOS)}


def hunyuan(source: TokenizerSource) -> Metadata | None:
    """HunYuan's reading of tokenizer.json, or of hy.tiktoken; None without either."""
    metadata = _hunyuan_tiktoken(source) if source.files.tokenizer is None else _hunyuan_bpe(source)
    if metadata is None:
        return None
    ends = (source.files.object("generation_config.json") or {}).get("eos_token_id")
    if isinstance(ends, list) and len(ends) > 1:
        metadata[ID_KEYS["eot"]] = u32(as_id(ends[0], source.files.place("generation_config.json") / "eos_token_id"))
    return metadata


def hunyuan_vl(source: TokenizerSource) -> Metadata | None:
    """Like `hunyuan`, but eod_token_id is the end of sequence. The dense models' config class drops that key."""
    return in_order(hunyuan, _configured("eod_token_id"))(source)


def _hunyuan_bpe(source: TokenizerSource) -> Metadata | None:
    metadata = bpe(source)
    padding = source.config.get("pad_token_id")
    if metadata is not None and isinstance(padding, int) and padding < 0:
        metadata.pop(ID_KEYS["pad"], None)
    return metadata


def _hunyuan_tiktoken(source: TokenizerSource) -> Metadata | None:
    found = _read(source, "hy.tiktoken", "hunyuan-dense", _hunyuan_tokens)
    if found is None:
        return None
    metadata = {**found.metadata(), **special_tokens(source.files)}
    if source.config.get("hidden_size") == _HUNYUAN_7B_WIDTH:
        metadata[ID_KEYS["bos"]] = u32(_HUNYUAN_7B_BOS)
    return metadata


def _kimi_tiktoken(source: TokenizerSource) -> Metadata | None:
    found = _read(source, "tiktoken.model", "kimi-k2", _kimi_tokens)
    return None if found is None else {**found.metadata(), **special_tokens(source.files)}


def _kimi_with_own_end(source: TokenizerSource) -> Metadata | None:
    """Kimi's vocabulary with the end of sequence from tokenizer_config.json. The one in config.json differs."""
    metadata = _kimi_tiktoken(source)
    if metadata is None:
        return None
    place = source.files.place("tokenizer_config.json") / "eos_token"
    end = as_text((source.files.tokenizer_config or {}).get("eos_token", "[EOS]"), place)
    texts = metadata["tokenizer.ggml.tokens"].data
    if end not in texts:
        raise place.error(f"is {end!r}, which is not a token of tiktoken.model")
    return {**metadata, ID_KEYS["eos"]: u32(texts.index(end))}


kimi = first_of(bpe, _kimi_tiktoken)
kimi_linear = first_of(bpe, _kimi_with_own_end)
kimi_k3 = in_order(kimi_linear, _configured("eos_token_id"), default_chat_template("kimi-k3"))


def _qwen_tokens(files: TokenizerFiles, first: int, size: int) -> list[str]:
    return [*_QWEN_TOKENS, *(f"<|extra_{index}|>" for index in range(_QWEN_EXTRAS))]


def _hunyuan_tokens(files: TokenizerFiles, first: int, size: int) -> list[str]:
    extras = size - first - len(_HUNYUAN_TOKENS)
    return [*_HUNYUAN_TOKENS, *(f"<|extra_{index}|>" for index in range(extras))]


def _kimi_tokens(files: TokenizerFiles, first: int, size: int) -> list[str]:
    place = files.place("tokenizer_config.json") / "added_tokens_decoder"
    named = {}
    for key, value in as_mapping((files.tokenizer_config or {}).get("added_tokens_decoder", {}), place).items():
        content = as_mapping(value, place / key).get("content")
        named[as_decimal_id(key, place)] = as_text(content, place / key / "content")
    return [named.get(id, f"<|reserved_token_{id}|>") for id in range(first, first + _KIMI_SPECIAL)]
