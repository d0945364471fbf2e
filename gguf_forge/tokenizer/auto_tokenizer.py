"""Builds a tokenizer as transformers' AutoTokenizer does, with only the `tokenizers` library.

The JSON files of a folder may disagree about added and special tokens. transformers settles this by rules that depend
on the tokenizer class that the files name, and the ids and texts in a GGUF file follow from these rules.

Source: transformers 4.57.6, `tokenization_utils_base.py`, `tokenization_utils_fast.py` and
`convert_slow_tokenizer.py`. The defaults of its tokenizer classes are in transformers_classes.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files
from typing import TYPE_CHECKING, Any

from gguf_forge.errors import ForgeError, InputError
from gguf_forge.tokenizer.added_tokens import SpecialToken, add_tokens, read_added_token, read_special_token, text_of
from gguf_forge.tokenizer.checks import Place, as_decimal_id, as_id, as_list, as_mapping, as_text
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.slow_tokenizer import build_slow_tokenizer, slow_ends, slow_settings, slow_vocabulary

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_ADDITIONAL = "additional_special_tokens"
# The infill tokens that CodeLlama's class adds to the special ones.
_CODE_LLAMA_TOKENS = {
    "prefix_token": "▁<PRE>",
    "middle_token": "▁<MID>",
    "suffix_token": "▁<SUF>",
    "eot_token": "▁<EOT>",
}
_CLEAN_UP = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
             (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))  # fmt: skip


# The largest factor by which a tokenizer may lengthen a text. Real normalizers replace single characters by single
# ones, so this leaves enough room and still bounds the memory.
_MAX_GROWTH = 1e4


@dataclass(frozen=True)
class AutoTokenizer:
    """A tokenizer with all of its added and special tokens.

    Attributes:
        engine: The tokenizer of the `tokenizers` library.
        special_tokens: The texts of the special tokens, in the order of their roles.
        place: The file that it was made from.
    """

    engine: Tokenizer
    special_tokens: tuple[str, ...]
    place: Place
    _ends: tuple[list[int], ...] | None
    _clean_up: bool

    def vocabulary(self) -> dict[str, int]:
        """Text -> id, including added tokens. Raises InputError if two texts have the same id."""
        vocabulary = self.engine.get_vocab(with_added_tokens=True)
        if len(set(vocabulary.values())) != len(vocabulary):
            texts: dict[int, str] = {}
            for text, id in sorted(vocabulary.items()):
                if id in texts:
                    raise self.place.error(f"gives the tokens {texts[id]!r} and {text!r} the same id {id}")
                texts[id] = text
        return vocabulary

    def base_size(self) -> int:
        """The number of tokens, not counting the added ones."""
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
        """The text after encoding and decoding, which is the text as the tokenizer's normalizer changes it."""
        with _engine_errors(self.place):
            ids = self.engine.encode(text, add_special_tokens=False).ids
            decoded = self.engine.decode(ids, skip_special_tokens=False)
        for old, new in _CLEAN_UP if self._clean_up else ():
            decoded = decoded.replace(old, new)
        return decoded


def load_tokenizer(files: TokenizerFiles) -> AutoTokenizer | None:
    """The tokenizer of a folder; None if it has neither tokenizer.json nor the files that its class can use instead.

    Raises:
        InputError: a file is broken or contradicts itself.
    """
    name, defaults = _class_of(files)
    arguments, added = _arguments(files)
    settings = {**defaults, **arguments}
    around: tuple[str, ...] | None = None
    if files.tokenizer_bytes is not None:
        place = files.place("tokenizer.json")
        for part in ("normalizer", "decoder"):
            _check_growth((files.tokenizer or {}).get(part), place / part)
        engine, padding = _from_json(files.tokenizer_bytes, place)
        settings = {"pad_token": padding, **settings}
    elif (place_of_slow := slow_vocabulary(files, name)) is not None:
        place = place_of_slow
        settings = slow_settings(settings, name)
        with _engine_errors(place):
            engine = build_slow_tokenizer(files, name, settings, place)
            around = slow_ends(settings, name)
    else:
        return None
    if "add_bos_token" in defaults:
        around = tuple(role if settings[f"add_{role}_token"] else "" for role in ("bos", "eos"))
    with _engine_errors(place):
        special = _special_tokens(settings, name, place)
        engine = add_tokens(engine, added, special)
        _set_prefix_space(engine, settings.get("add_prefix_space", False))
        if "do_lower_case" in defaults:
            _set_bert_normalizer(engine, settings)
        return AutoTokenizer(
            engine,
            tuple(map(text_of, special)),
            place,
            tuple(_end(engine, settings, role, place) for role in around) if around else None,
            bool(settings.get("clean_up_tokenization_spaces", False)),
        )


def settled_tokens(files: TokenizerFiles) -> tuple[list[AddedToken], list[SpecialToken]]:
    """The added tokens and the special tokens of the files. They are read without making a tokenizer."""
    name, defaults = _class_of(files)
    arguments, added = _arguments(files)
    tokenizer = files.tokenizer or {}
    place = files.place("tokenizer.json")
    listed = as_list(tokenizer.get("added_tokens", []), place / "added_tokens")
    added += [read_added_token(value, place / "added_tokens" / index) for index, value in enumerate(listed)]
    padding = as_mapping(tokenizer.get("padding") or {}, place / "padding")
    return added, _special_tokens({"pad_token": padding.get("pad_token"), **defaults, **arguments}, name, place)


@cache
def _classes() -> Mapping[str, Any]:
    data = package_files(__package__).joinpath("transformers_classes.json").read_bytes()
    table: Mapping[str, Any] = json.loads(data)
    return table


def _class_of(files: TokenizerFiles) -> tuple[str, Mapping[str, Any]]:
    """The tokenizer class that the files name, and its defaults; the generic class if the named one is not known."""
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
    """The arguments that the files give to the class, and the added tokens by id. Source: `_from_pretrained`."""
    place = files.place("tokenizer_config.json")
    arguments = dict(files.tokenizer_config or {})
    by_id: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in arguments:
        place = place / "added_tokens_decoder"
        for key, value in as_mapping(arguments["added_tokens_decoder"], place).items():
            by_id[as_decimal_id(key, place)] = read_added_token(value, place / key)
    else:
        arguments |= _special_tokens_map(files, arguments)
        by_id |= _legacy_added_tokens(files, arguments)
    by_text = {token.content: token for token in by_id.values()}
    for role in _ROLES:
        token = read_special_token(arguments.get(role), place / role)
        if token is not None:
            arguments[role] = by_text.get(text_of(token), token)
    return arguments, [by_id[id] for id in sorted(by_id)]


def _special_tokens_map(files: TokenizerFiles, arguments: Mapping[str, Any]) -> dict[str, Any]:
    place = files.place("special_tokens_map.json")
    given = files.special_tokens_map or {}
    found: dict[str, Any] = {
        role: read_special_token(given[role], place / role, special=True) for role in _ROLES if role in given
    }
    if isinstance(given.get(_ADDITIONAL), list):
        before = as_list(arguments.get(_ADDITIONAL) or [], place / _ADDITIONAL)
        after = [read_special_token(item, place / _ADDITIONAL, special=True) for item in given[_ADDITIONAL]]
        found[_ADDITIONAL] = [*before, *after]
    return found


def _legacy_added_tokens(files: TokenizerFiles, arguments: Mapping[str, Any]) -> dict[int, AddedToken]:
    from tokenizers import AddedToken

    found: dict[int, AddedToken] = {}
    place = files.place("added_tokens.json")
    given = (*(arguments.get(role) for role in _ROLES), *(arguments.get(_ADDITIONAL) or []))
    special = {text_of(token) for item in given if (token := read_special_token(item, place))}
    for text, id in (files.added_tokens or {}).items():
        content = as_text(text, place)
        found[as_id(id, place / repr(text))] = AddedToken(
            content, normalized=content not in special, special=content in special
        )
    place = files.place("tokenizer.json") / "added_tokens"
    for index, value in enumerate(as_list((files.tokenizer or {}).get("added_tokens", []), place)):
        fields = as_mapping(value, place / index)
        found[as_id(fields.get("id"), place / index / "id")] = read_added_token(fields, place / index)
    return found


def _special_tokens(settings: Mapping[str, Any], name: str, place: Place) -> list[SpecialToken]:
    """The special tokens in the order of their roles, each text once. Source: `all_special_tokens_extended`."""
    found: dict[str, SpecialToken] = {}
    extra = settings.get("extra_special_tokens") or {}
    candidates = [
        *(_normalized_role(name, role, settings.get(role)) for role in _ROLES),
        *as_list(settings.get(_ADDITIONAL) or [], place / _ADDITIONAL),
        *(settings.get(role, token) for role, token in _infill_tokens(name)),
        *(extra.values() if isinstance(extra, dict) else as_list(extra, place / "extra_special_tokens")),
    ]
    for candidate in candidates:
        token = read_special_token(candidate, place / "special tokens")
        if token and text_of(token):
            found.setdefault(text_of(token), token)
    return list(found.values())


def _infill_tokens(name: str) -> Iterable[tuple[str, str]]:
    return _CODE_LLAMA_TOKENS.items() if name == "CodeLlamaTokenizerFast" else ()


def _normalized_role(name: str, role: str, token: Any) -> Any:
    """The token for a role. A mask token of Roberta that is a plain text becomes one that takes the space before it."""
    if name == "RobertaTokenizerFast" and role == "mask_token" and isinstance(token, str):
        return {"content": token, "lstrip": True, "normalized": False}
    return token


def _set_prefix_space(engine: Tokenizer, wanted: Any) -> None:
    """Sets add_prefix_space of a byte-level pre-tokenizer to the value of the class, which overrides its own."""
    from tokenizers.pre_tokenizers import ByteLevel

    current = engine.pre_tokenizer
    if isinstance(current, ByteLevel) and isinstance(wanted, bool) and current.add_prefix_space != wanted:
        engine.pre_tokenizer = ByteLevel(add_prefix_space=wanted, use_regex=current.use_regex)


def _set_bert_normalizer(engine: Tokenizer, settings: Mapping[str, Any]) -> None:
    """Sets the options of a BERT normalizer to those of the class, which override its own."""
    from tokenizers.normalizers import BertNormalizer

    current = engine.normalizer
    if isinstance(current, BertNormalizer):
        current.lowercase = settings["do_lower_case"]
        current.strip_accents = settings["strip_accents"]
        current.handle_chinese_chars = settings["tokenize_chinese_chars"]


def _end(engine: Tokenizer, settings: Mapping[str, Any], role: str, place: Place) -> list[int]:
    """The id of the special token that the class puts at one end of a text, as a list; empty if it puts none."""
    if not role:
        return []
    token = read_special_token(settings.get(f"{role}_token"), place)
    id = engine.token_to_id(text_of(token)) if token else None
    if id is None:
        hint = f"correct {role}_token or add_{role}_token in tokenizer_config.json"
        raise place.error(f"has no {role} token to put around a text", hint)
    return [id]


def _check_growth(step: Any, place: Place) -> None:
    """Refuses steps that would make a text grow without bound, because each replacement may multiply its length."""
    pending, growth = [step], 1.0
    while pending:
        step = pending.pop()
        if isinstance(step, dict):
            inner = step.get("normalizers") or step.get("decoders")
            pending += inner if isinstance(inner, list) else []
            pattern = step.get("pattern")
            replaced = pattern.get("String") if isinstance(pattern, dict) else None
            inserted = len(str(step.get("content") or "")) + len(str(step.get("prepend") or ""))
            growth *= max(1.0, inserted / len(replaced) if replaced else inserted)
        if growth > _MAX_GROWTH:
            raise place.error("makes texts grow without bound", "such a tokenizer cannot be converted")


def _from_json(data: bytes, place: Place) -> tuple[Tokenizer, str | None]:
    """The tokenizer of a tokenizer.json without its truncation and padding, and its padding token."""
    from tokenizers import Tokenizer

    with _engine_errors(place):
        engine = Tokenizer.from_buffer(data)
        padding = engine.padding
        engine.no_truncation()
        engine.no_padding()
    return engine, str(padding["pad_token"]) if padding else None


@contextmanager
def _engine_errors(place: Place) -> Iterator[None]:
    """Turns every exception of the `tokenizers` library, including a Rust panic, into an InputError."""
    try:
        yield
    except ForgeError:
        raise
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # A Rust panic is not an Exception.
        raise InputError(f"the tokenizer cannot be used: {error}", file=place.file) from error
