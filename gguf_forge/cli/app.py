"""The program: its commands, its exit codes, and how each kind of error is reported."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module
from types import FrameType
from typing import Annotated

import typer

from gguf_forge.cli.help import LIKENESS, Group
from gguf_forge.cli.hints import for_command, for_mistake
from gguf_forge.cli.options import Messages
from gguf_forge.cli.streams import (
    Failure,
    ReaderGone,
    discard_output,
    flush,
    logging_to,
    print_line,
    report_failure,
    report_traceback,
    take_any_text,
)
from gguf_forge.errors import ForgeError, OutputError, UsageError
from gguf_forge.foreign_text import message, natural
from gguf_forge.storage.memory import memory_bound

# The commands, each with a module of its name, in the order of the help.
COMMANDS = (
    *("convert", "quantize", "dequantize"),
    *("plan", "types", "inspect", "compare", "report", "imatrix"),
    "verify",
    *("edit", "split", "merge"),
    "job",
    *("info", "bench", "demo"),
)
_MAKING = ("convert", "quantize", "dequantize", "edit", "split", "merge", "job", "work", "finish", "demo")
_VERSION = ("--version", "-V")


def program(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """The program with some of its commands. Each takes time to describe to typer, so a run has only its own one."""
    app = typer.Typer(
        name="gguf-forge",
        cls=Group,
        help="Hugging Face checkpoints to quantized GGUF, in one pass: no PyTorch, no 16-bit file in between, "
        "and the same bytes that llama.cpp's own tools make.",
        epilog="Try it: `gguf-forge demo`. Options of a command: `gguf-forge convert --help`.",
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    app.callback()(_program)
    for command in commands:
        import_module(f"gguf_forge.cli.{command}").register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print_line(f"gguf-forge {version('gguf-forge')}")
        raise typer.Exit


def _program(
    version: Annotated[
        bool, typer.Option(*_VERSION, callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


INTERNAL = "InternalError"


class StopSignal(BaseException):
    """A signal asked the program to end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and gives its exit code.

    Args:
        arguments: The arguments without the program's name; None means the arguments of this process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    take_any_text()
    as_json, verbose = "--json" in given, "--verbose" in given or "-v" in given
    try:
        with (
            _signals_raise(),
            memory_bound(None),
            warnings.catch_warnings(),
            logging_to(Messages(quiet="-q" in given or "--quiet" in given, verbose=verbose)),
        ):
            # Weights that are no numbers are told by messages of their own, which name the tensor.
            warnings.simplefilter("ignore", RuntimeWarning)
            return _run(given)
    except ReaderGone:
        discard_output()
        return 128 + signal.SIGPIPE
    except StopSignal as stopped:
        failure = Failure(128 + stopped.number, signal.Signals(stopped.number).name, _stopped_words(given))
    except Exception as error:
        failure = _failure_of(error, given)
        if isinstance(error, ForgeError) and failure.hint:
            hint = for_command(failure.hint, given, typer.main.get_command(program()))
            failure = replace(failure, hint=hint)
        if verbose and failure.kind == INTERNAL:
            report_traceback()
    try:
        report_failure(failure, as_json=as_json)
    except (ReaderGone, OutputError):  # nobody can be told
        discard_output()
    return failure.code


def _stopped_words(given: Sequence[str]) -> str:
    """What a command that a signal ended says of its files, if it makes files of weights."""
    if not given or given[0] not in _MAKING:
        return "stopped"
    return "stopped; " + (
        "run the same command again to continue" if "--resume" in given else "no unfinished file is left behind"
    )


def _failure_of(error: Exception, arguments: Sequence[str]) -> Failure:
    """How an error of a command line is reported."""
    if isinstance(error, ForgeError):
        return Failure.of(error)
    said = message(str(error).strip())
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "gguf-forge"
        near = getattr(error, "possibilities", None)
        if near:
            error.possibilities = get_close_matches(error.option_name, near, cutoff=LIKENESS)  # type: ignore[attr-defined]
        said = message(" ".join(error.format_message().splitlines()))
        advice = for_mistake(said, arguments, typer.main.get_command(program()))
        return Failure(2, UsageError.__name__, said, hint=advice or f"see {command} --help")
    if isinstance(error, MemoryError):
        hint = "close other programs, or give less with --max-memory and --threads if the command has them"
        return Failure(1, MemoryError.__name__, "the system gave no more memory", hint=hint)
    if isinstance(error, ImportError):
        last = message(str(error).strip().rpartition("\n")[2])
        hint = "install gguf-forge again, or allow more memory if it is limited"
        return Failure(1, ImportError.__name__, f"a part of the program cannot be loaded: {last}", hint=hint)
    if isinstance(error, RuntimeError) and "start new thread" in said:
        hint = "give a smaller number with --threads, or allow more memory or processes if they are limited"
        return Failure(UsageError.exit_code, UsageError.__name__, "the system starts no more threads", hint=hint)
    hint = "please report it, with what the same command prints with --verbose"
    return Failure(1, INTERNAL, f"this is a bug in gguf-forge: {type(error).__name__}: {said}", hint=hint)


def _run(arguments: list[str]) -> int:
    _check_completion()
    if not arguments or arguments[0] == "help":
        arguments = [*arguments[1:], "--help"]
    first = arguments[0]
    named = () if first in _VERSION else (first,) if first in COMMANDS else COMMANDS
    code = program(named)(arguments, prog_name="gguf-forge", standalone_mode=False)
    flush()
    return code or 0


def _check_completion() -> None:
    """Raises UsageError if the program is asked to complete a line and the variables are not those of a shell."""
    if os.environ.get("_GGUF_FORGE_COMPLETE") == "complete_bash":
        number = natural(os.environ.get("COMP_CWORD", ""))
        if number is None or "COMP_WORDS" not in os.environ:
            raise UsageError(
                "_GGUF_FORGE_COMPLETE is for the completion of a shell, which also sets COMP_WORDS and COMP_CWORD",
                hint="unset it",
            )


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Signals that end a process raise `StopSignal` instead, so that unfinished files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread set signal handlers
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for heeded_once in heeded:
            signal.signal(heeded_once, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
        raise StopSignal(number)

    ending = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    # A signal that is already ignored stays ignored: `nohup` and background jobs of scripts rely on this.
    heeded = [number for number in ending if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
