"""A task of a plan.

The layout of every file is known before the task runs, so a task makes its bytes without the other tasks. It may be run
twice, even at the same time, because the bytes are always the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from gguf_forge.distributed.job import Job, PieceFile, digest_of, is_sound, open_job, planned_again, record_text
from gguf_forge.distributed.job_plan import check_samples
from gguf_forge.engine.pieces import shard_of
from gguf_forge.option import parse_memory
from gguf_forge.planning.file_plan import FilePlan, check_kernels, write_files
from gguf_forge.run_settings import Observer, RunSettings
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.held_folder import HeldFolder, held
from gguf_forge.storage.local.output_errors import output_errors
from gguf_forge.storage.local.own_folder import own_folder
from gguf_forge.storage.local.publish import check_room, published
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.wording import log_of

log = log_of(__name__)


@dataclass(frozen=True)
class TaskResult:
    """A task that is done.

    Attributes:
        task: Its number.
        parts: The files that it made.
        size: Their bytes.
        seconds: How long it took.
        was_done: The task had been done before, and was only checked.
        is_finished: The plan was finished before. `parts` are then the files of the plan that hold the task's bytes.
    """

    task: int
    parts: tuple[Path, ...]
    size: int
    seconds: float
    was_done: bool
    is_finished: bool = False


def work(
    plan_file: str | PathLike[str],
    task: int,
    *,
    threads: int | None = None,
    backend: str | None = None,
    max_memory: int | str | None = None,
    observer: Observer | None = None,
) -> TaskResult:
    """Does one task of a plan. It may be run again, even at the same time. A task that is done is only checked.

    Args:
        plan_file: What `plan_work` wrote.
        task: Its number, from 0.
        threads, backend, max_memory, observer: How it is run; see `RunSettings`.

    Raises:
        UsageError: there is no such task.
        InputError: the plan is damaged or of another version; the source is not there or not the same any more.
        OutputError: the parts cannot be written.

    Example:
        >>> work("plan.json", 3).was_done  # doctest: +SKIP
        False
    """
    run = RunSettings(threads=threads, backend=backend, max_memory=parse_memory(max_memory), observer=observer)
    return do_task(plan_file, task, run)


def do_task(plan_file: str | PathLike[str], task: int, run: RunSettings) -> TaskResult:
    """Does one task of a plan, as `work` does. A task neither replaces nor resumes files, whatever `run` says."""
    begun = time.perf_counter()
    job = open_job(plan_file)
    parts, finished = job.parts(task), job.finished()
    recorded = job.recorded(task, finished) or {}
    was_done = bool(recorded) and all(is_sound(*item) for item in recorded.items())
    is_finished = bool(recorded) and not was_done and _are_in_outputs(job, recorded)
    if not (was_done or is_finished):
        if finished:
            log.warning("%s: was finished, but its files are not as they were then: the task is done again", job.file)
        _make_parts(job, task, replace(run, overwrite=False, resume=False))
    size = sum(part.size for part in parts)
    paths = (job.outputs[part.piece.output] if is_finished else part.path for part in parts)
    return TaskResult(
        task, tuple(paths), size, time.perf_counter() - begun, was_done or is_finished, is_finished=is_finished
    )


def _are_in_outputs(job: Job, recorded: Mapping[PieceFile, str]) -> bool:
    return all(job.is_in_output(part, digest) for part, digest in recorded.items())


def _make_parts(job: Job, task: int, run: RunSettings) -> None:
    plan = job.plan
    with held(job.outputs[0].parent) as outputs:
        with planned_again(job) as found:
            check_kernels(found.files, run)
            with _own_names(job, task, outputs) as (own, names):
                files = list(_pieces(found.files, names))
                check_samples(plan, found.inputs, (read for file in files for read in file.read_from))
                observer = _TaskObserver(task, run.observer or Observer())
                write_files(files, replace(run, observer=observer), {own.path: own})
                _write_record(own, names, job.record(task).name)
        finished = job.finished()
        # Another run of this task may have let `finish` complete the plan meanwhile. Then the new parts are not needed.
        if finished and _are_in_outputs(job, job.recorded(task, finished) or {}):
            job.remove_parts(outputs)


class _TaskObserver(Observer):
    """Shows the number of the task to the observer, because the names of parts mean nothing to a user."""

    def __init__(self, task: int, observer: Observer):
        self._task = task
        self._observer = observer

    def begin(self, files: Sequence[FilePlan]) -> None:
        self._observer.begin_other(f"task {self._task}", sum(file.bytes_to_write for file in files))

    def advance(self, n_bytes: int) -> None:
        self._observer.advance(n_bytes)

    def resumed(self, n_bytes: int) -> None:
        self._observer.resumed(n_bytes)


@contextmanager
def _own_names(job: Job, task: int, outputs: HeldFolder) -> Iterator[tuple[HeldFolder, Mapping[PieceFile, Path]]]:
    """A folder that only this run uses, and the paths in it for the parts of a task. If the run succeeds, they and
    their record get their final names, the record last. Another run of the same task at the same time makes the same
    bytes."""
    parts = job.parts(task)
    with ExitStack() as folders:
        with output_errors(job.folder):
            with suppress(FileExistsError):
                disk.make_folder(outputs / job.folder.name)
            folder = folders.enter_context(outputs.subfolder(job.folder.name))
            own = folders.enter_context(own_folder(folder))
        check_room(own.path, [(part.path, part.size) for part in parts])
        yield own, {part: own.path / part.path.name for part in parts}
        for path in (*(part.path for part in parts), job.record(task)):
            with output_errors(path):
                disk.rename(own / path.name, folder / path.name)
        with output_errors(job.folder):
            folder.sync()


def _pieces(files: Sequence[FilePlan], names: Mapping[PieceFile, Path]) -> Iterator[FilePlan]:
    shards = [(file, shard) for file in files for shard in file.shards]
    for part, path in names.items():
        file, shard = shards[part.piece.output]
        yield replace(file, shards=(shard_of(part.piece, shard, path),))


def _write_record(folder: HeldFolder, names: Mapping[PieceFile, Path], record: str) -> None:
    digests = {}
    for part, name in names.items():
        with SourceFile(name) as file:
            digests[part] = digest_of(file, 0, file.size)
    text = record_text(digests).encode()
    with published(folder.path / record, len(text), overwrite=False, folder=folder) as out:
        out.write_at(0, memoryview(text))
