"""Texts, types and pre-tokenizer of a vocabulary whose tokenizer splits text before it looks up tokens.

Byte-level BPE and WordPiece have such vocabularies. Source: `get_vocab_base` in llama.cpp's converter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gguf_forge.errors import InputError
from gguf_forge.gguf_file.values import Metadata, ValueType, array, string
from gguf_forge.tokenizer.auto_tokenizer import AutoTokenizer, load_tokenizer
from gguf_forge.tokenizer.checks import vocabulary_size
from gguf_forge.tokenizer.pre_tokenizers import PROBE, checked_name, name_of
from gguf_forge.tokenizer.renamed_tokens import is_of_tokenizer_json, renamed_token
from gguf_forge.tokenizer.token_types import TokenType, added_token, marked
from gguf_forge.tokenizer.vocabulary import TokenizerSource


@dataclass(frozen=True)
class BaseVocabulary:
    """A vocabulary. The index is the token id. `added` has the ids of the added tokens, by text."""

    pre_tokenizer: str
    texts: list[str]
    types: list[TokenType]
    added: Mapping[str, int] = field(default_factory=dict)

    def metadata(self, model: str) -> Metadata:
        """The metadata keys of the vocabulary. `model` is llama.cpp's name for the kind of tokenizer."""
        return {
            "tokenizer.ggml.model": string(model),
            "tokenizer.ggml.pre": string(self.pre_tokenizer),
            "tokenizer.ggml.tokens": array(ValueType.STRING, self.texts),
            "tokenizer.ggml.token_type": array(ValueType.INT32, map(int, self.types)),
        }


def read_base_vocabulary(
    source: TokenizerSource, pre_tokenizer: str | None = None, *, as_marked: bool = False
) -> BaseVocabulary | None:
    """The vocabulary of a folder; None if it has no tokenizer files.

    Args:
        source: The folder's files and the model's configuration.
        pre_tokenizer: The name that this kind of vocabulary always has, which replaces the one found by hash.
        as_marked: Whether added tokens are written unchanged, and are control tokens only if marked as special,
            whatever their text.

    Raises:
        InputError: a file is broken, or the vocabulary does not fit the model's vocab_size.
        UnsupportedError: the pre-tokenizer is unknown, and the user named none.
        UsageError: llama.cpp does not know the named pre-tokenizer.
    """
    texts_to_encode = () if pre_tokenizer or source.pre_tokenizer else (PROBE,)
    tokenizer = load_tokenizer(source.files, texts_to_encode, round_trips=not as_marked)
    if tokenizer is None:
        return None
    texts, types = _tokens(tokenizer, source)
    added = tokenizer.added_tokens()
    # Runtimes match added tokens in the plain text. So a token that is changed by encoding and decoding is written in
    # its changed form.
    changed = {} if as_marked else tokenizer.round_trips()
    for id, token in added.items():
        if as_marked:
            texts[id], types[id] = token.content, marked(token.special)
        else:
            texts[id], types[id] = added_token(changed.get(token.content, token.content), token.special)
    name = pre_tokenizer or _pre_tokenizer(tokenizer, source)
    return BaseVocabulary(name, texts, types, {token.content: id for id, token in added.items()})


def _pre_tokenizer(tokenizer: AutoTokenizer, source: TokenizerSource) -> str:
    if source.pre_tokenizer is not None:
        return checked_name(source.pre_tokenizer)
    return name_of(tokenizer.encode(PROBE), source.files.tokenizer, source.files.folder.path)


def _tokens(tokenizer: AutoTokenizer, source: TokenizerSource) -> tuple[list[str], list[TokenType]]:
    vocabulary = tokenizer.vocabulary()
    if not vocabulary:
        raise tokenizer.place.error("has no tokens")
    highest = max(vocabulary.values())
    size = vocabulary_size(source.config, source.files.place("config.json")) or len(vocabulary)
    if highest >= size:
        raise _beyond(tokenizer, source, min(vocabulary, key=lambda text: (vocabulary[text] < size, vocabulary[text])))
    texts = [f"[PAD{id}]" for id in range(size)]
    types = [TokenType.UNUSED] * size
    for text, id in vocabulary.items():
        texts[id] = text
        types[id] = TokenType.NORMAL
    return texts, types


def _beyond(tokenizer: AutoTokenizer, source: TokenizerSource, text: str) -> InputError:
    """The error for the first token that has no row in the embeddings."""
    files = source.files
    if (renamed := renamed_token(files, text)) is not None:
        return renamed
    id = tokenizer.vocabulary()[text]
    size = vocabulary_size(source.config, files.place("config.json"))
    problem = f"has a token with id {id} ({text!r:.60}), and the model's vocab_size is {size}"
    if files.tokenizer is None or is_of_tokenizer_json(files, text):
        return tokenizer.place.error(
            problem,
            "the tokenizer has more tokens than the model has embedding rows: take the model's own, "
            "or resize its embeddings and vocab_size in config.json",
        )
    return files.place("tokenizer_config.json").error(
        f"or a file beside it names the token {text!r:.60}, which tokenizer.json lacks. It becomes token {id}, and the "
        f"model's vocab_size is {size}",
        f"take {text!r:.60} out of the file, or resize the embeddings and vocab_size in config.json",
    )
