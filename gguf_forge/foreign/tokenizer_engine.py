"""What the `tokenizers` library makes of a stranger's files. It runs in a child process (`limited.py`).

A few kilobytes of normalizers, pre-tokenizers or regular expressions can make the library take all memory, hang, or
end the process. So only this module loads a tokenizer, and it imports nothing of the package.

Source of the order in which tokens are added: `PreTrainedTokenizerFast.__init__` of transformers 4.57.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def describe(request: Mapping[str, Any]) -> dict[str, Any]:
    """The vocabulary of a tokenizer, and what it makes of texts.

    Args:
        request: `json`, the content of a tokenizer.json, or `slow`, the parts of a slow tokenizer (`_slow`); `added`,
            tokens as pairs of a text and flags; `special`, tokens of which some are plain texts; `prefix_space`, the
            value for a byte-level pre-tokenizer or None; `bert`, options of a BERT normalizer or None; `texts`, the
            texts to encode; `round_trips`, whether added tokens are encoded and decoded.

    Returns:
        `texts` and `ids` of all tokens; `base_size`, the number of tokens that are not added; `added`, an id, a text
        and flags for each added token; `encoded`, text -> its ids with and without the tokens around it;
        `round_trips`, the text of each added token that is not normalized -> the text as it comes back.
    """
    engine = _with_tokens(_engine(request), request["added"], request["special"])
    _set_prefix_space(engine, request["prefix_space"])
    _set_bert_normalizer(engine, request["bert"])
    vocabulary = engine.get_vocab(with_added_tokens=True)
    added = engine.get_added_tokens_decoder()
    changed = [token.content for token in added.values() if not token.normalized] if request["round_trips"] else []
    return {
        "texts": list(vocabulary),
        "ids": list(vocabulary.values()),
        "base_size": engine.get_vocab_size(with_added_tokens=False),
        "added": [(id, token.content, [getattr(token, flag) for flag in _FLAGS]) for id, token in added.items()],
        "encoded": {text: [engine.encode(text, add_special_tokens=flag).ids for flag in (True, False)]
                    for text in request["texts"]},
        "round_trips": {text: _round_trip(engine, text) for text in changed},
    }  # fmt: skip


def _engine(request: Mapping[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer

    if request["json"] is None:
        return _slow(request["slow"])
    engine = Tokenizer.from_buffer(request["json"])
    engine.no_truncation()
    engine.no_padding()
    return engine


def _slow(parts: Mapping[str, Any]) -> Tokenizer:
    """A tokenizer of `vocab` with `merges` or, for WordPiece, `unk_token`; `pattern` and `prefix_space` for splitting.

    Source: transformers 4.57.6, `convert_slow_tokenizer.py`.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    if parts["merges"] is None:
        engine = Tokenizer(models.WordPiece(parts["vocab"], unk_token=parts["unk_token"]))
        engine.normalizer = normalizers.BertNormalizer()
        engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        engine.decoder = decoders.WordPiece(prefix="##")
        return engine
    model = models.BPE(parts["vocab"], parts["merges"], continuing_subword_prefix="", end_of_word_suffix="")
    engine = Tokenizer(model)
    if parts["pattern"] is None:
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=parts["prefix_space"])
    else:
        engine.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(parts["pattern"]), behavior="isolated", invert=False)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=parts["prefix_space"], use_regex=False)
        engine.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    engine.decoder = decoders.ByteLevel()
    return engine


def _with_tokens(engine: Tokenizer, added: list[Any], special: list[Any]) -> Tokenizer:
    """The engine with the missing tokens added in transformers' order, because new tokens get the next free ids."""
    from tokenizers import AddedToken, Tokenizer

    tokens = [AddedToken(text, **flags) for text, flags in added]
    specials = [item if isinstance(item, str) else AddedToken(item[0], **item[1]) for item in special]
    before = {token.content: token.normalized for token in engine.get_added_tokens_decoder().values()}
    present = {_identity(token) for token in engine.get_added_tokens_decoder().values()}
    listed = {_identity(token) for token in tokens}
    # A special token given as a plain text is compared by its text, one with flags by its text and flags.
    known = listed | {(identity[0],) for identity in present | listed}
    texts = {token if isinstance(token, str) else token.content for token in specials}
    ready = []
    for token in (*tokens, *(token for token in specials if _identity(token) not in known)):
        if isinstance(token, str):
            ready.append(AddedToken(token, special=True))
        else:
            token.special = token.special or token.content in texts
            ready.append(token)
    # Only tokens that the engine lacks are added. Some versions of the engine treat a token that they already have as
    # new, and then reset another token with the same text.
    changed = [token for token in ready if _identity(token) not in present]
    engine.add_tokens(changed)
    if any(before.get(token.content, token.normalized) != token.normalized for token in changed):
        # Some versions of the engine keep the old normalized form of a changed token. A new engine does not.
        return Tokenizer.from_str(engine.to_str())
    return engine


def _identity(token: str | AddedToken) -> tuple[object, ...]:
    """The values that make two added tokens equal. The engine's own token objects cannot be hashed."""
    if isinstance(token, str):
        return (token,)
    return token.content, token.single_word, token.lstrip, token.rstrip, token.normalized, token.special


def _set_prefix_space(engine: Tokenizer, wanted: bool | None) -> None:
    """Sets add_prefix_space of a byte-level pre-tokenizer to the value of the class, which overrides its own."""
    from tokenizers.pre_tokenizers import ByteLevel

    current = engine.pre_tokenizer
    if isinstance(current, ByteLevel) and wanted is not None and current.add_prefix_space != wanted:
        engine.pre_tokenizer = ByteLevel(add_prefix_space=wanted, use_regex=current.use_regex)


def _set_bert_normalizer(engine: Tokenizer, options: list[Any] | None) -> None:
    """Sets the options of a BERT normalizer to those of the class, which override its own."""
    from tokenizers.normalizers import BertNormalizer

    current = engine.normalizer
    if isinstance(current, BertNormalizer) and options is not None:
        current.lowercase, current.strip_accents, current.handle_chinese_chars = options


def _round_trip(engine: Tokenizer, text: str) -> str:
    return engine.decode(engine.encode(text, add_special_tokens=False).ids, skip_special_tokens=False)
