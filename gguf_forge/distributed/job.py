"""A plan and the files around it: where its tasks put their parts, and what they recorded of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from os import PathLike
from pathlib import Path

from gguf_forge.distributed.job_plan import JobPlan, check_same, make_work_plan, read_job_plan
from gguf_forge.engine.pieces import Piece
from gguf_forge.engine.threads import Progress
from gguf_forge.errors import InputError
from gguf_forge.planning.making import RequestPlan, planned
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.held_folder import HeldFolder
from gguf_forge.storage.local.own_folder import remove_all_dead
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.storage.paths import is_folder, is_there, without_detours
from gguf_forge.wording import log_of

log = log_of(__name__)

_SAME_DISK = "the plan must stay where it was made, on a disk that all machines see in the same way"
_CHUNK = 4 << 20
_RECORD_LINE = re.compile("([0-9a-f]{64})  (.+)")  # a line of a record, in the format of sha256sum
_MAX_RECORD = 1 << 25
_OUR_NAMES = re.compile(
    r"task-[0-9]+(-[0-9]+)?\.(part|sha256)(\.named)?|output-[0-9]+(\.named)?|finish\.lock|\.gguf-forge-.*"
)


@dataclass(frozen=True)
class PieceFile:
    """A piece, and its file."""

    piece: Piece
    path: Path

    @property
    def size(self) -> int:
        return self.piece.stop - self.piece.start


@dataclass(frozen=True)
class Job:
    """A plan, read from `file`."""

    plan: JobPlan
    file: Path

    @cached_property
    def here(self) -> Path:
        """The folder that relative paths of the plan begin at."""
        return without_detours(self.file.parent / self.plan.folder)

    @property
    def source(self) -> Path:
        return self.here / self.plan.request.source

    @property
    def n_tasks(self) -> int:
        return len(self.plan.tasks)

    @cached_property
    def outputs(self) -> tuple[Path, ...]:
        """The files to make, all in one folder."""
        return tuple(self.here / output.path for output in self.plan.outputs)

    @cached_property
    def folder(self) -> Path:
        """The folder of the parts. It is next to the outputs, so that parts can be renamed to outputs."""
        return self.outputs[0].parent / f"gguf-forge-{self.plan.id}.parts"

    @property
    def finished_file(self) -> Path:
        """The file with the digests of all parts, next to the plan. It is written when all outputs exist, and kept."""
        return self.file.with_name(f"{self.file.name}.finished")

    def parts(self, task: int) -> tuple[PieceFile, ...]:
        """What a task makes; UsageError if there is no such task."""
        pieces = self.plan.pieces(task)
        return tuple(PieceFile(piece, self.folder / f"task-{task}-{piece.output}.part") for piece in pieces)

    @cached_property
    def parts_of_outputs(self) -> tuple[tuple[PieceFile, ...], ...]:
        """What each output is made of, in order."""
        found: list[list[PieceFile]] = [[] for _ in self.outputs]
        for part in sorted((part for task in range(self.n_tasks) for part in self.parts(task)), key=lambda p: p.piece):
            found[part.piece.output].append(part)
        return tuple(map(tuple, found))

    def whole(self, output: int) -> Path:
        """The path of a complete output before it gets its final name."""
        parts = self.parts_of_outputs[output]
        return parts[0].path if len(parts) == 1 else self.folder / f"output-{output}"

    def tasks_of(self, parts: Iterable[PieceFile]) -> Sequence[int]:
        """The tasks that make some parts, in order."""
        wanted = set(parts)
        return [task for task in range(self.n_tasks) if not wanted.isdisjoint(self.parts(task))]

    @property
    def lock(self) -> Path:
        """The file that `finish` locks."""
        return self.folder / "finish.lock"

    def record(self, task: int) -> Path:
        """The file with the digests of a task's parts. It is written when all its parts are complete."""
        return self.folder / f"task-{task}.sha256"

    def recorded(self, task: int, finished: Mapping[str, str] | None = None) -> Mapping[PieceFile, str] | None:
        """The digests of the parts of a task; None if it is not done. The parts themselves are not read.

        Args:
            task: Its number.
            finished: The result of `finished`, for a finished plan, whose tasks no longer have records of their own.

        Raises:
            InputError: the record cannot be read.
        """
        parts = {part.path.name: part for part in self.parts(task)}
        own = _read_record(self.record(task))
        for digests in (own[1] if own else None, finished or None):
            if digests is not None and digests.keys() >= parts.keys():
                return {part: digests[name] for name, part in parts.items()}
        return None

    def finished(self) -> Mapping[str, str]:
        """Name of a part -> its digest, for all parts of a finished plan; empty if the plan is not finished.

        Raises:
            InputError: the record cannot be read.
        """
        first, digests = _read_record(self.finished_file) or ("", {})
        return digests if first == self._first_line else {}

    @property
    def _first_line(self) -> str:
        return f"# gguf-forge finished the plan {self.plan.id}, of these parts:"

    def finished_text(self, digests: Mapping[PieceFile, str]) -> str:
        """The text of `finished_file`."""
        return f"{self._first_line}\n{record_text(digests)}"

    def is_in_output(self, part: PieceFile, digest: str, progress: Progress = lambda n_bytes: None) -> bool:
        """Whether the output has the right size, and bytes of this digest at the place of the part."""
        output = part.piece.output
        size = self.plan.outputs[output].size
        return _digest_at(self.outputs[output], size, part.piece.start, part.piece.stop, progress) == digest

    def remove_parts(self, outputs: HeldFolder) -> None:
        """Removes the parts, and unfinished parts of stopped runs. Other files in the folder are kept.

        Args:
            outputs: The folder of the outputs.
        """
        with suppress(OSError):
            with outputs.subfolder(self.folder.name) as parts:
                remove_all_dead(parts)
                ours = [name for name in parts.names() if _OUR_NAMES.fullmatch(name)]
                for name in sorted(ours, key=lambda name: name == self.lock.name):  # the lock file is removed last
                    with suppress(OSError):
                        disk.unlink(parts / name)
            disk.remove_folder(outputs / self.folder.name)
        if outputs.has(self.folder.name):
            log.warning("%s: is left, with what is not of this plan or cannot be removed", self.folder)


def _read_record(path: Path) -> tuple[str, Mapping[str, str]] | None:
    """The first line of a record, and name -> digest; None if there is none."""
    try:
        with SourceFile(path) as file:
            text = file.read(0, min(file.size, _MAX_RECORD)).tobytes().decode("utf-8", "replace")
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    lines = text.splitlines()
    return (lines or [""])[0], {line[2]: line[1] for line in map(_RECORD_LINE.fullmatch, lines) if line}


def record_text(digests: Mapping[PieceFile, str]) -> str:
    return "".join(f"{digest}  {part.path.name}\n" for part, digest in digests.items())


def open_job(plan_file: str | PathLike[str]) -> Job:
    """Reads a plan.

    Raises:
        InputError: it is no plan, damaged, of another version, or does not lie where it was made.
    """
    file = Path(plan_file)
    job = Job(read_job_plan(file), file)
    if not is_folder(job.outputs[0].parent):
        raise InputError(
            "the plan's files go to a folder that is not there",
            file=job.outputs[0].parent,
            hint=f"make that folder again if it was removed; {_SAME_DISK}",
        )
    return job


@contextmanager
def planned_again(job: Job) -> Iterator[RequestPlan]:
    """What the request of a job comes to now, which must be what the plan says.

    A plan may come from a stranger. The paths, sizes and headers of its outputs are trusted only because planning the
    request again gives the same ones.

    Raises:
        InputError: the source is not there; the plan says other inputs, outputs or tasks.
    """
    if not is_there(job.source):
        raise InputError("the source of the plan is not there", file=job.source, hint=_SAME_DISK)
    plan = job.plan
    with planned(plan.request, folder=job.here) as found:
        now = make_work_plan(found, plan.request, plan.folder, job.n_tasks, job.here, with_samples=False)
        check_same(plan, now, job.file)
        yield found


def is_sound(part: PieceFile, digest: str, progress: Progress = lambda n_bytes: None) -> bool:
    """Whether the file of a part has this digest and the right size."""
    return _digest_at(part.path, part.size, 0, part.size, progress) == digest


def _digest_at(path: Path, size: int, start: int, stop: int, progress: Progress) -> str | None:
    """The digest of bytes `start` to `stop` of a file; None if there is none of this size."""
    try:
        file = SourceFile(path)
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    with file:
        return digest_of(file, start, stop, progress) if file.size == size else None


def digest_of(file: SourceFile, start: int, stop: int, progress: Progress = lambda n_bytes: None) -> str:
    """The SHA-256 of bytes `start` to `stop`; `progress` is told the bytes as they are read."""
    found = sha256()
    for at in range(start, stop, _CHUNK):
        data = file.read(at, min(_CHUNK, stop - at))
        found.update(data.data)
        progress(data.size)
    return found.hexdigest()
