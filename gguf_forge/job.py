"""A plan and the files around it: where its tasks put their parts, and what they recorded of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from os import PathLike
from pathlib import Path

from gguf_forge.engine.pieces import Piece
from gguf_forge.errors import InputError
from gguf_forge.source import SourceFile
from gguf_forge.work_plan import WorkPlan, read_work_plan

_CHUNK = 4 << 20
_RECORD_LINE = re.compile("([0-9a-f]{64})  (.+)")  # as sha256sum writes it, and checks it
_MAX_RECORD = 1 << 24


@dataclass(frozen=True)
class Part:
    """A piece, and its file."""

    piece: Piece
    path: Path

    @property
    def size(self) -> int:
        return self.piece.stop - self.piece.start


@dataclass(frozen=True)
class Job:
    """A plan, read from `file`."""

    plan: WorkPlan
    file: Path

    @property
    def here(self) -> Path:
        """Where relative paths begin."""
        return self.file.parent / self.plan.folder

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
        """Where the parts lie: beside the outputs, so that they can be renamed."""
        return self.outputs[0].parent / f"gguf-forge-{self.plan.id}.parts"

    @property
    def old_folder(self) -> Path:
        """What the folder of the parts is called when all outputs have their names."""
        return self.folder.with_name(f"{self.folder.name}.finished")

    def parts(self, task: int) -> tuple[Part, ...]:
        """What a task makes; UsageError if there is no such task."""
        pieces = self.plan.pieces(task)
        return tuple(Part(piece, self.folder / f"task-{task}-{piece.output}.part") for piece in pieces)

    @cached_property
    def parts_of_outputs(self) -> tuple[tuple[Part, ...], ...]:
        """What each output is made of, in order."""
        found: list[list[Part]] = [[] for _ in self.outputs]
        for part in sorted((part for task in range(self.n_tasks) for part in self.parts(task)), key=lambda p: p.piece):
            found[part.piece.output].append(part)
        return tuple(map(tuple, found))

    def record(self, task: int) -> Path:
        """The digests of what a task made, written when all of it is there."""
        return self.folder / f"task-{task}.sha256"

    def recorded(self, task: int) -> Mapping[Part, str] | None:
        """The parts of a task with their digests; None if it is not done.

        Raises:
            InputError: the record cannot be read.
        """
        parts = {part.path.name: part for part in self.parts(task)}
        try:
            with SourceFile(self.record(task)) as file:
                text = file.read(0, min(file.size, _MAX_RECORD)).tobytes().decode("utf-8", "replace")
        except InputError:
            if self.record(task).exists():
                raise
            return None
        digests = {line[2]: line[1] for line in map(_RECORD_LINE.fullmatch, text.splitlines()) if line}
        if digests.keys() != parts.keys() or not all(part.path.exists() for part in parts.values()):
            return None
        return {parts[name]: digest for name, digest in digests.items()}


def open_job(plan_file: str | PathLike[str]) -> Job:
    """Reads a plan.

    Raises:
        InputError: it is no plan, damaged, of another version, or does not lie where it was made.
    """
    file = Path(plan_file)
    job = Job(read_work_plan(file), file)
    if not job.outputs[0].parent.is_dir():
        raise InputError(
            "the plan's files go to a folder that is not there",
            file=job.outputs[0].parent,
            hint="leave the plan where it was made, on a disk that all machines see in the same way",
        )
    return job


def is_sound(part: Part, digest: str, progress: Callable[[int], None] = lambda n_bytes: None) -> bool:
    """Has the file of a part this digest, and the size that it should have?"""
    with SourceFile(part.path) as file:
        return file.size == part.size and digest_of(file, progress) == digest


def digest_of(file: SourceFile, progress: Callable[[int], None] = lambda n_bytes: None) -> str:
    """The SHA-256 of a whole file; `progress` is told the bytes as they are read."""
    found = sha256()
    for start in range(0, file.size, _CHUNK):
        data = file.read(start, min(_CHUNK, file.size - start))
        found.update(data.data)
        progress(data.size)
    return found.hexdigest()
