"""Functions that a child process runs in tests of its limits."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


def echo(value: Any) -> Any:
    return value


def length(data: bytes) -> int:
    return len(data)


def text_of(size: int) -> str:
    return "x" * size


def fail(message: str) -> None:
    raise ValueError(message)


def loop(_: None) -> None:
    while True:
        pass


def end_by(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))


def shout(text: str) -> str:
    print(text)
    print(text, file=sys.stderr)
    os.write(1, text.encode())
    os.write(2, text.encode())
    return text
