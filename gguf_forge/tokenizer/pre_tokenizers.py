"""Finds the llama.cpp pre-tokenizer that splits text in the same way as a model's tokenizer.

llama.cpp has names for about 90 ways of splitting text. Its converter encodes one text and finds the name by the sha256
of the token ids, in a table of known hashes.

Source: `get_vocab_base_pre` of llama.cpp's converter, the names that `src/llama-vocab.cpp` reads, and the patterns that
it quotes from the tokenizers.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files as package_files
from os import PathLike
from typing import Any

from gguf_forge.errors import UnsupportedError, UsageError

# The text that is encoded. It has spaces, emoji, digits, scripts, punctuation and contractions, because splitting rules
# differ in these.
PROBE = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n"
    "🚀 (normal) 😶\u200d🌫️ (multiple emojis concatenated) ✅ 🦙🦙 "
    "3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 "
    "កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български "  # noqa: RUF001
    "''''''```````\"\"\"\"......!!!!!!?????? "
    "I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL"
)


@cache
def _table() -> Mapping[str, Any]:
    data = package_files(__package__).joinpath("pre_tokenizers.json").read_bytes()
    table: Mapping[str, Any] = json.loads(data)
    return table


_LIKENESS = 0.85  # of a slip in typing; the name of another model is further away, or longer


def known_names() -> tuple[str, ...]:
    """Every pre-tokenizer name that llama.cpp knows, sorted."""
    return tuple(_table()["names"])


def checked_name(name: str) -> str:
    """The name, if llama.cpp knows it. Otherwise raises UsageError with names of which it may be a slip."""
    if name in known_names():
        return name
    as_long = [known for known in known_names() if len(known) == len(name)]
    near = difflib.get_close_matches(name, as_long, n=1, cutoff=_LIKENESS)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known_names())}"
    raise UsageError(f"llama.cpp knows no pre-tokenizer {name!r}", hint=hint)


def probe_hash(ids: Sequence[int]) -> str:
    return sha256(str(list(ids)).encode()).hexdigest()


def name_of(ids: Sequence[int], tokenizer: Mapping[str, Any] | None, file: PathLike[str]) -> str:
    """The name of the pre-tokenizer whose tokenizer gives `ids` for PROBE.

    Args:
        ids: The token ids of PROBE, special tokens included.
        tokenizer: tokenizer.json, for a guess if the hash is unknown.
        file: The file to name in the error.

    Raises:
        UnsupportedError: no known tokenizer gives these ids.
    """
    found = probe_hash(ids)
    name: str | None = _table()["hashes"].get(found)
    if name is not None:
        return name
    guesses = similar(tokenizer) if tokenizer is not None else ()
    if guesses:
        hint = f"its splitting rules are those of {' and '.join(guesses)}: try --pre-tokenizer {guesses[0]}"
    else:
        names = ", ".join(known_names())
        hint = f"name it with --pre-tokenizer NAME, the name of the model it was fine-tuned from; known: {names}"
    raise UnsupportedError(
        f"the BPE pre-tokenizer is not one that llama.cpp's table knows (hash {found})",
        file=file,
        hint=hint,
    )


def similar(tokenizer: Mapping[str, Any]) -> tuple[str, ...]:
    """Names whose splitting rules are exactly those of a tokenizer.json, most likely first.

    Example:
        >>> similar({"pre_tokenizer": {"type": "ByteLevel", "use_regex": True}, "model": {}})
        ('gpt-2',)
    """
    rules = list(_splitting_rules(tokenizer.get("pre_tokenizer")))
    model = tokenizer.get("model")
    ignores_merges = bool(model.get("ignore_merges")) if isinstance(model, dict) else False
    return tuple(
        name
        for row in _table()["splitting"]
        if row["rules"] == rules and row.get("ignore_merges", ignores_merges) == ignores_merges
        for name in row["names"]
    )


def _splitting_rules(pre_tokenizer: Any) -> Iterator[str]:
    pending = [pre_tokenizer]
    while pending:
        step = pending.pop()
        if not isinstance(step, dict):
            continue
        kind = step.get("type")
        if kind == "Sequence" and isinstance(step.get("pretokenizers"), list):
            pending += reversed(step["pretokenizers"])
        elif kind == "Split":
            pattern = step.get("pattern")
            yield str(pattern.get("Regex", pattern)) if isinstance(pattern, dict) else str(pattern)
        elif kind == "Digits":
            yield "Digits:each" if step.get("individual_digits") else "Digits"
        elif kind != "ByteLevel" or step.get("use_regex", True):
            yield str(kind)
