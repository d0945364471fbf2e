"""A disk that fails at the n-th call."""

from __future__ import annotations

import errno
import inspect
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gguf_forge.engine import disk

# Made of the others.
_COMPOSED = ("pread_all", "pwrite_all")
CALLS = tuple(
    name
    for name, function in inspect.getmembers(disk, inspect.isfunction)
    if function.__module__ == disk.__name__ and not name.startswith("_") and name not in _COMPOSED
)
Call = Callable[..., Any]


def fails_with(number: int) -> Callable[[Call, tuple[Any, ...]], Any]:
    """The call does nothing but raise; closing does close, as it does on Linux."""

    def fail(call: Call, arguments: tuple[Any, ...]) -> Any:
        if call.__name__ == "close":
            call(*arguments)
        raise OSError(number, os.strerror(number))

    return fail


def is_short(call: Call, arguments: tuple[Any, ...]) -> Any:
    """Transfers do a single byte; all other calls do what they should."""
    if call.__name__ in ("pread", "pwrite"):
        descriptor, data, offset = arguments
        return call(descriptor, data[:1], offset)
    if call.__name__ == "copy_range":
        source, target, _, *offsets = arguments
        return call(source, target, 1, *offsets)
    return call(*arguments)


def kills(call: Call, arguments: tuple[Any, ...]) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


class Faults:
    """Replaces the functions of the disk layer: the n-th call of them all meets `fault`.

    Attributes:
        call: The function that it was, if it has come to that.
    """

    def __init__(self, patch: pytest.MonkeyPatch, at: int, fault: Callable[[Call, tuple[Any, ...]], Any]):
        self.call: str | None = None
        self._left = at
        self._lock = threading.Lock()
        for name in CALLS:
            patch.setattr(disk, name, self._counting(getattr(disk, name), fault))

    def _counting(self, call: Call, fault: Callable[[Call, tuple[Any, ...]], Any]) -> Call:
        def counted(*arguments: Any) -> Any:
            with self._lock:
                self._left -= 1
                is_this = self._left == 0
                if is_this:
                    self.call = call.__name__
            return fault(call, arguments) if is_this else call(*arguments)

        return counted


DISK_FULL, BROKEN, INTERRUPTED = (fails_with(number) for number in (errno.ENOSPC, errno.EIO, errno.EINTR))
