"""The child process of `limited.py`. It imports as little as possible, because it starts anew for every call."""

from __future__ import annotations

import json
import marshal
import os
import resource
import sys
from importlib import import_module

# The exit code of a child that got no memory.
NO_MEMORY = 101
_LONGEST_MESSAGE = 500
_USUAL_ADDRESS_SPACE = 256 << 20


def serve() -> None:
    """Reads a request from the standard input, and writes the answer to the standard output."""
    out = os.dup(1)
    os.dup2(2, 1)  # What libraries print is not part of the answer.
    module, name, memory, seconds, argument = marshal.load(sys.stdin.buffer)
    function = getattr(import_module(module), name)
    _limit(memory, seconds)
    try:
        try:
            answer = json.dumps(("result", function(argument))).encode("ascii")
        except MemoryError:
            raise
        except BaseException as error:  # A panic of a library in Rust is not an Exception.
            answer = json.dumps(("error", str(error)[:_LONGEST_MESSAGE] or type(error).__name__)).encode("ascii")
        with os.fdopen(out, "wb") as stream:
            stream.write(answer)
    except MemoryError:
        os._exit(NO_MEMORY)
    os._exit(0)  # Freeing all objects one by one would take as long as making them.


def _limit(memory: int, seconds: int) -> None:
    """Sets the limits of this process. It leaves no core file, which could be as large as its memory."""
    limits = (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, _address_space() + memory),
    )
    for kind, most in limits:
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _address_space() -> int:
    """The bytes of this process's address space, or a usual value on a system that does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - importing pathlib takes 6 ms
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return _USUAL_ADDRESS_SPACE
