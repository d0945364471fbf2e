"""How work is run (`RunSettings`), and who is told about its progress (`Observer`).

None of it changes a byte of a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from gguf_forge.errors import UsageError
from gguf_forge.option import IN_1024, MESSAGES, OUTPUT, RUNNING, Option, parse_memory
from gguf_forge.storage.profile import Profile

if TYPE_CHECKING:
    from gguf_forge.planning.file_plan import FilePlan


def _parse_mebibytes(number: int | None) -> int | None:
    return None if number is None else number << 20


def _parse_profile(is_wanted: bool) -> Profile | None:
    return Profile() if is_wanted else None


class Observer:
    """Is told about the progress of a run. The methods here do nothing; a progress bar overrides them."""

    def complete(self, files: Sequence[FilePlan]) -> None:
        """These files are complete from an earlier run and stay as they are. `begin` is told the others, if any."""

    def begin(self, files: Sequence[FilePlan]) -> None:
        """These files are about to be written, all in one go."""

    def advance(self, n_bytes: int) -> None:
        """`n_bytes` more bytes of them have been written."""

    def resumed(self, n_bytes: int) -> None:
        """`n_bytes` of them are there from an earlier run. This is told before the first byte is written."""
        self.advance(n_bytes)

    def begin_other(self, what: str, n_bytes: int) -> None:
        """Another kind of work begins that goes through `n_bytes` bytes, such as checking files."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How work is run. None of it changes a byte of a file.

    Attributes:
        threads: How many compute at the same time; None for the processors that this process may use.
        backend: Which kernels; None for the fastest of this machine.
        max_memory: Bytes that the process may hold, everything counted. None for 1 GiB, or for 256 MiB more than the
            process holds when the work begins, if that is more.
        buffer: Bytes for the rows that are being converted, in all threads together. They count towards `max_memory`;
            None for what it leaves.
        overwrite: Replace existing files.
        resume: Continue an interrupted run, and keep progress if interrupted again. Complete files are not made
            again, unless `overwrite` is set.
        observer: Is told about the progress.
        profile: Records how each thread spends its time.

    Raises:
        UsageError: the number of threads is not positive.
    """

    threads: Annotated[
        int | None,
        Option(
            "-j --threads",
            "How many threads. [default: the processors this process may use]",
            RUNNING,
            metavar="N",
            least=1,
            envvar="GGUF_FORGE_THREADS",
        ),
    ] = None
    max_memory: Annotated[
        int | None,
        Option(
            "--max-memory",
            f"The most memory that the process may take in all, whatever the size of the model. {IN_1024} "
            "[default: 1G]",
            RUNNING,
            metavar="N(K|M|G)",
            parse=parse_memory,
        ),
    ] = None
    buffer: Annotated[
        int | None,
        Option(
            "--max-buffer-size",
            "How many MiB the rows that are being converted may take, as a part of --max-memory. A MiB is 1024 * 1024 "
            "bytes. [default: what --max-memory leaves]",
            RUNNING,
            metavar="MiB",
            least=1,
            typed=int,
            parse=_parse_mebibytes,
        ),
    ] = None
    backend: Annotated[
        str | None,
        Option(
            "--backend",
            "Which kernels, of those that `gguf-forge info` lists. [default: GGUF_FORGE_BACKEND, or the fastest]",
            RUNNING,
            metavar="NAME",
            values="backends",
        ),
    ] = None
    overwrite: Annotated[bool, Option("--overwrite", "Replace the output if it exists.", OUTPUT)] = False
    resume: Annotated[
        bool,
        Option(
            "--resume",
            "Continue an interrupted run, and keep progress if interrupted again. Complete outputs are not made again.",
            OUTPUT,
        ),
    ] = False
    observer: Observer | None = None
    profile: Annotated[
        Profile | None,
        Option(
            "--profile",
            "Show where the time went: the seconds of each phase, by thread, and how many of them a processor worked.",
            MESSAGES,
            typed=bool,
            parse=_parse_profile,
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads must be at least 1, not {self.threads}")
