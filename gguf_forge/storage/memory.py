"""The memory of what is read before any weight: headers, configs, vocabularies and the keys of GGUF files.

A reader tells what it is about to hold. If this does not fit into the memory that the run may take (`--max-memory`),
the file is refused before it is parsed. Small needs are not looked at, because looking costs more than they do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from gguf_forge.errors import InputError

# Bytes that the process may hold if the user sets no bound.
DEFAULT_MAX_MEMORY = 1 << 30
# A process that holds much memory already, such as a notebook, may hold at least this much more. Without it, the
# default bound would refuse to work there.
AT_LEAST_MORE = 256 << 20
# Needs below this many bytes are not looked at.
SMALL_NEED = 16 << 20

_BOUND: ContextVar[int | None] = ContextVar("max_memory", default=None)
_CAN_BE_SET: ContextVar[bool] = ContextVar("can_be_set", default=True)

# The most bytes that Python's objects take for each character of a JSON text: an object with one key, a list, the entry
# of a list or a key, the key of an object, half a text.
_COST_OF = {"{": 232, "[": 72, ",": 56, ":": 100, '"': 32}
_PIECE = 1 << 16


@contextmanager
def memory_bound(max_memory: int | None) -> Iterator[None]:
    """Readers of the block refuse what does not fit into `max_memory` bytes; None for the default."""
    token = _BOUND.set(bound_of(max_memory))
    try:
        yield
    finally:
        _BOUND.reset(token)


@contextmanager
def told_of_option(can_be_set: bool) -> Iterator[None]:
    """Errors of the block name `--max-memory` only if the command that runs has it."""
    token = _CAN_BE_SET.set(can_be_set)
    try:
        yield
    finally:
        _CAN_BE_SET.reset(token)


def way_out(enough: int) -> str:
    """What helps if `enough` bytes would be enough: the option, or that there is none. It names a little more, because
    the next process may hold some pages more than this one."""
    if _CAN_BE_SET.get():
        return f"allow --max-memory {(enough >> 20) + 2}M or more"
    return "this command has no option to allow more"


def bound_of(max_memory: int | None) -> int:
    """The bytes that this process may hold, everything counted."""
    return max(DEFAULT_MAX_MEMORY, resident_bytes() + AT_LEAST_MORE) if max_memory is None else max_memory


def check_memory(need: int, what: str, file: Path) -> None:
    """Raises InputError if the process cannot hold `need` more bytes for `what` of this file."""
    if need < SMALL_NEED:
        return
    bound = _BOUND.get() or bound_of(None)
    if resident_bytes() + need > bound:
        raise InputError(
            f"{what} would take about {need >> 20:,} MiB of memory, which is more than the run may take",
            file=file,
            hint=f"real models need far less; if this is one, {way_out(resident_bytes() + need)}",
        )


def json_cost(text: bytes) -> int:
    """An upper estimate of the bytes that the objects of a JSON text take, without parsing it.

    Example:
        >>> json_cost(b"[[],[],[]]")
        420
    """
    import numpy as np  # which takes longer than most commands that need none of this

    counts = np.zeros(256, np.int64)
    for start in range(0, len(text), _PIECE):
        counts += np.bincount(np.frombuffer(text[start : start + _PIECE], np.uint8), minlength=256)
    # A text takes as many bytes for each character as its widest one needs.
    width = 4 if counts[0xF0:].any() else 2 if counts[0x80:].any() else 1
    objects = sum(cost * int(counts[ord(character)]) for character, cost in _COST_OF.items())
    return objects + 2 * width * len(text)


def resident_bytes() -> int:
    """What this process holds in memory now; where the system does not tell, the most it ever held."""
    try:
        fields = Path("/proc/self/status").read_text().split("VmRSS:")
        return int(fields[1].split()[0]) << 10
    except (OSError, IndexError, ValueError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak << 10
