"""What a tokenizer.json that was made of a SentencePiece model says: its kind, its space prefix, its scores.

Source: the converters of transformers (`convert_slow_tokenizer.py`), which make such files of SentencePiece models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gguf_forge.tokenizer.checks import as_mapping
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.merges import merged_pairs, merged_texts

# The least rank of a token that no merge makes.
_WITHOUT_MERGE = 1000
# Longer tokens are not cut everywhere. Real ones are shorter.
_LONGEST_CUT = 128
# The pattern with which several spaces become one.
MANY_SPACES = {"Regex": " {2,}"}
_INNER = ("normalizers", "pretokenizers")


def is_sentencepiece_bpe(files: TokenizerFiles) -> bool:
    """Whether tokenizer.json is BPE on characters, whose unknown characters become bytes.

    The reference asks for a decoder of several steps and does not look at the vocabulary.
    """
    tokenizer = files.tokenizer
    if tokenizer is None:
        return False
    place = files.place("tokenizer.json")
    model = as_mapping(tokenizer.get("model"), place / "model")
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        return False
    decoder = as_mapping(tokenizer.get("decoder") or {}, place / "decoder")
    has_steps = decoder.get("type") == "Sequence"
    if files.as_reference:
        return has_steps
    vocab = model.get("vocab")
    has_bytes = isinstance(vocab, dict) and "<0x00>" in vocab
    is_byte_level = any(step.get("type") == "ByteLevel" for step in steps_of(tokenizer.get("pre_tokenizer")))
    return (has_steps or has_bytes) and not is_byte_level


def steps_of(part: Any) -> Iterator[Mapping[str, Any]]:
    """The steps of a normalizer or a pre-tokenizer, in order. Sequences are taken apart."""
    pending = [part]
    while pending:
        step = pending.pop()
        if not isinstance(step, dict):
            continue
        inner = next((step[name] for name in _INNER if isinstance(step.get(name), list)), None)
        if step.get("type") == "Sequence" and inner is not None:
            pending += reversed(inner)
        else:
            yield step


def prepends_space(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a text gets a space before it.

    Example:
        >>> prepends_space({"normalizer": {"type": "Prepend", "prepend": "▁"}})
        True
    """
    if any(step.get("type") == "Prepend" for step in steps_of(tokenizer.get("normalizer"))):
        return True
    return any(_prepends(step) for step in steps_of(tokenizer.get("pre_tokenizer")))


def _prepends(step: Mapping[str, Any]) -> bool:
    if step.get("type") != "Metaspace":
        return False
    scheme = step.get("prepend_scheme")
    return scheme != "never" if scheme is not None else step.get("add_prefix_space", True) is not False


def is_about_spaces(step: Mapping[str, Any]) -> bool:
    """Whether a step of a normalizer only adds, removes or replaces spaces."""
    if step.get("type") == "Replace":
        return step.get("pattern") in ({"String": " "}, MANY_SPACES)
    return step.get("type") in ("Prepend", "Strip")


def merge_scores(files: TokenizerFiles, texts: list[str]) -> list[float]:
    """The score of each token: minus the rank of the first merge that makes it.

    llama.cpp joins the pair whose result has the highest score. With these scores, which are those that SentencePiece
    gives to the pieces of a BPE model, it joins in the order of the merges. A token that no merge makes comes after all
    merges, because characters would otherwise be joined to it first.
    """
    ranks: dict[str, int] = {}
    for rank, text in enumerate(merged_texts(files)):
        ranks.setdefault(text, rank)
    last = max(_WITHOUT_MERGE, len(ranks) and max(ranks.values()) + 1)
    return [-float(ranks.get(text, last)) for text in texts]


def pair_without_merge(files: TokenizerFiles) -> tuple[str, str] | None:
    """Two tokens that llama.cpp joins to a third one and no merge does; None if there are none.

    SentencePiece joins any pair whose result is a token, and a tokenizer.json that was made of its model has a merge
    for each of them. A vocabulary that the `tokenizers` library trained has only those that were counted.
    """
    merges = set(merged_pairs(files))
    made = {left + right for left, right in merges}
    tokens = made | {part for pair in merges for part in pair}
    for text in made:
        for cut in range(1, min(len(text), _LONGEST_CUT)):
            pair = text[:cut], text[cut:]
            if pair[0] in tokens and pair[1] in tokens and pair not in merges:
                return pair
    return None
