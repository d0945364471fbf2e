"""Runs a function in a child process with limits on processor time, memory and output.

A library that parses or runs what a stranger wrote may take all memory, loop for hours, or end the process. In a child,
this becomes an error. The child is a fresh interpreter, so it has none of the parent's files, locks and threads. What
its libraries print is thrown away.
"""

from __future__ import annotations

import json
import marshal
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Any, TypeVar

from gguf_forge.errors import InputError
from gguf_forge.foreign.child import NO_MEMORY

A = TypeVar("A")
R = TypeVar("R")

_START = "import sys; sys.path[:] = sys.argv[1:]; from gguf_forge.foreign.child import serve; serve()"
# A busy machine may give the child little processor time, so it may take this many times as long by the clock.
_PATIENCE = 10
# These variables keep libraries from starting threads, each of which would take address space of its own.
_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "MALLOC_ARENA_MAX": "1", "RUST_BACKTRACE": "0"}


class LimitError(InputError):
    """A function in a child process went beyond its limits, or ended the process."""


def run_limited(function: Callable[[A], R], argument: A, *, memory: int, seconds: int, most_output: int) -> R:
    """The result of `function(argument)`, computed in a child process.

    Args:
        function: A function of a module. The module should import little at its top, because each child imports it.
            Libraries that the function imports itself count for the limits.
        argument: A value of Python's own plain types: None, numbers, texts, bytes, lists, tuples and dicts.
        memory: The bytes that the child may take in addition to those that it has after its imports.
        seconds: The seconds of processor time that the child may take.
        most_output: The largest size of the result as JSON, in bytes.

    Returns:
        The result as JSON gives it back: a tuple becomes a list.

    Raises:
        LimitError: a limit was reached, or the process ended without a result.
        InputError: the function raised an exception. The problem is its message.

    Example:
        >>> run_limited(sorted, [3, 1, 2], memory=64 << 20, seconds=5, most_output=1 << 10)
        [1, 2, 3]
    """
    request: Any = (function.__module__, function.__qualname__, memory, seconds, argument)
    package = str(Path(__file__).resolve().parents[2])
    command = [sys.executable or "python3", "-I", "-S", "-c", _START, package, *filter(None, sys.path)]
    pipe, environment = subprocess.PIPE, {**os.environ, **_ENVIRONMENT}
    environment.pop("LD_PRELOAD", None)  # An allocator or a sanitizer would take memory that is not counted for it.
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment)
    except OSError as error:
        raise LimitError(f"no process can be started that reads it: {error.strerror or error}") from error
    timer = Timer(seconds * _PATIENCE, process.kill)
    try:
        timer.start()
        answer = _exchange(process, marshal.dumps(request), most_output)
        timer.cancel()
        code = process.wait() if len(answer) <= most_output else 0
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    if len(answer) > most_output:
        raise LimitError(f"the result has more than {most_output >> 10:,} KiB")
    if code or not answer:
        raise LimitError(_reason(code, memory, seconds))
    kind, value = json.loads(answer)
    if kind != "result":
        raise InputError(value)
    result: R = value
    return result


def _exchange(process: subprocess.Popen[bytes], request: bytes, most: int) -> bytes:
    """Sends the request, and reads at most `most + 1` bytes of the answer."""
    assert process.stdin is not None and process.stdout is not None
    with process.stdout:
        with suppress(BrokenPipeError), process.stdin:  # The child has ended, and its exit code says why.
            process.stdin.write(request)
        return process.stdout.read(most + 1)


def _reason(code: int, memory: int, seconds: int) -> str:
    """Why a child ended that gave no answer."""
    if code == NO_MEMORY:
        return f"it needs more than {memory >> 20:,} MiB of memory"
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"it needs more than {seconds} seconds of processor time"
    if code in (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS):
        # A library in Rust ends the process if it gets no memory, and when its stack is full.
        return f"it needs more than {memory >> 20:,} MiB of memory, or is nested too deeply"
    return f"the process that reads it ended with code {code}"
