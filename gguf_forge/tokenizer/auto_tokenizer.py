"""Settles what a folder says about its tokenizer, as transformers' AutoTokenizer does.

The JSON files of a folder may disagree about added and special tokens. transformers settles this by rules that depend
on the tokenizer class that the files name, and the ids and texts in a GGUF file follow from these rules. The tokenizer
itself is loaded by the `tokenizers` library in a child process (`foreign/tokenizer_engine.py`).

Source: transformers 4.57.6, `tokenization_utils_base.py`, `tokenization_utils_fast.py` and
`convert_slow_tokenizer.py`. The defaults of its tokenizer classes are in transformers_classes.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files as package_files
from typing import Any

from gguf_forge.errors import InputError
from gguf_forge.foreign.limited import run_limited
from gguf_forge.foreign.tokenizer_engine import describe
from gguf_forge.tokenizer.added_tokens import (
    AddedToken,
    SpecialToken,
    read_added_token,
    read_special_token,
    text_of,
)
from gguf_forge.tokenizer.checks import Place, as_decimal_id, as_id, as_list, as_mapping, as_text
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.slow_tokenizer import slow_ends, slow_parts, slow_settings, slow_vocabulary

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_BERT_OPTIONS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
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


# The limits of the child process: some for any tokenizer, and more for a large file. A file of 6 MB with 128,000 tokens
# needs 0.1 GiB and a second.
_MEMORY, _MEMORY_PER_BYTE, _MOST_MEMORY = 256 << 20, 20, 1 << 30
_SECONDS, _BYTES_PER_SECOND = 5, 1 << 20
_OUTPUT, _OUTPUT_PER_BYTE, _MOST_OUTPUT = 4 << 20, 2, 64 << 20


@dataclass(frozen=True)
class AutoTokenizer:
    """A tokenizer with all of its added and special tokens.

    Attributes:
        special_tokens: The texts of the special tokens, in the order of their roles.
        place: The file that it was made from.
    """

    special_tokens: tuple[str, ...]
    place: Place
    _found: Mapping[str, Any]
    _ends: tuple[list[int], ...] | None
    _clean_up: bool

    def vocabulary(self) -> dict[str, int]:
        """Text -> id, including added tokens. Raises InputError if two texts have the same id."""
        vocabulary: dict[str, int] = dict(zip(self._found["texts"], self._found["ids"], strict=True))
        if len(set(vocabulary.values())) != len(vocabulary):
            texts: dict[int, str] = {}
            for text, id in sorted(vocabulary.items()):
                if id in texts:
                    raise self.place.error(f"gives the tokens {texts[id]!r} and {text!r} the same id {id}")
                texts[id] = text
        return vocabulary

    def base_size(self) -> int:
        """The number of tokens, not counting the added ones."""
        size: int = self._found["base_size"]
        return size

    def added_tokens(self) -> dict[int, AddedToken]:
        """Id -> added token, with all of its flags."""
        return {id: AddedToken(text, *flags) for id, text, flags in self._found["added"]}

    def encode(self, text: str) -> list[int]:
        """The ids of one of the texts that it was loaded with, and of the special tokens that it puts around a text."""
        with_ends, plain = self._found["encoded"][text]
        if self._ends is None:
            return list(with_ends)
        before, after = self._ends
        return [*before, *plain, *after]

    def round_trips(self) -> dict[str, str]:
        """Each added token that is not normalized, and the same after encoding and decoding.

        The second is the text as the tokenizer's normalizer changes it.
        """
        return {text: self._cleaned(changed) for text, changed in self._found["round_trips"].items()}

    def _cleaned(self, text: str) -> str:
        for old, new in _CLEAN_UP if self._clean_up else ():
            text = text.replace(old, new)
        return text


def load_tokenizer(
    files: TokenizerFiles, texts: Sequence[str] = (), *, round_trips: bool = False
) -> AutoTokenizer | None:
    """The tokenizer of a folder; None if it has neither tokenizer.json nor the files that its class can use instead.

    Args:
        files: The folder's tokenizer files.
        texts: The texts that `encode` may be asked for.
        round_trips: Whether `round_trips` may be called.

    Raises:
        InputError: a file is broken or contradicts itself, or the tokenizer needs too much memory or time.
    """
    name, defaults = _class_of(files)
    arguments, added = _arguments(files)
    settings = {**defaults, **arguments}
    around: tuple[str, ...] | None = None
    slow = None
    if files.tokenizer_bytes is not None:
        place = files.place("tokenizer.json")
        settings = {"pad_token": _padding_token(files, place), **settings}
    elif (place_of_slow := slow_vocabulary(files, name)) is not None:
        place = place_of_slow
        settings = slow_settings(settings, name)
        slow = slow_parts(files, name, settings, place)
        around = slow_ends(settings, name)
    else:
        return None
    if "add_bos_token" in defaults:
        around = tuple(role if settings[f"add_{role}_token"] else "" for role in ("bos", "eos"))
    special = _special_tokens(settings, name, place)
    space = settings.get("add_prefix_space", False)
    request = {
        "json": files.tokenizer_bytes,
        "slow": slow,
        "added": [(token.content, token.flags) for token in added],
        "special": [token if isinstance(token, str) else (token.content, token.flags) for token in special],
        "prefix_space": space if isinstance(space, bool) else None,
        "bert": [settings[option] for option in _BERT_OPTIONS] if "do_lower_case" in defaults else None,
        "texts": list(texts),
        "round_trips": round_trips,
    }
    found = _run(request, place)
    tokenizer = AutoTokenizer(
        tuple(map(text_of, special)),
        place,
        found,
        None,
        bool(settings.get("clean_up_tokenization_spaces", False)),
    )
    if not around:
        return tokenizer
    ids = dict(zip(found["texts"], found["ids"], strict=True))
    return replace(tokenizer, _ends=tuple(_end(ids, settings, role, place) for role in around))


def _run(request: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
    size = len(request["json"] or b"") or 32 * len((request["slow"] or {}).get("vocab", ()))
    memory = min(_MEMORY + _MEMORY_PER_BYTE * size, _MOST_MEMORY)
    seconds = _SECONDS + size // _BYTES_PER_SECOND
    most_output = min(_OUTPUT + _OUTPUT_PER_BYTE * size, _MOST_OUTPUT)
    try:
        return run_limited(describe, request, memory=memory, seconds=seconds, most_output=most_output)
    except InputError as error:
        raise InputError(f"the tokenizer cannot be used: {error.words.problem}", file=place.file) from error


def _padding_token(files: TokenizerFiles, place: Place) -> Any:
    return as_mapping((files.tokenizer or {}).get("padding") or {}, place / "padding").get("pad_token")


def settled_tokens(files: TokenizerFiles) -> tuple[list[AddedToken], list[SpecialToken]]:
    """The added tokens and the special tokens of the files. They are read without making a tokenizer."""
    name, defaults = _class_of(files)
    arguments, added = _arguments(files)
    tokenizer = files.tokenizer or {}
    place = files.place("tokenizer.json")
    listed = as_list(tokenizer.get("added_tokens", []), place / "added_tokens")
    added += [read_added_token(value, place / "added_tokens" / index) for index, value in enumerate(listed)]
    settings = {"pad_token": _padding_token(files, place), **defaults, **arguments}
    return added, _special_tokens(settings, name, place)


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


def _end(ids: Mapping[str, int], settings: Mapping[str, Any], role: str, place: Place) -> list[int]:
    """The id of the special token that the class puts at one end of a text, as a list; empty if it puts none."""
    if not role:
        return []
    token = read_special_token(settings.get(f"{role}_token"), place)
    id = ids.get(text_of(token)) if token else None
    if id is None:
        hint = f"correct {role}_token or add_{role}_token in tokenizer_config.json"
        raise place.error(f"has no {role} token to put around a text", hint)
    return [id]
