"""A disk that fails at the n-th call."""

from __future__ import annotations

import errno
import inspect
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

import gguf_forge.cli.progress
import gguf_forge.cli.results
import gguf_forge.planning.from_checkpoint
import gguf_forge.planning.from_gguf  # noqa: F401
from gguf_forge.cli import main
from gguf_forge.engine import forge as engine
from gguf_forge.storage.local import direct, disk, journal, publish

# Made of the others.
_COMPOSED = ("pread_all", "pwrite_all")
CALLS = tuple(
    name
    for name, function in inspect.getmembers(disk, inspect.isfunction)
    if function.__module__ == disk.__name__ and not name.startswith("_") and name not in _COMPOSED
)
Call = Callable[..., Any]
Fault = Callable[[Call, tuple[Any, ...]], Any]


def fails_with(number: int) -> Fault:
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


def without_direct_writes(patch: pytest.MonkeyPatch) -> None:
    """Where files are not written past the cache, the system copies what stays as it is."""
    patch.setattr(disk, "open_direct", wraps(disk.open_direct)(lambda descriptor: fails_with(errno.EINVAL)(len, ())))


def kills(call: Call, arguments: tuple[Any, ...]) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def stops_before(number: signal.Signals) -> Fault:
    """A signal comes just before the call."""

    def stop(call: Call, arguments: tuple[Any, ...]) -> Any:
        os.kill(os.getpid(), number)
        return call(*arguments)

    return stop


def stops_after(number: signal.Signals) -> Fault:
    """A signal comes when the call has done its work, and before anybody has its result."""

    def stop(call: Call, arguments: tuple[Any, ...]) -> Any:
        try:
            return call(*arguments)
        finally:
            os.kill(os.getpid(), number)

    return stop


class Faults:
    """Replaces the functions of the disk layer: the n-th call of them all meets `fault`.

    Attributes:
        call: The function that it was, if it has come to that.
    """

    def __init__(self, patch: pytest.MonkeyPatch, at: int, fault: Fault):
        self.call: str | None = None
        self._left = at
        self._lock = threading.Lock()
        for name in CALLS:
            patch.setattr(disk, name, self._counting(getattr(disk, name), fault))

    def _counting(self, call: Call, fault: Fault) -> Call:
        def counted(*arguments: Any) -> Any:
            with self._lock:
                self._left -= 1
                is_this = self._left == 0
                if is_this:
                    self.call = call.__name__
            return fault(call, arguments) if is_this else call(*arguments)

        return counted


DISK_FULL, BROKEN, INTERRUPTED = (fails_with(number) for number in (errno.ENOSPC, errno.EIO, errno.EINTR))


class AtOnce(Executor):
    """Does what it is given before it returns."""

    def __init__(self, *arguments: object):
        pass

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:  # type: ignore[override]
        done: Future[Any] = Future()
        try:
            done.set_result(work(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done


def in_turn(patch: pytest.MonkeyPatch) -> None:
    """Tasks one by one, and the journal by the thread that does them: each run with one thread is as the one before.

    Nobody waits for the disk, which takes long and changes nothing here.
    """
    patch.setattr(engine, "_WAITING", 0)
    patch.setattr(publish, "ThreadPoolExecutor", AtOnce)
    patch.setattr(journal, "BATCH_SECONDS", float("inf"))
    patch.setattr(journal, "BATCH_BYTES", 50_000)
    patch.setattr(direct, "_LEAST", 4096)  # so that small models are written past the cache, too
    for call in ("sync", "sync_data", "sync_folder"):
        real = getattr(disk, call)
        patch.setattr(disk, call, wraps(real)(lambda where: None))


def exit_code_of(patch: pytest.MonkeyPatch, work: Callable[..., None], *arguments: object) -> int | None:
    """What a process ends with that does some work: a child of one that has one thread, and has imported everything."""
    patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faults"])
    process = context.Process(target=work, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def run_and_be_killed(folder: str, command: tuple[str, ...], at: int) -> None:
    """Runs a command in this process, which is killed at the n-th call, or ends with the command's exit code."""
    os.chdir(folder)
    patch = pytest.MonkeyPatch()
    in_turn(patch)
    Faults(patch, at, kills)
    os._exit(main(command))


def run_with_a_limit(folder: str, command: tuple[str, ...], kind: int, more: int) -> None:
    """Runs a command in this process, which may have so many files or bytes of memory more than it has now."""
    os.chdir(folder)
    main([*command, "--dry-run"])  # imports what it needs
    with open("said", "w") as said:  # noqa: PTH123
        os.dup2(said.fileno(), 2)
        sys.stderr = said
        if kind == resource.RLIMIT_NOFILE:
            now = max(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208
        else:
            now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(kind, (now + more, resource.getrlimit(kind)[1]))
        code = main(command)
        said.flush()
    os._exit(code)
