"""Standard output for data, standard error for everything else; colours only where a person reads."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from gguf_forge.cli.shown import escaped
from gguf_forge.errors import ForgeError, OutputError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from gguf_forge.cli.options import Messages

# The version of the JSON objects. It goes up when a key gets another meaning or goes away; new keys do not change it.
SCHEMA = 1
# A pipe has no width, so lines written to it are never wrapped.
_UNLIMITED = 10_000


@dataclass(frozen=True)
class Failure:
    """Reports an error: as text on standard error for people, as JSON on standard output for scripts."""

    code: int
    kind: str
    message: str
    file: str | None = None
    tensor: str | None = None
    hint: str | None = None

    @classmethod
    def of(cls, error: ForgeError) -> Failure:
        file = str(error.file) if error.file is not None else None
        return cls(error.exit_code, type(error).__name__, error.problem, file, error.tensor, error.hint)


class ReaderGone(Exception):
    """The other end of a pipe was closed. This is no OSError, because typer ends those with an exit code of its own."""


def console(stream: TextIO | None) -> Console:
    """A console that writes text unchanged: no markup or emoji codes are read, and no numbers or paths are coloured."""
    from rich.console import Console

    class PlainConsole(Console):
        def on_broken_pipe(self) -> None:
            raise ReaderGone

    target = stream if stream is not None else open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    has_width = target.isatty() or "COLUMNS" in os.environ
    return PlainConsole(
        file=target, width=None if has_width else _UNLIMITED, markup=False, emoji=False, highlight=False
    )


@contextmanager
def writing() -> Iterator[None]:
    """Turns errors of standard output into ours: a full disk into an OutputError, a closed pipe into ReaderGone."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        discard(sys.stdout)
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def discard(*streams: TextIO | None) -> None:
    """Discards what is left in the buffers of these streams. Otherwise the interpreter fails to flush them at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        with suppress(AttributeError, OSError, ValueError):  # closed, or not a file
            os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
    os.close(nowhere)


def print_json(value: Mapping[str, Any]) -> None:
    """Prints one object, with the version of its form first."""
    with writing():
        print(json.dumps({"schema": SCHEMA, **value}, indent=2), flush=True)


def print_data(*data: RenderableType) -> None:
    """Prints text. `no_wrap` leaves long lines to the terminal, so that a path in them can be copied in one piece."""
    to = console(sys.stdout)
    with writing():
        for part in data:
            to.print(part, soft_wrap=bool(getattr(part, "no_wrap", False)))


def report_failure(failure: Failure, *, as_json: bool) -> None:
    from rich.text import Text

    to = console(sys.stderr)
    where = "".join(f"{part}: " for part in (failure.file, failure.tensor) if part)
    to.print(Text.assemble(("error: ", "bold red"), escaped(where + failure.message, keep="\n")), soft_wrap=True)
    if failure.hint:
        to.print(Text.assemble(("hint: ", "bold"), escaped(failure.hint, keep="\n")), soft_wrap=True)
    if as_json:
        print_json({"error": {name: value for name, value in vars(failure).items() if value is not None}})


class _ConsoleHandler(logging.Handler):
    """Log records as lines on a console, above a progress bar if there is one."""

    def __init__(self, to: Console, level: int):
        super().__init__(level)
        self._console = to

    def emit(self, record: logging.LogRecord) -> None:
        from rich.text import Text

        style = "bold yellow" if record.levelno >= logging.WARNING else "dim"
        label = "note" if record.levelno < logging.WARNING else record.levelname.lower()
        self._console.print(Text.assemble((f"{label}: ", style), record.getMessage()), soft_wrap=True)


@contextmanager
def logging_to(to: Console, messages: Messages) -> Iterator[None]:
    """Shows the library's log on a console: warnings, with `--verbose` also notes, with `--quiet` only errors."""
    level = logging.ERROR if messages.quiet else logging.INFO if messages.verbose else logging.WARNING
    logger = logging.getLogger("gguf_forge")
    handler, before, propagate = _ConsoleHandler(to, level), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagate
