"""Byte-level BPE vocabularies (llama.cpp's model `gpt2`): tokenizer.json, or vocab.json with merges.txt.

Source: `_set_vocab_gpt2`, `_set_vocab_whitespace`, `_set_vocab_glm`, `_set_vocab_glmedge` and `_set_vocab_interns1` in
llama.cpp's converter, and the `set_vocab` of its ChatGLM, Solar, Dream and LLaDA.
"""

from __future__ import annotations

from collections.abc import Mapping

from gguf_forge.errors import InputError
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.tokenizer.base_vocabulary import BaseVocabulary, read_base_vocabulary
from gguf_forge.tokenizer.causal_unigram import unigram_json
from gguf_forge.tokenizer.checks import as_list, as_mapping
from gguf_forge.tokenizer.llama_hf import llama_hf
from gguf_forge.tokenizer.special import special_tokens
from gguf_forge.tokenizer.vocabulary import Reader, TokenizerSource


def bpe(source: TokenizerSource) -> Metadata | None:
    """The metadata of a byte-level BPE vocabulary; None without its files.

    A tokenizer.json that was made of a SentencePiece model is read as what it is, whatever the family expects.

    Raises:
        InputError: a file is broken, or the vocabulary does not fit the model's vocab_size.
        UnsupportedError: the pre-tokenizer is unknown, and the user named none.
        UsageError: llama.cpp does not know the named pre-tokenizer.
    """
    if not source.files.as_reference and (found := llama_hf(source) or unigram_json(source)):
        return found
    vocabulary = read_base_vocabulary(source)
    if vocabulary is None:
        return None
    return {**vocabulary.metadata("gpt2"), **special_tokens(source.files, with_merges=True)}


def bpe_as_marked(source: TokenizerSource) -> Metadata | None:
    """Like `bpe`, but added tokens are written unchanged, and are control tokens only if marked as special."""
    vocabulary = read_base_vocabulary(source, as_marked=True)
    if vocabulary is None:
        return None
    return {**vocabulary.metadata("gpt2"), **special_tokens(source.files, with_merges=True)}


def bpe_with(texts: Mapping[str, str], ids: Mapping[str, int] | None = None) -> Reader:
    """Like `bpe`, with special tokens for kinds that the files do not name.

    `texts` maps a kind to the text of an added token, `ids` maps a kind to a token id.

    Example:
        >>> chatglm = bpe_with({"eos": "<|endoftext|>", "eot": "<|user|>", "unk": "<|endoftext|>"})
    """

    def read(source: TokenizerSource) -> Metadata | None:
        vocabulary = read_base_vocabulary(source)
        if vocabulary is None:
            return None
        fallback = {kind: _id_of(text, vocabulary, source) for kind, text in texts.items()} | dict(ids or {})
        special = special_tokens(source.files, with_merges=True, fallback=fallback)
        return {**vocabulary.metadata("gpt2"), **special}

    return read


glm = bpe_with({"bos": "[gMASK]", "eot": "<|user|>", "unk": "<|endoftext|>", "eom": "<|observation|>"})
glm_edge = bpe_with({"eos": "<|endoftext|>", "eot": "<|user|>", "unk": "<|endoftext|>", "bos": "<|endoftext|>"})
chatglm = bpe_with({"eos": "<|endoftext|>", "eot": "<|user|>", "unk": "<|endoftext|>"})
solar_open = bpe_with({"eos": "<|endoftext|>", "eot": "<|endoftext|>", "unk": "<unk>", "bos": "<|startoftext|>"})
interns1 = bpe_with({}, {"bos": 151643})


def _id_of(text: str, vocabulary: BaseVocabulary, source: TokenizerSource) -> int:
    if text not in vocabulary.added:
        raise InputError(
            f"the tokenizer has no added token {text!r}, which models of this family need",
            file=source.files.folder.path,
            hint="take the tokenizer that the model was trained with",
        )
    return vocabulary.added[text]


def whitespace(source: TokenizerSource) -> Metadata | None:
    """The metadata of a vocabulary of whole words between spaces; None without its files."""
    vocabulary = read_base_vocabulary(source, pre_tokenizer="whitespace")
    if vocabulary is None:
        return None
    return {**vocabulary.metadata("whitespace"), **special_tokens(source.files, with_merges=True)}


def tokenizer_json_size(source: TokenizerSource) -> int | None:
    """The number of tokens that tokenizer.json lists; None without it. A token in both of its lists counts twice."""
    tokenizer = source.files.tokenizer
    if tokenizer is None:
        return None
    place = source.files.place("tokenizer.json")
    model = as_mapping(tokenizer.get("model"), place / "model")
    added = as_list(tokenizer.get("added_tokens", []), place / "added_tokens")
    return len(as_mapping(model.get("vocab"), place / "model" / "vocab")) + len(added)
