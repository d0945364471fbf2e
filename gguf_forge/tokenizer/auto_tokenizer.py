"""A tokenizer as transformers' AutoTokenizer sets it up, on the `tokenizers` library alone.

The JSON files of a folder disagree about added and special tokens, and transformers has its own way of settling
that, which depends on the class that they name. Ids, texts and types in a GGUF file follow from the result.
Source: transformers 4.57.6, `tokenization_utils_base.py`, `tokenization_utils_fast.py` and
`convert_slow_tokenizer.py`; the defaults of its tokenizer classes are data here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files
from typing import TYPE_CHECKING, Any

from ..errors import ForgeError, InputError
from .checks import Place, as_decimal_id, as_flag, as_id, as_list, as_mapping, as_text
from .files import TokenizerFiles

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_ADDITIONAL = "additional_special_tokens"
_QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The infill tokens that CodeLlama's class adds to the special ones.
_CODE_LLAMA_TOKENS = {
    "prefix_token": "▁<PRE>",
    "middle_token": "▁<MID>",
    "suffix_token": "▁<SUF>",
    "eot_token": "▁<EOT>",
}
_CLEAN_UP = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
             (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))  # fmt: skip


@dataclass(frozen=True)
class AutoTokenizer:
    """A tokenizer with every added and special token settled.

    Attributes:
        engine: The tokenizer of the `tokenizers` library.
        special_tokens: The texts of the special tokens, in the order of their roles.
        place: The file it was made from.
    """

    engine: Tokenizer
    special_tokens: tuple[str, ...]
    place: Place
    _ends: tuple[list[int], list[int]] | None
    _clean_up: bool

    def vocabulary(self) -> dict[str, int]:
        """Text -> id, added tokens included. Raises InputError when two texts have one id."""
        vocabulary = self.engine.get_vocab(with_added_tokens=True)
        if len(set(vocabulary.values())) != len(vocabulary):
            texts: dict[int, str] = {}
            for text, id in sorted(vocabulary.items()):
                if id in texts:
                    raise self.place.error(f"gives the tokens {texts[id]!r} and {text!r} the same id {id}")
                texts[id] = text
        return vocabulary

    def base_size(self) -> int:
        """The number of tokens without the added ones."""
        return self.engine.get_vocab_size(with_added_tokens=False)

    def added_tokens(self) -> dict[int, AddedToken]:
        """Id -> added token."""
        return self.engine.get_added_tokens_decoder()

    def encode(self, text: str) -> list[int]:
        """The ids of a text, with the special tokens that the tokenizer puts around it."""
        with _engine_errors(self.place):
            if self._ends is None:
                return list(self.engine.encode(text).ids)
            before, after = self._ends
            return before + list(self.engine.encode(text, add_special_tokens=False).ids) + after

    def round_trip(self, text: str) -> str:
        """The text after encoding and decoding: how the tokenizer's normalizer would have it."""
        with _engine_errors(self.place):
            ids = self.engine.encode(text, add_special_tokens=False).ids
            decoded = self.engine.decode(ids, skip_special_tokens=False)
        for old, new in _CLEAN_UP if self._clean_up else ():
            decoded = decoded.replace(old, new)
        return decoded


def load_tokenizer(files: TokenizerFiles) -> AutoTokenizer | None:
    """The tokenizer of a folder; None where it has neither tokenizer.json nor vocab.json with merges.txt.

    Raises:
        InputError: a file is broken or contradicts itself.
    """
    name, defaults = _class_of(files)
    arguments, added = _arguments(files)
    settings = {**defaults, **arguments}
    if files.tokenizer_bytes is not None:
        place = files.place("tokenizer.json")
        engine = _from_json(files.tokenizer_bytes, place)
    elif files.vocab is not None and files.merges is not None:
        place = files.place("vocab.json")
        settings = _as_slow(settings, name)
        engine = _from_slow(files, name, settings, place)
    else:
        return None
    with _engine_errors(place):
        special = _special_tokens(settings, name, place)
        _add_tokens(engine, added, special)
        _set_prefix_space(engine, settings.get("add_prefix_space", False))
        return AutoTokenizer(
            engine,
            tuple(map(_text, special)),
            place,
            _ends(engine, settings, place) if "add_bos_token" in defaults else None,
            bool(settings.get("clean_up_tokenization_spaces", False)),
        )


@cache
def _classes() -> Mapping[str, Any]:
    data = package_files(__package__).joinpath("transformers_classes.json").read_bytes()
    table: Mapping[str, Any] = json.loads(data)
    return table


def _class_of(files: TokenizerFiles) -> tuple[str, Mapping[str, Any]]:
    """The tokenizer class that the files ask for, and its defaults; the generic one where none is known."""
    config = files.config or {}
    name = (files.tokenizer_config or {}).get("tokenizer_class") or config.get("tokenizer_class")
    if name is None:
        types: Mapping[str, list[str]] = _classes()["model_types"]
        name = next((name for name, models in types.items() if config.get("model_type") in models), None)
    known: Mapping[str, Mapping[str, Any]] = _classes()["classes"]
    for candidate in (f"{name}Fast", str(name)):
        if candidate in known:
            return candidate, known[candidate]
    return "PreTrainedTokenizerFast", {}


def _arguments(files: TokenizerFiles) -> tuple[dict[str, Any], list[AddedToken]]:
    """What the files ask the class for, and the added tokens by id. Source: `_from_pretrained`."""
    place = files.place("tokenizer_config.json")
    arguments = dict(files.tokenizer_config or {})
    by_id: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in arguments:
        place = place / "added_tokens_decoder"
        for key, value in as_mapping(arguments["added_tokens_decoder"], place).items():
            by_id[as_decimal_id(key, place)] = _added_token(value, place / key)
    else:
        arguments |= _special_tokens_map(files, arguments)
        by_id |= _legacy_added_tokens(files, arguments)
    by_text = {token.content: token for token in by_id.values()}
    for role in _ROLES:
        token = _special_token(arguments.get(role), place / role)
        if token is not None:
            arguments[role] = by_text.get(_text(token), token)
    return arguments, [by_id[id] for id in sorted(by_id)]


def _special_tokens_map(files: TokenizerFiles, arguments: Mapping[str, Any]) -> dict[str, Any]:
    place = files.place("special_tokens_map.json")
    found: dict[str, Any] = {}
    for role, value in (files.special_tokens_map or {}).items():
        if role == _ADDITIONAL and isinstance(value, list):
            tokens = list(arguments.get(role) or [])
            for item in value:
                token = _added_token(item, place / role, special=True) if isinstance(item, dict) else item
                if token not in tokens:
                    tokens.append(token)
            found[role] = tokens
        else:
            is_token = isinstance(value, dict)
            found[role] = _added_token(value, place / role, special=True) if is_token else value
    return found


def _legacy_added_tokens(files: TokenizerFiles, arguments: Mapping[str, Any]) -> dict[int, AddedToken]:
    from tokenizers import AddedToken

    found: dict[int, AddedToken] = {}
    place = files.place("added_tokens.json")
    special = {_text(arguments[role]) for role in _ROLES if arguments.get(role) is not None}
    special |= {_text(token) for token in arguments.get(_ADDITIONAL) or []}
    for text, id in (files.added_tokens or {}).items():
        content = as_text(text, place)
        found[as_id(id, place / repr(text))] = AddedToken(
            content, normalized=content not in special, special=content in special
        )
    place = files.place("tokenizer.json") / "added_tokens"
    for index, value in enumerate(as_list((files.tokenizer or {}).get("added_tokens", []), place)):
        fields = as_mapping(value, place / index)
        found[as_id(fields.get("id"), place / index / "id")] = _added_token(fields, place / index)
    return found


def _added_token(value: Any, place: Place, special: bool | None = None) -> AddedToken:
    from tokenizers import AddedToken

    fields = as_mapping(value, place)
    flags = {
        name: as_flag(fields[name], place / name)
        for name in ("single_word", "lstrip", "rstrip", "normalized", "special")
        if name in fields
    }
    if special is not None:
        flags["special"] = special
    return AddedToken(as_text(fields.get("content"), place / "content"), **flags)


def _special_token(value: Any, place: Place) -> str | AddedToken | None:
    if isinstance(value, dict):
        return _added_token(value, place)
    return as_text(value, place) if isinstance(value, str) else value


def _text(token: Any) -> str:
    return token if isinstance(token, str) else str(token.content if hasattr(token, "content") else token)


def _special_tokens(settings: Mapping[str, Any], name: str, place: Place) -> list[str | AddedToken]:
    """The special tokens by role, each text once. Source: `all_special_tokens_extended`."""
    found: dict[str, str | AddedToken] = {}
    extra = settings.get("extra_special_tokens") or {}
    candidates = [
        *(_normalized_role(name, role, settings.get(role)) for role in _ROLES),
        *as_list(settings.get(_ADDITIONAL) or [], place / _ADDITIONAL),
        *(settings.get(role, token) for role, token in _infill_tokens(name)),
        *(extra.values() if isinstance(extra, dict) else as_list(extra, place / "extra_special_tokens")),
    ]
    for candidate in candidates:
        token = _special_token(candidate, place / "special tokens")
        if token:
            found.setdefault(_text(token), token)
    return list(found.values())


def _infill_tokens(name: str) -> Iterable[tuple[str, str]]:
    return _CODE_LLAMA_TOKENS.items() if name == "CodeLlamaTokenizerFast" else ()


def _normalized_role(name: str, role: str, token: Any) -> Any:
    """Roberta's mask takes the space before it; given as a plain text, it becomes a token that says so."""
    if name == "RobertaTokenizerFast" and role == "mask_token" and isinstance(token, str):
        return {"content": token, "lstrip": True, "normalized": False}
    return token


def _add_tokens(engine: Tokenizer, added: list[AddedToken], special: Iterable[str | AddedToken]) -> None:
    """Adds what the engine lacks, in transformers' order: new tokens get the next free ids."""
    from tokenizers import AddedToken

    wanted: list[str | AddedToken] = list(added)
    known = {token.content for token in (*engine.get_added_tokens_decoder().values(), *added)}
    texts = {_text(token) for token in special}
    for token in special:
        if token not in wanted if isinstance(token, AddedToken) else token not in known:
            wanted.append(token)
    tokens = []
    for token in wanted:
        if isinstance(token, AddedToken):
            token.special = token.special or token.content in texts
            tokens.append(token)
        else:
            tokens.append(AddedToken(token, special=True))
    if tokens:
        engine.add_tokens(tokens)


def _set_prefix_space(engine: Tokenizer, wanted: Any) -> None:
    """The class's add_prefix_space outranks that of a byte-level pre-tokenizer."""
    from tokenizers.pre_tokenizers import ByteLevel

    current = engine.pre_tokenizer
    if isinstance(current, ByteLevel) and isinstance(wanted, bool) and current.add_prefix_space != wanted:
        engine.pre_tokenizer = ByteLevel(add_prefix_space=wanted, use_regex=current.use_regex)


def _ends(engine: Tokenizer, settings: Mapping[str, Any], place: Place) -> tuple[list[int], list[int]]:
    """The ids put before and after a text by classes that have flags for it, as Llama's."""
    ends: list[list[int]] = []
    for role in ("bos", "eos"):
        token = settings.get(f"{role}_token")
        if not settings.get(f"add_{role}_token"):
            ends.append([])
        elif not token:
            raise place.error(
                f"has no {role} token, and add_{role}_token is set", "correct tokenizer_config.json"
            )
        else:
            # Special tokens have been added, so each has an id.
            ends.append([id for id in [engine.token_to_id(_text(token))] if id is not None])
    return ends[0], ends[1]


def _from_json(data: bytes, place: Place) -> Tokenizer:
    from tokenizers import Tokenizer

    with _engine_errors(place):
        engine = Tokenizer.from_buffer(data)
        engine.no_truncation()
        engine.no_padding()
        return engine


def _as_slow(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A slow class makes its special tokens ones that are normalized; Qwen2's does not."""
    if name == "Qwen2TokenizerFast":
        return dict(settings)
    return {
        key: {"content": value, "normalized": True} if key in _ROLES and isinstance(value, str) else value
        for key, value in settings.items()
    }


def _from_slow(files: TokenizerFiles, name: str, settings: Mapping[str, Any], place: Place) -> Tokenizer:
    """A byte-level BPE tokenizer from vocab.json and merges.txt."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocab = {as_text(text, place): as_id(id, place / repr(text)) for text, id in (files.vocab or {}).items()}
    qwen2 = name == "Qwen2TokenizerFast"
    pairs = _slow_merges(files, qwen2)
    with _engine_errors(place):
        engine = Tokenizer(models.BPE(vocab, pairs, continuing_subword_prefix="", end_of_word_suffix=""))
        space = bool(settings.get("add_prefix_space", False))
        if qwen2:
            engine.normalizer = normalizers.NFC()
            split = pre_tokenizers.Split(Regex(_QWEN2_PATTERN), behavior="isolated", invert=False)
            engine.pre_tokenizer = pre_tokenizers.Sequence(
                [split, pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False)]
            )
        else:
            engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
        engine.decoder = decoders.ByteLevel()
        engine.post_processor = processors.ByteLevel(trim_offsets=False)
        bos = settings.get("bos_token")
        if settings.get("add_bos_token") and bos and not qwen2:
            text = _text(_special_token(bos, place))
            engine.post_processor = processors.TemplateProcessing(
                single=[text, "$A"],
                pair=[text, "$A", "$B:1"],
                special_tokens=[(text, engine.token_to_id(text) or 0)],
            )
        return engine


def _slow_merges(files: TokenizerFiles, qwen2: bool) -> list[tuple[str, str]]:
    """The merges as the slow classes read them: GPT-2's skips the first and the last line."""
    lines = (files.merges or "").split("\n")
    if qwen2:
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


@contextmanager
def _engine_errors(place: Place) -> Iterator[None]:
    """Turns whatever the `tokenizers` library raises, its panics too, into an InputError."""
    try:
        yield
    except ForgeError:
        raise
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a Rust panic is no Exception
        raise InputError(f"the tokenizer cannot be used: {error}", file=place.file) from error
