"""Regular expressions over tensor names, as llama-quantize's --tensor-type understands them.

The reference lower-cases a pattern and searches it with std::regex, whose grammar is ECMAScript's. This is
that grammar without back-references. A match is computed on the set of all positions that can be reached, so no
pattern can hang a run by backtracking. Only whether a pattern matches is needed, so greediness and groups are
parsed but have no effect.

Source: ECMA-262, 3rd edition, 15.10, as libstdc++ reads it.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from gguf_forge.errors import UsageError

Positions = frozenset[int]
Step = Callable[[bytes, Positions], Positions]

_DIGITS = frozenset(string.digits.encode())
_WORD = frozenset((string.ascii_letters + string.digits + "_").encode())
_SPACE = frozenset(b" \t\n\v\f\r")
_ALL = frozenset(range(256))
_ANY = _ALL - frozenset(b"\n\r")
_CLASS_ESCAPES = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CONTROL_ESCAPES = {"0": 0, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_POSIX = {
    "alnum": _WORD - frozenset(b"_"),
    "alpha": frozenset(string.ascii_letters.encode()),
    "blank": frozenset(b" \t"),
    "cntrl": frozenset(range(32)) | {127},
    "digit": _DIGITS,
    "graph": frozenset(range(33, 127)),
    "lower": frozenset(string.ascii_lowercase.encode()),
    "print": frozenset(range(32, 127)),
    "punct": frozenset(string.punctuation.encode()),
    "space": _SPACE,
    "upper": frozenset(string.ascii_uppercase.encode()),
    "xdigit": frozenset(string.hexdigits.encode()),
}
_MAX_DEPTH = 50


@dataclass(frozen=True)
class NamePattern:
    """A compiled pattern; `source` is what the user wrote.

    Example:
        >>> NamePattern.compile(r"blk\\.(0|1)\\.FFN_down").search("blk.1.ffn_down.weight")
        True
    """

    source: str
    _step: Step

    @classmethod
    def compile(cls, source: str) -> NamePattern:
        """Read a pattern.

        Raises:
            UsageError: it is not a valid pattern, or uses a back-reference.
        """
        return cls(source, _Parser(source).parse())

    def search(self, name: str) -> bool:
        """Whether the pattern matches anywhere in `name`."""
        text = name.encode(errors="surrogateescape")
        return bool(self._step(text, frozenset(range(len(text) + 1))))

    def replace(self, name: str, replacement: str) -> str | None:
        """`name` with the first match replaced, the longest one there; None if there is no match.

        Case does not matter, as patterns are lower-cased.

        Example:
            >>> NamePattern.compile(r"^(base_)?model\\.").replace("base_model.blk.0.attn_q.weight", "")
            'blk.0.attn_q.weight'
        """
        raw = name.encode(errors="surrogateescape")
        text = raw.lower()
        for start in range(len(text) + 1):
            ends = self._step(text, frozenset((start,)))
            if ends:
                changed = raw[:start] + replacement.encode(errors="surrogateescape") + raw[max(ends) :]
                return changed.decode(errors="surrogateescape")
        return None


def found_in(patterns: Iterable[NamePattern], names: Iterable[str]) -> tuple[set[str], set[str]]:
    """The names in which one of the patterns is found, as --drop-tensor looks for them, and the patterns found in any.

    Case does not matter.

    Example:
        >>> found_in([NamePattern.compile("^v"), NamePattern.compile("^x")], ["V.a", "blk.0.attn_v"])
        ({'V.a'}, {'^v'})
    """
    every = tuple(patterns)
    found = {name: {pattern.source for pattern in every if pattern.search(name.lower())} for name in names}
    return {name for name, sources in found.items() if sources}, set().union(*found.values())


def _one_of(accepted: frozenset[int]) -> Step:
    return lambda text, at: frozenset(i + 1 for i in at if i < len(text) and text[i] in accepted)


def _literal(word: bytes) -> Step:
    def step(text: bytes, at: Positions) -> Positions:
        ends = set()
        found = text.find(word)
        while found >= 0:
            if found in at:
                ends.add(found + len(word))
            found = text.find(word, found + 1)
        return frozenset(ends)

    return step


def _sequence(steps: list[Step]) -> Step:
    def step(text: bytes, at: Positions) -> Positions:
        for part in steps:
            at = part(text, at)
        return at

    return step


def _either(branches: list[Step]) -> Step:
    return lambda text, at: frozenset().union(*(branch(text, at) for branch in branches))


def _repeat(part: Step, low: int, high: int | None) -> Step:
    # Results are cached, because the work would otherwise double with every level of nested repeats.
    @lru_cache(maxsize=128)
    def ends(text: bytes, start: int) -> Positions:
        return part(text, frozenset((start,)))

    def once(text: bytes, at: Positions) -> Positions:
        return frozenset().union(*(ends(text, start) for start in at))

    def step(text: bytes, at: Positions) -> Positions:
        for _ in range(low):
            after = once(text, at)
            if after == at:
                break
            at = after
        reached, fresh, rounds = at, at, 0
        while fresh and (high is None or rounds < high - low):
            fresh = once(text, fresh) - reached
            reached |= fresh
            rounds += 1
        return reached

    return step


def _where(holds: Callable[[bytes, int], bool]) -> Step:
    return lambda text, at: frozenset(i for i in at if holds(text, i))


def _at_word_edge(text: bytes, i: int) -> bool:
    before = i > 0 and text[i - 1] in _WORD
    after = i < len(text) and text[i] in _WORD
    return before != after


def _look_ahead(inner: Step, wanted: bool) -> Step:
    return _where(lambda text, i: bool(inner(text, frozenset((i,)))) == wanted)


class _Parser:
    """Recursive descent: alternatives, sequences, terms, quantifiers."""

    def __init__(self, source: str):
        self.source = source
        # llama-quantize lower-cases byte by byte, which does not change letters outside ASCII.
        self.text = source.encode(errors="surrogateescape").lower().decode("latin-1")
        self.pos = 0
        self.depth = 0

    def parse(self) -> Step:
        step = self._alternatives()
        if self.pos < len(self.text):
            raise self._error("has a ')' too many")
        return step

    def _error(self, what: str) -> UsageError:
        return UsageError(
            f"pattern {self.source!r} {what} (at character {self.pos + 1})",
            hint=r"patterns are ECMAScript regular expressions, such as blk\.[0-3]\.ffn_down",
        )

    def _take(self, *tokens: str) -> str:
        """Reads and returns the first of `tokens` that comes next; an empty string if none does."""
        for token in tokens:
            if self.text.startswith(token, self.pos):
                self.pos += len(token)
                return token
        return ""

    def _next(self) -> str:
        if self.pos >= len(self.text):
            raise self._error("ends too early")
        self.pos += 1
        return self.text[self.pos - 1]

    def _alternatives(self) -> Step:
        branches = [self._sequence()]
        while self._take("|"):
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else _either(branches)

    def _sequence(self) -> Step:
        steps: list[Step] = []
        word = bytearray()
        while self.pos < len(self.text) and self.text[self.pos] not in "|)":
            assertion = self._assertion()
            atom = assertion or self._atom()
            step = atom if assertion else self._quantified(atom)
            if isinstance(step, int):
                word.append(step)
                continue
            if word:
                steps.append(_literal(bytes(word)))
                word.clear()
            steps.append(step)
        if word:
            steps.append(_literal(bytes(word)))
        return steps[0] if len(steps) == 1 else _sequence(steps)

    def _assertion(self) -> Step | None:
        token = self._take("^", "$", "\\b", "(?=", "(?!")
        if token == "^":
            return _where(lambda text, i: i == 0)
        if token == "$":
            return _where(lambda text, i: i == len(text))
        if token == "\\b":
            return _where(_at_word_edge)
        return _look_ahead(self._group(), token == "(?=") if token else None

    def _group(self) -> Step:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self._error(f"nests groups more than {_MAX_DEPTH} deep")
        inner = self._alternatives()
        if not self._take(")"):
            raise self._error("lacks a ')'")
        self.depth -= 1
        return inner

    def _atom(self) -> Step | int:
        """Reads one item that can be repeated. A character stays a number, so that it can be joined with others."""
        if self._take("(?:") or (not self.text.startswith("(?", self.pos) and self._take("(")):
            return self._group()
        if self._take("["):
            return _one_of(self._bracket())
        if self._take("."):
            return _one_of(_ANY)
        if self._take("\\"):
            escaped = self._escape()
            return escaped if isinstance(escaped, int) else _one_of(escaped)
        if self._take("(", "*", "+", "?", "{"):
            raise self._error("has a character that needs a backslash or something before it")
        return ord(self._next())

    def _quantified(self, atom: Step | int) -> Step | int:
        while token := self._take("*", "+", "?", "{"):
            low, high = self._counts() if token == "{" else (int(token == "+"), 1 if token == "?" else None)
            self._take("?")
            atom = _repeat(_literal(bytes((atom,))) if isinstance(atom, int) else atom, low, high)
        return atom

    def _number(self) -> int | None:
        start = self.pos
        while self.pos < len(self.text) and self.text[self.pos] in string.digits:
            self.pos += 1
        return int(self.text[start : self.pos]) if start < self.pos <= start + 6 else None

    def _counts(self) -> tuple[int, int | None]:
        low = self._number()
        high = self._number() if self._take(",") else low
        if low is None or (high is not None and high < low) or not self._take("}"):
            raise self._error("has a wrong count in braces")
        return low, high

    def _escape(self) -> int | frozenset[int]:
        char = self._next()
        if char in _CLASS_ESCAPES:
            return _CLASS_ESCAPES[char]
        if char in _CONTROL_ESCAPES:
            return _CONTROL_ESCAPES[char]
        if char == "x":
            digits = self._next() + self._next()
            if not set(digits) <= set(string.hexdigits):
                raise self._error(r"has a wrong \x escape")
            return int(digits, 16)
        if char.isdecimal():
            raise self._error("has a back-reference, which is not supported")
        if char in string.ascii_letters:
            raise self._error(f"has an unknown escape \\{char} (patterns are lower-cased first)")
        return ord(char)

    def _bracket(self) -> frozenset[int]:
        negated = bool(self._take("^"))
        accepted: set[int] = set()
        while not self._take("]"):
            low = self._bracket_item()
            if self.text.startswith("-", self.pos) and not self.text.startswith("-]", self.pos):
                self.pos += 1
                high = self._bracket_item()
                if not isinstance(low, int) or not isinstance(high, int) or high < low:
                    raise self._error("has a wrong range in brackets")
                accepted.update(range(low, high + 1))
            else:
                accepted.update((low,) if isinstance(low, int) else low)
        return _ALL - accepted if negated else frozenset(accepted)

    def _bracket_item(self) -> int | frozenset[int]:
        if self._take("[:"):
            end = self.text.find(":]", self.pos)
            name = self.text[self.pos : end]
            if end < 0 or name not in _POSIX:
                raise self._error("has an unknown [:class:]")
            self.pos = end + 2
            return _POSIX[name]
        if self._take("[.", "[="):
            raise self._error("has a collating element, which is not supported")
        char = self._next()
        if char != "\\":
            return ord(char)
        return 8 if self._take("b") else self._escape()
