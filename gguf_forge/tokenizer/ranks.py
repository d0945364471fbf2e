"""Byte-level BPE vocabularies that are given as ranks: for each token its bytes, and its place in the order of merges.

The merges follow from the ranks. Source: tiktoken's file format, and `_set_vocab_qwen` in llama.cpp's converter.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from itertools import pairwise

from gguf_forge.tokenizer.checks import MAX_TOKENS, Place

# The most steps of work for all merges of a vocabulary. Real vocabularies have short tokens and need about a second.
_MAX_WORK = 1 << 27


def read_ranks(data: bytes, place: Place) -> dict[bytes, int]:
    """The ranks of a tiktoken file. Each line has a token in base64 and its rank.

    Raises:
        InputError: a line has another form, a token or rank occurs twice, or a rank is far too large.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line:
            continue
        try:
            encoded, rank = line.split()
            token, value = base64.b64decode(encoded, validate=True), int(rank[:10])
        except ValueError as error:
            raise place.error(
                f"has a line {number} that is not a token in base64 and its rank: {line[:60]!r}"
            ) from error
        if not token or token in ranks or not 0 <= value < MAX_TOKENS:
            raise place.error(f"has a token in line {number} that is empty, there twice, or of no possible rank")
        ranks[token] = value
    if len(set(ranks.values())) != len(ranks):
        raise place.error("gives two tokens the same rank")
    check_work(ranks, place)
    return ranks


def check_work(ranks: Mapping[bytes, int], place: Place) -> None:
    """Refuses tokens that are so long that finding their merges would never end."""
    if sum(len(token) ** 2 for token in ranks) > _MAX_WORK:
        raise place.error("has tokens that are far longer than any real ones", "download the file again")


def merges_of(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The last merge of each token, in the order of the file. A token that no two others make has no merge."""
    for token, rank in ranks.items():
        if len(token) > 1:
            parts = _parts(ranks, token, rank)
            if len(parts) == 2:
                yield parts[0], parts[1]


def _parts(ranks: Mapping[bytes, int], token: bytes, below: int) -> list[bytes]:
    """The parts of a token that are left after all merges of a lower rank."""
    parts = [token[index : index + 1] for index in range(len(token))]
    while len(parts) > 1:
        pairs = [ranks.get(left + right, below) for left, right in pairwise(parts)]
        lowest = min(pairs)
        if lowest >= below:
            break
        index = pairs.index(lowest)
        parts[index : index + 2] = [parts[index] + parts[index + 1]]
    return parts


def _printable_bytes() -> dict[int, str]:
    """GPT-2's character for each byte: a printable byte is its own character, the others get characters from 256 on."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("\xa1"), ord("\xac") + 1), *range(ord("\xae"), ord("\xff") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + index) for index, byte in enumerate(hidden)}


_CHARACTERS = _printable_bytes()


def shown(token: bytes) -> str:
    r"""A token as byte-level BPE writes it.

    Example:
        >>> shown(b" a\n")
        'ĠaĊ'
    """
    return "".join(_CHARACTERS[byte] for byte in token)


def joined(pair: tuple[bytes, bytes]) -> str:
    """A merge as GGUF files store it."""
    return f"{shown(pair[0])} {shown(pair[1])}"
