"""The exceptions of gguf-forge. Each class is one kind of failure and has the exit code of the command line for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from gguf_forge.foreign_text import escaped, message
from gguf_forge.wording import in_python


class Words(NamedTuple):
    """What an error says, with options as the command line spells them."""

    problem: str
    hint: str | None


class ForgeError(Exception):
    """An error that the user can act on. Its words may quote what a file says, so they are made harmless and bounded.

    They are written with options as the command line spells them. What Python shows (the text of the exception,
    `problem` and `hint`) has keyword arguments instead.

    Attributes:
        exit_code: What the command line ends with. Each class has its own, as the table of errors lists.
        words: The problem and the hint as they were written, for the command line and for other errors.
        file: The file with the problem, as a Path; None where no file is to blame.
        tensor: The tensor with the problem; None where no tensor is.

    Example:
        >>> str(InputError("header is longer than the file", file="a.safetensors", hint="download it again"))
        'a.safetensors: header is longer than the file; download it again'
        >>> str(RefusedError("already exists", file="a.gguf", hint="use --overwrite"))
        'a.gguf: already exists; use overwrite=True'
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        file: str | PathLike[str] | None = None,
        tensor: str | None = None,
        hint: str | None = None,
    ):
        self.words = Words(message(problem), message(hint) if hint else hint)
        self.file = Path(file) if file is not None else None
        self.tensor = tensor
        super().__init__(str(self))

    def __str__(self) -> str:
        return self._where + in_python(self._words)

    @property
    def problem(self) -> str:
        """What is wrong, in one sentence without a final full stop."""
        return in_python(self.words.problem)

    @property
    def hint(self) -> str | None:
        """What to do next; None where there is nothing to do."""
        return in_python(self.words.hint) if self.words.hint else self.words.hint

    @property
    def as_written(self) -> str:
        """The text of the exception with options as the command line spells them: for messages that quote an error."""
        return self._where + self._words

    @property
    def _where(self) -> str:
        return "".join(f"{message(str(part))}: " for part in (self.file, self.tensor) if part)

    @property
    def _words(self) -> str:
        return self.words.problem + (f"; {self.words.hint}" if self.words.hint else "")


class UsageError(ForgeError):
    """An option or argument makes no sense."""

    exit_code = 2


class UnsupportedError(ForgeError):
    """A model or feature that this version does not know."""

    exit_code = 3


class InputError(ForgeError):
    """A file that is broken, incomplete or contradicts itself."""

    exit_code = 4


class OutputError(ForgeError):
    """The output could not be written."""

    exit_code = 5


class RefusedError(ForgeError):
    """A request that is unsafe or would destroy something, or whose result fails a condition that the user set."""

    exit_code = 8


@contextmanager
def naming(tensor: str, *, hint: str | None = None) -> Iterator[None]:
    """Adds `tensor` to errors of the block that name neither a tensor nor a file, and `hint` if they have none."""
    try:
        yield
    except ForgeError as error:
        if error.tensor or error.file:
            raise
        raise type(error)(error.words.problem, tensor=tensor, hint=error.words.hint or hint) from None


def printable(name: str) -> str:
    """`name` as a part of a message: short, so that the message keeps its other words."""
    return escaped(name, 100)


def some_of(names: Sequence[str], most: int = 5) -> str:
    """The first names of a list, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(printable(name) for name in names[:most]) + more
