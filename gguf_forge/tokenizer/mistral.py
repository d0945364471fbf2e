"""Mistral's own tokenizer files: tekken.json, and tokenizer.model with a version as its suffix.

Source: `_set_vocab_mistral` and `get_community_chat_template` in llama.cpp's converter, gguf-py's `MistralVocab`, and
`tekken.py`, `sentencepiece.py` and `utils.py` of mistral-common, which `MistralVocab` uses.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gguf_forge.errors import UnsupportedError
from gguf_forge.gguf_file.values import Metadata, ValueType, array, boolean, string, u32
from gguf_forge.tokenizer.chat_template import bundled_template, chat_templates, templates_of
from gguf_forge.tokenizer.checks import MAX_TOKENS, Place, as_id, as_list, as_mapping, as_text, check_vocabulary_memory
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.ranks import check_work, joined, shown
from gguf_forge.tokenizer.sentencepiece_model import Pieces, read_model
from gguf_forge.tokenizer.special import ID_KEYS
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.vocabulary import Reader, TokenizerSource

_ROLES = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>"}
# The special tokens of a tekken.json file that does not list its own.
_TEKKEN_SPECIAL = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
_MODEL_NAME = re.compile(r"tokenizer\.model(?:\.(v\d+)(?:m\d+)?)?")
# Names of templates that are built into llama.cpp, and file names of those that are not.
_TEMPLATES = {
    ("v1", "spm"): "mistral-v1",
    ("v1", "tekken"): "mistral-v1",
    ("v3", "spm"): "mistral-v3",
    ("v3", "tekken"): "mistral-v3-tekken",
    ("v7", "spm"): "mistral-v7",
    ("v7", "tekken"): "mistral-v7-tekken",
}
_BUNDLED_TEMPLATES = {"v11": "mistral-v11", "v13": "mistral-v13"}


@dataclass(frozen=True)
class _Vocabulary:
    """A vocabulary of Mistral. `merges` is None for a SentencePiece model. `scores` are integers for tekken."""

    kind: str
    version: str
    texts: list[bytes]
    scores: list[float] | list[int]
    types: list[TokenType]
    ids: Mapping[str, int]
    merges: list[str] | None


def mistral(architecture: str, *, native: bool = True, community_template: bool = True) -> Reader:
    """A reader of tekken.json, or of the newest tokenizer.model. It returns None if the folder has neither.

    Args:
        architecture: The GGUF architecture, whose name begins the key for the number of tokens.
        native: Whether the checkpoint has Mistral's own format (params.json). Then chat_template.jinja counts first.
        community_template: Whether to use a chat template of the community if there is no other.

    Example:
        >>> mistral_native = mistral("llama")
    """

    def read(source: TokenizerSource) -> Metadata | None:
        vocabulary = _tekken(source.files) or _sentencepiece(source.files)
        if vocabulary is None:
            return None
        return _metadata(vocabulary, architecture) | _template(source.files, vocabulary, native, community_template)

    return read


def has_tekken_alone(source: TokenizerSource) -> bool:
    """A condition for `when` and `either`: the folder has tekken.json but not tokenizer.json."""
    return source.files.tokenizer is None and source.files.object("tekken.json") is not None


def _metadata(vocabulary: _Vocabulary, architecture: str) -> Metadata:
    metadata: Metadata = {"tokenizer.ggml.model": string("llama" if vocabulary.merges is None else "gpt2")}
    if vocabulary.merges is not None:
        metadata["tokenizer.ggml.pre"] = string("tekken")
        metadata["tokenizer.ggml.merges"] = array(ValueType.STRING, vocabulary.merges)
    score = ValueType.FLOAT32 if vocabulary.merges is None else ValueType.INT32
    return {
        **metadata,
        **{ID_KEYS[kind]: u32(vocabulary.ids[kind]) for kind in _ROLES},
        "tokenizer.ggml.tokens": array(ValueType.STRING, vocabulary.texts),
        "tokenizer.ggml.scores": array(score, vocabulary.scores),
        "tokenizer.ggml.token_type": array(ValueType.INT32, map(int, vocabulary.types)),
        f"{architecture}.vocab_size": u32(len(vocabulary.texts)),
        "tokenizer.ggml.add_bos_token": boolean(True),
        "tokenizer.ggml.add_eos_token": boolean(False),
    }


def _template(files: TokenizerFiles, vocabulary: _Vocabulary, native: bool, community: bool) -> Metadata:
    if native and files.chat_template_jinja is not None:
        return templates_of(files.chat_template_jinja, files.place("chat_template.jinja"))
    if native and not community:
        return {}
    if not native and not files.as_reference and (own := chat_templates(files)):
        return own
    bundled = _BUNDLED_TEMPLATES.get(vocabulary.version)
    template = bundled_template(bundled) if bundled else _TEMPLATES.get((vocabulary.version, vocabulary.kind))
    if template is None:
        raise UnsupportedError(
            f"no chat template is known for {vocabulary.kind} tokenizers of version {vocabulary.version}",
            file=files.folder.path,
            hint="put a chat_template.jinja into the folder",
        )
    return templates_of(template, Place("chat template"))


def _tekken(files: TokenizerFiles) -> _Vocabulary | None:
    tekken = files.object("tekken.json")
    if tekken is None:
        return None
    place = files.place("tekken.json")
    config = as_mapping(tekken.get("config"), place / "config")
    size = as_id(config.get("default_vocab_size"), place / "config" / "default_vocab_size")
    count = as_id(config.get("default_num_special_tokens"), place / "config" / "default_num_special_tokens")
    if not count < size <= MAX_TOKENS:
        raise place.error(f"has {size} tokens, {count} of them special, which cannot be")
    check_vocabulary_memory(size, place)
    special = _special_texts(tekken.get("special_tokens"), count, place / "special_tokens")
    ranks = _tekken_ranks(tekken.get("vocab"), size - count, place / "vocab")
    missing = [text for kind, text in _ROLES.items() if text not in special and kind != "pad"]
    if missing:
        raise place.error(f"has no special token {missing[0]!r}")
    return _Vocabulary(
        "tekken",
        as_text(config.get("version"), place / "config" / "version").split("m")[0],
        [text.encode() for text in (*special, *map(shown, ranks))],
        [0] * size,
        [TokenType.CONTROL] * count + [TokenType.NORMAL] * len(ranks),
        {kind: special.index(text if text in special else _ROLES["eos"]) for kind, text in _ROLES.items()},
        [joined(pair) for pair in _tekken_merges(ranks, place / "vocab")],
    )


def _special_texts(listed: Any, count: int, place: Place) -> list[str]:
    """The special tokens by rank. A rank that the file does not name gets a text made of its number."""
    if listed is None:
        known = dict(enumerate(_TEKKEN_SPECIAL))
    else:
        fields = [as_mapping(item, place / index) for index, item in enumerate(as_list(listed, place))]
        known = {as_id(item.get("rank"), place): as_text(item.get("token_str"), place) for item in fields}
        if len(known) != len(fields):
            raise place.error("has two tokens of the same rank")
    if sorted(known) != list(range(len(known))) or len(known) > count:
        raise place.error(f"must have the ranks from 0 on, each once, and no more than {count} of them")
    return [known.get(id, f"<SPECIAL_{id}>") for id in range(count)]


def _tekken_ranks(listed: Any, size: int, place: Place) -> dict[bytes, int]:
    tokens = as_list(listed, place)
    if len(tokens) < size:
        raise place.error(f"has {len(tokens)} tokens, and the configuration says {size}")
    ranks: dict[bytes, int] = {}
    for rank, value in enumerate(tokens[:size]):
        here = place / rank
        fields = as_mapping(value, here)
        try:
            token = base64.b64decode(as_text(fields.get("token_bytes"), here / "token_bytes"), validate=True)
        except ValueError as error:
            raise (here / "token_bytes").error("is not base64") from error
        if as_id(fields.get("rank"), here / "rank") != rank or not token or token in ranks:
            raise here.error("is a token that is empty or there twice, or has not the rank of its place")
        if rank < 256 and token != bytes([rank]):
            raise here.error(f"must be the byte {rank}, because the first tokens are the bytes")
        ranks[token] = rank
    check_work(ranks, place)
    return ranks


def _tekken_merges(ranks: Mapping[bytes, int], place: Place) -> Iterator[tuple[bytes, bytes]]:
    """Every way to make each token from two others, in order of the token's rank, then of the ranks of the two."""
    for token, rank in ranks.items():
        if rank < 256:
            continue
        halves = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        found = [(left, right) for left, right in halves if left in ranks and right in ranks]
        if not found:
            raise (place / rank).error("is a token that no two others make")
        yield from sorted(found, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _sentencepiece(files: TokenizerFiles) -> _Vocabulary | None:
    names = [name for name in files.folder.names() if _MODEL_NAME.fullmatch(name)]
    data = files.content(names[-1]) if names else None
    match = _MODEL_NAME.fullmatch(names[-1]) if names else None
    if data is None or match is None:
        return None
    place = files.place(names[-1])
    pieces = read_model(data, place).pieces
    plain = {TokenType.USER_DEFINED: TokenType.NORMAL}
    types = [plain.get(kind, kind) for kind in pieces.types]
    return _Vocabulary(
        "spm", match.group(1) or "v1", pieces.texts, pieces.scores, types, _piece_ids(pieces, place), None
    )


def _piece_ids(pieces: Pieces, place: Place) -> dict[str, int]:
    """The ids of SentencePiece's own control pieces. Without a padding piece, the end of sequence is the padding."""
    controls = {
        text.decode(): id
        for id, (text, kind) in enumerate(zip(pieces.texts, pieces.types, strict=True))
        if kind is TokenType.CONTROL
    }
    for kind in ("bos", "eos"):
        if _ROLES[kind] not in controls:
            raise place.error(f"has no control piece {_ROLES[kind]!r}")
    return {
        "bos": controls[_ROLES["bos"]],
        "eos": controls[_ROLES["eos"]],
        "unk": pieces.types.index(TokenType.UNKNOWN),
        "pad": controls.get(_ROLES["pad"], controls[_ROLES["eos"]]),
    }
