"""Standard output for data, standard error for everything else; colours only where a person reads.

Only this module writes to them. What it prints may hold text from any file.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from gguf_forge.cli.tables import line
from gguf_forge.errors import ForgeError, OutputError
from gguf_forge.foreign_text import escaped, message
from gguf_forge.wording import AS_WRITTEN

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from gguf_forge.cli.options import Messages

# The version of the JSON objects. It goes up when a key gets another meaning or goes away; new keys do not change it.
SCHEMA = 1
# A pipe has no width, so lines written to it are never wrapped.
_UNLIMITED = 10_000
_MOST_OF_A_KIND = 10  # log records of one line of the program that are shown
_TRACEBACK = 20_000  # characters


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
        tensor = message(error.tensor) if error.tensor is not None else None
        return cls(error.exit_code, type(error).__name__, error.words.problem, file, tensor, error.words.hint)


class ReaderGone(Exception):
    """The other end of a pipe was closed. This is no OSError, because typer ends those with an exit code of its own."""


def standard_output() -> Console:
    return _console(sys.stdout)


def standard_error() -> Console:
    return _console(sys.stderr)


def _console(stream: TextIO | None) -> Console:
    """A console that reads no markup or emoji codes, colours no numbers or paths, and prints nothing that acts.

    Every piece of text is made harmless on its way to the stream, whoever prints it. What acts on a terminal are the
    colours and movements that rich adds.
    """
    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment
    from rich.theme import Theme

    class PlainConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                text = segment.text if segment.control else escaped(segment.text, keep="\n")
                yield segment if text == segment.text else Segment(text, segment.style)

        def on_broken_pipe(self) -> None:
            raise ReaderGone

    target = stream if stream is not None else open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    has_width = target.isatty() or "COLUMNS" in os.environ
    return PlainConsole(
        file=target,
        width=None if has_width else _UNLIMITED,
        markup=False,
        emoji=False,
        highlight=False,
        theme=Theme({"progress.data.speed": "cyan"}),  # red would look like an alarm
    )


def take_any_text() -> None:
    """Lets standard output and standard error take characters that their encoding lacks, as escape sequences."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # closed, or not a file
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


@contextmanager
def writing() -> Iterator[None]:
    """Turns errors of standard output into ours: a full disk into an OutputError, a closed pipe into ReaderGone."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        _discard(sys.stdout)
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def is_read() -> bool:
    """Whether standard error is a terminal, so that a person may read it now."""
    return sys.stderr is not None and sys.stderr.isatty()


def flush() -> None:
    with writing():
        if sys.stdout is not None:
            sys.stdout.flush()


def discard_output() -> None:
    _discard(sys.stdout, sys.stderr)


@contextmanager
def telling() -> Iterator[None]:
    """Goes on where standard error cannot be written, as what is told there is not worth the work.

    A closed pipe ends the work.
    """
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError:
        _discard(sys.stderr)


@contextmanager
def writing_help() -> Iterator[None]:
    """As `writing`, for what rich prints to a console of typer's. Rich ends the program if the pipe is closed."""
    try:
        with writing():
            yield
    except SystemExit:
        raise ReaderGone from None


def _discard(*streams: TextIO | None) -> None:
    """Discards what is left in the buffers of these streams. Otherwise the interpreter fails to flush them at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        with suppress(AttributeError, OSError, ValueError):  # closed, or not a file
            os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
    os.close(nowhere)


def print_json(value: Mapping[str, Any]) -> None:
    """Prints one object, with the version of its form first.

    Raises:
        OutputError: standard output is closed or cannot be written.
    """
    if sys.stdout is None:
        raise OutputError("standard output is closed", hint="--json prints there: send it to a file or /dev/null")
    text = json.dumps({"schema": SCHEMA, **value}, indent=2)
    with writing():
        print(text.replace("\x7f", "\\u007f"), flush=True)  # the one control character that JSON leaves as it is


def print_line(text: str) -> None:
    """Prints text on standard output."""
    with writing():
        print(escaped(text), flush=True)


def print_data(*data: RenderableType) -> None:
    """Prints text. `no_wrap` leaves long lines to the terminal, so that a path in them can be copied in one piece."""
    with writing():
        _print(standard_output(), data)


def tell(*data: RenderableType) -> None:
    """Prints text on standard error, as `print_data` does on standard output."""
    with telling():
        _print(standard_error(), data)


def _print(to: Console, data: Iterable[RenderableType]) -> None:
    for part in data:
        to.print(part, soft_wrap=bool(getattr(part, "no_wrap", False)), crop=False)


def report_failure(failure: Failure, *, as_json: bool) -> None:
    where = "".join(f"{message(part)}: " for part in (failure.file, failure.tensor) if part)
    tell(line(("error: ", "bold red"), where + failure.message, no_wrap=True, keep="\n"))
    if failure.hint:
        tell(line(("hint: ", "bold"), failure.hint, no_wrap=True, keep="\n"))
    if as_json:
        print_json({"error": {name: value for name, value in vars(failure).items() if value is not None}})


def report_traceback() -> None:
    """Prints the traceback of the exception that is being handled."""
    text = "".join(traceback.format_exc())
    tell(line(text[-_TRACEBACK:], no_wrap=True, keep="\n"))


class _ConsoleHandler(logging.Handler):
    """Log records as lines on a console, above a progress bar if there is one.

    What was said already is not said again, and many of one kind are only counted.
    """

    def __init__(self, to: Console, level: int):
        super().__init__(level)
        self._console = to
        self._counts = Counter[tuple[str, int]]()
        self._first: dict[tuple[str, int], logging.LogRecord] = {}
        self._said = set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        words = _as_written(record)
        if words in self._said:
            return
        kind = (record.pathname, record.lineno)
        self._counts[kind] += 1
        if self._counts[kind] == 1:
            self._first[kind] = record
        if self._counts[kind] <= _MOST_OF_A_KIND:
            self._said.add(words)
            self._print(record, words)

    def tell_counts(self) -> None:
        """Says how many records of each kind were not printed."""
        for kind, count in self._counts.items():
            if count > _MOST_OF_A_KIND:
                first = self._first[kind]
                self._print(first, f"{count - _MOST_OF_A_KIND:,} more like this one: {_as_written(first)}")
        self._counts.clear()

    def _print(self, record: logging.LogRecord, words: str) -> None:
        style = "bold yellow" if record.levelno >= logging.WARNING else "dim"
        label = "note" if record.levelno < logging.WARNING else record.levelname.lower()
        with telling():
            self._console.print(line((f"{label}: ", style), message(words), keep="\n"), soft_wrap=True)


def _as_written(record: logging.LogRecord) -> str:
    """A message with options spelled for the command line, as `wording.log_of` keeps it."""
    return getattr(record, AS_WRITTEN, None) or record.getMessage()


@contextmanager
def logging_to(messages: Messages, to: Console | None = None) -> Iterator[None]:
    """Shows the library's log on standard error, and not where it was shown before.

    Args:
        messages: Warnings are shown; with `verbose` also notes, with `quiet` only errors.
        to: The console that shows them; None for a new one. A progress bar and the log need the same one.
    """
    level = logging.ERROR if messages.quiet else logging.INFO if messages.verbose else logging.WARNING
    logger = logging.getLogger("gguf_forge")
    handler, before = _ConsoleHandler(to or standard_error(), level), (logger.handlers, logger.level, logger.propagate)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.handlers, number, logger.propagate = before
        logger.setLevel(number)
        handler.tell_counts()
