"""Regular expressions over tensor names, as llama-quantize's --tensor-type understands them.

The reference lower-cases a pattern and searches it with std::regex, whose grammar is ECMAScript's. This is that grammar
without back-references. A match is computed on the set of all positions that can be reached, and a group is tried once
at each of them, so no pattern can hang a run by backtracking. Only whether a pattern matches is needed, so greediness
and groups are parsed but have no effect.

Source: ECMA-262, 3rd edition, 15.10, as libstdc++ reads it.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gguf_forge.errors import UsageError, printable

Positions = int  # a set of places in a name, as a number: bit n is place n
Step = Callable[["_Name", Positions], Positions]

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
_MAX_LENGTH = 4096  # characters of a pattern
MOST_PATTERNS = 8192  # that a request may have: several for each tensor of the largest models
_MAX_TRIES = 10_000  # of groups at places of one name; real patterns need some hundreds


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
            UsageError: it is not a valid pattern, uses a back-reference, or is too long.
        """
        return cls(source, _Parser(source).parse())

    def search(self, name: str) -> bool:
        """Whether the pattern matches anywhere in `name`."""
        found = _Name(name.encode(errors="surrogateescape"))
        return bool(self._step(found, found.all))

    def replace(self, name: str, replacement: str) -> str | None:
        """`name` with the first match replaced, the longest one there; None if there is no match.

        Case does not matter, as patterns are lower-cased.

        Example:
            >>> NamePattern.compile(r"^(base_)?model\\.").replace("base_model.blk.0.attn_q.weight", "")
            'blk.0.attn_q.weight'
        """
        raw = name.encode(errors="surrogateescape")
        found = _Name(raw.lower())
        for start in range(len(raw) + 1):
            ends = self._step(found, 1 << start)
            if ends:
                end = ends.bit_length() - 1
                changed = raw[:start] + replacement.encode(errors="surrogateescape") + raw[end:]
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


class _Name:
    """A name that is searched, and what was found out about it: each part of a pattern is tried once at each place."""

    def __init__(self, text: bytes):
        self.text = text
        self._places: dict[frozenset[int], Positions] = {}
        self._words: dict[bytes, Positions] = {}
        self._ends: dict[tuple[Step, int], Positions] = {}

    @property
    def all(self) -> Positions:
        return (1 << len(self.text) + 1) - 1

    def places(self, accepted: frozenset[int]) -> Positions:
        """Where one of these bytes stands."""
        if accepted not in self._places:
            self._places[accepted] = _positions(i for i, byte in enumerate(self.text) if byte in accepted)
        return self._places[accepted]

    def words(self, word: bytes) -> Positions:
        """Where this word begins."""
        if word not in self._words:
            self._words[word] = _positions(i for i in range(len(self.text)) if self.text.startswith(word, i))
        return self._words[word]

    def ends(self, part: Step, start: int) -> Positions:
        """Where a part of a pattern can end that begins at `start`."""
        if (part, start) not in self._ends:
            if len(self._ends) >= _MAX_TRIES:
                raise UsageError(
                    f"a pattern takes too long to search in {printable(self.text.decode(errors='replace'))}",
                    hint="write it without repetitions and look-aheads inside of one another",
                )
            self._ends[part, start] = part(self, 1 << start)
        return self._ends[part, start]


def _positions(numbers: Iterable[int]) -> Positions:
    found = 0
    for number in numbers:
        found |= 1 << number
    return found


def _numbers(at: Positions) -> Iterator[int]:
    while at:
        lowest = at & -at
        yield lowest.bit_length() - 1
        at ^= lowest


def _one_of(accepted: frozenset[int]) -> Step:
    return lambda name, at: (at & name.places(accepted)) << 1


def _literal(word: bytes) -> Step:
    return lambda name, at: (at & name.words(word)) << len(word)


def _sequence(steps: list[Step]) -> Step:
    def step(name: _Name, at: Positions) -> Positions:
        for part in steps:
            at = part(name, at)
        return at

    return step


def _either(branches: list[Step]) -> Step:
    def step(name: _Name, at: Positions) -> Positions:
        found = 0
        for branch in branches:
            found |= branch(name, at)
        return found

    return step


def _repeat(part: Step, low: int, high: int | None, *, is_group: bool) -> Step:
    # The work would double with every level of nested repeats if a group were tried twice at a place.
    def once(name: _Name, at: Positions) -> Positions:
        if not is_group:
            return part(name, at)
        found = 0
        for start in _numbers(at):
            found |= name.ends(part, start)
        return found

    def step(name: _Name, at: Positions) -> Positions:
        for _ in range(low):
            after = once(name, at)
            if after == at:
                break
            at = after
        reached, fresh, rounds = at, at, 0
        while fresh and (high is None or rounds < high - low):
            fresh = once(name, fresh) & ~reached
            reached |= fresh
            rounds += 1
        return reached

    return step


def _beginning(name: _Name, at: Positions) -> Positions:
    return at & 1


def _end(name: _Name, at: Positions) -> Positions:
    return at & 1 << len(name.text)


def _word_edge(name: _Name, at: Positions) -> Positions:
    words = name.places(_WORD)
    return at & (words ^ words << 1)


def _look_ahead(inner: Step, wanted: bool) -> Step:
    return lambda name, at: _positions(i for i in _numbers(at) if bool(name.ends(inner, i)) == wanted)


class _Parser:
    """Recursive descent: alternatives, sequences, terms, quantifiers."""

    def __init__(self, source: str):
        self.source = source
        # llama-quantize lower-cases byte by byte, which does not change letters outside ASCII.
        self.text = source.encode(errors="surrogateescape").lower().decode("latin-1")
        self.pos = 0
        self.depth = 0

    def parse(self) -> Step:
        if len(self.source) > _MAX_LENGTH:
            raise self._error(f"has more than {_MAX_LENGTH:,} characters")
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
            is_group = self.text.startswith("(", self.pos)
            step = assertion or self._quantified(self._atom(), is_group=is_group)
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
            return _beginning
        if token == "$":
            return _end
        if token == "\\b":
            return _word_edge
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

    def _quantified(self, atom: Step | int, *, is_group: bool) -> Step | int:
        while token := self._take("*", "+", "?", "{"):
            low, high = self._counts() if token == "{" else (int(token == "+"), 1 if token == "?" else None)
            self._take("?")
            part = _literal(bytes((atom,))) if isinstance(atom, int) else atom
            atom, is_group = _repeat(part, low, high, is_group=is_group), True
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
