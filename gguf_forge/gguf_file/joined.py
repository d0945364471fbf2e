"""GGUF files that were cut or joined as plain bytes, which no program loads.

A file may be cut into pieces (`model.gguf.part1of2`, `model.gguf-split-a`, `model.gguf.001`), which `cat` makes one
again. The parts of a split are GGUF files of their own: where `cat` has joined them, each begins where the data of the
one before ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gguf_forge.errors import InputError, some_of
from gguf_forge.gguf_file.header import MAGIC, alignment_of, padded
from gguf_forge.gguf_file.reader import GgufHeader, read_header
from gguf_forge.storage.paths import is_there
from gguf_forge.storage.source import Source
from gguf_forge.storage.views import Section

_NUMBERED = re.compile(r"(.*\.gguf[.-]part-?)([0-9]{1,5})(?:(of-?)([0-9]{1,5}))?", re.DOTALL)
_LETTERED = re.compile(r"(.*\.gguf[.-](?:split|part)-?)([a-z]{1,2})", re.DOTALL)
_COUNTED = re.compile(r"(.*\.gguf\.)([0-9]{3})", re.DOTALL)
_MOST_PIECES = 1000
_MOST_PARTS = (1 << 16) - 1  # split.count is a UINT16


class PieceName(NamedTuple):
    """What the name of a plain piece says: what comes before its number, the number, and what comes after it."""

    before: str
    number: str
    after: str = ""

    @classmethod
    def read(cls, file_name: str) -> PieceName | None:
        """Takes a file name apart; None if it is not the name of a piece.

        Example:
            >>> PieceName.read("m.gguf.part1of2")
            PieceName(before='m.gguf.part', number='1', after='of2')
        """
        if found := _NUMBERED.fullmatch(file_name):
            return cls(found[1], found[2], (found[3] or "") + (found[4] or ""))
        found = _LETTERED.fullmatch(file_name) or _COUNTED.fullmatch(file_name)
        return cls(found[1], found[2]) if found else None

    def all(self, first: int = 1) -> Iterator[str]:
        """The names of all pieces. Those of a name that says no total go on and on.

        Args:
            first: The number of the first one.
        """
        total = int(self.after.strip("of-")) if self.after else _MOST_PIECES
        for number in range(first, first + total):
            text = _letters(number - 1, len(self.number)) if self.number.isalpha() else f"{number:0{len(self.number)}}"
            yield f"{self.before}{text}{self.after}"


def _letters(number: int, width: int) -> str:
    """a, b, c... or aa, ab, ac...; past the last one letters that no file has."""
    digits = [number // 26**place % 26 for place in reversed(range(width))]
    return "".join(chr(ord("a") + digit) for digit in digits) if number < 26**width else "{"


def pieces_of(path: Path) -> tuple[Path, ...]:
    """All pieces of the file that a piece belongs to, in order; none if this is not the name of a piece.

    Raises:
        InputError: one is missing.
    """
    name = PieceName.read(path.name)
    if name is None:
        return ()
    counts_from_0 = name.number.isdecimal() and is_there(path.with_name(next(name.all(first=0))))
    found: list[str] = []
    missing: list[str] = []
    for each in name.all(first=0 if counts_from_0 else 1):
        (found if is_there(path.with_name(each)) else missing).append(each)
        if missing and not name.after:
            break
    if name.after and missing:
        problem = f"this is a plain piece of a file, and {len(missing)} of its {len(found) + len(missing)} pieces are"
        raise InputError(f"{problem} missing: {some_of(missing)}", file=path, hint="get all pieces into one folder")
    return tuple(path.with_name(each) for each in found) if path.name in found else (path,)


def hint_for_piece(path: Path) -> str | None:
    """What to do with a plain piece of a file; None if the name is not that of one."""
    name = PieceName.read(path.name)
    if name is None:
        return None
    whole = re.sub(r"\.gguf.*", ".gguf", path.name, flags=re.DOTALL)
    pieces = f"{name.before}*" if not name.before.endswith(".gguf.") else f"{name.before}???"
    return f"this is a plain piece of a file: `cat {pieces} > {whole}` or `gguf-forge merge {path} {whole}` joins them"


def joined_parts(source: Source, header: GgufHeader) -> tuple[Section, ...]:
    """The GGUF files that lie behind one another in a file, each as a source of its own."""
    found: list[Section] = []
    start, at = 0, header
    while len(found) < _MOST_PARTS and (after := _next_part(source, start, at)) is not None:
        found.append(Section(source, start, after - start))
        start = after
        at = read_header(Section(source, start, source.size - start), lenient=True)
    return (*found, Section(source, start, source.size - start))


def _next_part(source: Source, start: int, header: GgufHeader) -> int | None:
    """Where the GGUF file behind the one with this header begins; None if it is the last."""
    end = max((tensor.offset + tensor.nbytes for tensor in header.tensors), default=header.data_offset)
    for offset in dict.fromkeys((padded(end, alignment_of(header.metadata)), end)):
        at = start + offset
        if at + len(MAGIC) <= source.size and source.read(at, len(MAGIC)).tobytes() == MAGIC:
            return at
    return None
