"""A conversion on several machines that share a disk: planned once, done in tasks, put together at the end.

The layout of every file is known beforehand, so a task makes its bytes without knowing of the others, twice or at the
same time if need be: they come out the same. What tasks make lies beside the outputs, in a folder named for the plan.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from errno import EMLINK, EPERM
from os import PathLike
from pathlib import Path
from threading import Event, Lock

import numpy as np

from gguf_forge.engine import disk
from gguf_forge.engine.forge import default_threads
from gguf_forge.engine.output import output_errors, refuse_existing
from gguf_forge.engine.own_folder import own_folder, remove_all_dead
from gguf_forge.engine.pieces import shard_of
from gguf_forge.engine.publish import check_output, check_room, published
from gguf_forge.errors import InputError
from gguf_forge.expr import contiguous_runs
from gguf_forge.file_plan import FilePlan, Observer, check_kernels, write_files
from gguf_forge.job import Job, Part, digest_of, is_sound, open_job
from gguf_forge.request import Planned, Request, planned
from gguf_forge.source import SourceFile
from gguf_forge.work_plan import WorkPlan, check_same, make_work_plan

_OUR_NAMES = ("task-", "output-", ".gguf-forge-")
_SAME_DISK = "the plan must lie where it was made, on a disk that all machines see in the same way"


@dataclass(frozen=True)
class TaskResult:
    """A task that is done.

    Attributes:
        task: Its number.
        parts: The files that it made.
        size: Their bytes.
        seconds: How long it took.
        was_done: It had been done before, and was only checked.
    """

    task: int
    parts: tuple[Path, ...]
    size: int
    seconds: float
    was_done: bool


@dataclass(frozen=True)
class Finished:
    """Files that were put together, their sizes in bytes, and the seconds it took."""

    paths: tuple[Path, ...]
    sizes: tuple[int, ...]
    seconds: float


def plan_work(
    request: Request, file: str | PathLike[str] = "plan.json", *, tasks: int | None = None, overwrite: bool = False
) -> WorkPlan:
    """Plans a conversion and writes the plan to `file`, for `work` and `finish`. Reads only samples of the weights.

    Args:
        request: What to make. Relative paths begin at the current folder, which must be found on every machine by the
            same way from the folder of the plan.
        file: The plan.
        tasks: How many; None for one for each file or part of a split. Only if there are more of them, files are cut.
        overwrite: Replace an existing plan.

    Raises:
        ForgeError: what was wrong, where, and what to do.

    Example:
        >>> request = Request(source="Qwen3-235B-A22B", types=("Q4_K_M",), split_max_size="20G")
        >>> len(plan_work(request, tasks=4).tasks)  # doctest: +SKIP
        4
    """
    with planned(request) as found:
        return save_work_plan(found, request, Path(file), tasks=tasks, overwrite=overwrite)


def save_work_plan(found: Planned, request: Request, file: Path, *, tasks: int | None, overwrite: bool) -> WorkPlan:
    """Writes the plan of what `request` came to in the current folder; as `plan_work` does."""
    folder = Path(os.path.relpath(Path.cwd().resolve(), file.parent.resolve())).as_posix()
    plan = make_work_plan(found, request, folder, tasks, Path())
    text = plan.as_text().encode()
    check_output(file, len(text), [source.path for source, _ in found.inputs], overwrite=overwrite)
    with published(file, len(text), overwrite=overwrite) as out:
        out.write_at(0, memoryview(text))
    return plan


def work(
    plan_file: str | PathLike[str],
    task: int,
    *,
    threads: int | None = None,
    backend: str | None = None,
    max_memory: int | None = None,
    observer: Observer | None = None,
) -> TaskResult:
    """Does one task of a plan. It may be done again, also at the same time; what is done already is only checked.

    Args:
        plan_file: What `plan_work` wrote.
        task: Its number, from 0.
        threads: Defaults to the processors this process may use.
        backend: Which kernels; the default is the fastest of this machine.
        max_memory: Bytes that the process may hold, everything counted; None as for `convert`.
        observer: Is told how it goes.

    Raises:
        UsageError: there is no such task.
        InputError: the plan is damaged or of another version; the source is not there or not the same any more.
        OutputError: the parts cannot be written.

    Example:
        >>> work("plan.json", 3).was_done  # doctest: +SKIP
        False
    """
    begun = time.perf_counter()
    job = open_job(plan_file)
    parts, recorded = job.parts(task), job.recorded(task)
    was_done = recorded is not None and all(is_sound(*item) for item in recorded.items())
    if not was_done:
        if not job.source.exists():
            raise InputError("the source of the plan is not there", file=job.source, hint=_SAME_DISK)
        plan = job.plan
        with planned(plan.request, job.here) as found:
            check_same(plan, make_work_plan(found, plan.request, plan.folder, job.n_tasks, job.here), job.file)
            check_kernels(found.files, backend=backend)
            with _own_names(job, task) as (names, record):
                files = list(_pieces(found.files, names))
                watcher = _OfTask(task, observer or Observer())
                write_files(files, threads=threads, backend=backend, max_memory=max_memory, observer=watcher)
                _record(names, record)
    size = sum(part.size for part in parts)
    return TaskResult(task, tuple(part.path for part in parts), size, time.perf_counter() - begun, was_done)


class _OfTask(Observer):
    """Says the number of the task, where the names of parts would tell nobody anything."""

    def __init__(self, task: int, observer: Observer):
        self._task = task
        self._observer = observer

    def begin(self, files: Sequence[FilePlan]) -> None:
        self._observer.begin_other(f"task {self._task}", sum(file.bytes_to_write for file in files))

    def advance(self, n_bytes: int) -> None:
        self._observer.advance(n_bytes)


@contextmanager
def _own_names(job: Job, task: int) -> Iterator[tuple[Mapping[Part, Path], Path]]:
    """Names of this run alone for the parts of a task and their record. If all goes well they get their own, the record
    last; what is at the same time done by another run is the same."""
    parts = job.parts(task)
    with ExitStack() as folders:
        with output_errors(job.folder):
            with suppress(FileExistsError):
                disk.make_folder(job.folder)
            own = folders.enter_context(own_folder(job.folder))
        check_room(own, [(part.path, part.size) for part in parts])
        names = {part: own / part.path.name for part in parts}
        record = own / job.record(task).name
        yield names, record
        for made, path in (*((names[part], part.path) for part in parts), (record, job.record(task))):
            with output_errors(path):
                disk.rename(made, path)
        with output_errors(job.folder):
            disk.sync_folder(job.folder)


def _pieces(files: Sequence[FilePlan], names: Mapping[Part, Path]) -> Iterator[FilePlan]:
    shards = [(file, shard) for file in files for shard in file.shards]
    for part, path in names.items():
        file, shard = shards[part.piece.output]
        yield replace(file, shards=(shard_of(part.piece, shard, path),))


def _record(names: Mapping[Part, Path], path: Path) -> None:
    lines = []
    for part, name in names.items():
        with SourceFile(name) as file:
            lines.append(f"{digest_of(file)}  {part.path.name}\n")
    text = "".join(lines).encode()
    with published(path, len(text), overwrite=False) as out:
        out.write_at(0, memoryview(text))


def finish(
    plan_file: str | PathLike[str],
    *,
    overwrite: bool = False,
    threads: int | None = None,
    observer: Observer | None = None,
) -> Finished:
    """Puts together what the tasks of a plan made and gives it the final names; then the parts are removed.

    Every part is checked against the digest that its task recorded. Files of one part only get a name, the others need
    room on the disk once more. The first part of a split gets its name last. Stopped, it can be run again.

    Args:
        plan_file: What `plan_work` wrote.
        overwrite: Replace existing files.
        threads: That read and check; defaults to the processors this process may use.
        observer: Is told how it goes.

    Raises:
        InputError: the plan is damaged or of another version; tasks are not done, or their parts are damaged: it says
            which.
        RefusedError: an output exists.
        OutputError: an output cannot be written.

    Example:
        >>> finish("plan.json").paths  # doctest: +SKIP
        (PosixPath('Qwen3-235B-A22B-Q4_K_M.gguf'),)
    """
    begun = time.perf_counter()
    job, watcher = open_job(plan_file), observer or Observer()
    sizes = tuple(output.size for output in job.plan.outputs)
    named_all = all(path.exists() for path in job.outputs)
    if named_all and job.old_folder.exists() and not job.folder.exists():  # only the removing was left
        _remove(job.old_folder)
        return Finished(job.outputs, sizes, time.perf_counter() - begun)
    recorded = [job.recorded(task) for task in range(job.n_tasks)]
    _check_tasks(job, "not done", [task for task, found in enumerate(recorded) if found is None])
    whole = tuple(
        parts[0].path if len(parts) == 1 else job.folder / f"output-{output}"
        for output, parts in enumerate(job.parts_of_outputs)
    )
    named = [_is_same(made, path) for made, path in zip(whole, job.outputs, strict=True)]  # by a run that was stopped
    copied = [n for n, parts in enumerate(job.parts_of_outputs) if len(parts) > 1 and not named[n]]
    inputs = [job.here / file.path for file in job.plan.inputs]
    for path, is_named in zip(job.outputs, named, strict=True):
        if not is_named:
            check_output(path, 0, inputs, overwrite=overwrite)
    check_room(job.folder, [(whole[output], sizes[output]) for output in copied])
    watcher.begin_other("checking and joining", sum(sizes) + sum(sizes[output] for output in copied))
    _check_parts(job, [found or {} for found in recorded], threads or default_threads(), watcher)
    for output in copied:
        _join(job.parts_of_outputs[output], whole[output], watcher)
    for made, path in reversed([*zip(whole, job.outputs, strict=True)]):
        _take_name(made, path, overwrite=overwrite)
    with output_errors(job.folder):
        disk.sync_folder(job.folder.parent)
        _remove(job.old_folder)
        disk.rename(job.folder, job.old_folder)
        _remove(job.old_folder)
    return Finished(job.outputs, sizes, time.perf_counter() - begun)


def _check_tasks(job: Job, what: str, tasks: Sequence[int]) -> None:
    """Raises InputError if there are any tasks that are not as they should be."""
    if not tasks:
        return
    runs = contiguous_runs(np.asarray(tasks))
    names = ", ".join(f"{start}-{stop - 1}" if stop - start > 1 else f"{start}" for start, stop in runs)
    if len(tasks) == job.n_tasks and all(path.exists() for path in job.outputs):
        hint = f"{job.outputs[0]} exists: perhaps the plan was finished before"
    else:
        hint = f"do each of them with `gguf-forge work {job.file} --task N`, then finish again"
    raise InputError(f"{len(tasks)} of {job.n_tasks} tasks are {what}: {names}", file=job.file, hint=hint)


def _is_same(made: Path, path: Path) -> bool:
    try:
        return path.samefile(made)
    except OSError:
        return False


def _check_parts(job: Job, recorded: Sequence[Mapping[Part, str]], threads: int, observer: Observer) -> None:
    """Raises InputError if the bytes of a part are not those that its task wrote."""
    lock, stopped = Lock(), Event()

    def progress(n_bytes: int) -> None:
        if stopped.is_set():
            raise CancelledError
        with lock:
            observer.advance(n_bytes)

    with ThreadPoolExecutor(threads) as pool:
        checks = {
            pool.submit(is_sound, part, digest, progress): task
            for task, digests in enumerate(recorded)
            for part, digest in digests.items()
        }
        try:
            damaged = sorted({task for check, task in checks.items() if not check.result()})
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
    _check_tasks(job, "damaged", damaged)


def _join(parts: Sequence[Part], path: Path, observer: Observer) -> None:
    """Makes a file of its parts, which are in order."""
    with output_errors(path), suppress(FileNotFoundError):
        disk.unlink(path)
    with published(path, parts[-1].piece.stop, overwrite=True) as out:
        for part in parts:
            with SourceFile(part.path) as source:
                out.copy_from(source, 0, part.piece.start, part.size)
                source.check_unchanged()
            observer.advance(part.size)


def _take_name(made: Path, path: Path, *, overwrite: bool) -> None:
    """Gives a complete file its final name, and leaves it the one it has, so that all this can be done again."""
    if _is_same(made, path):
        return
    second = made.with_name(f"{made.name}.named")
    with output_errors(path):
        with suppress(FileNotFoundError):
            disk.unlink(second)
        try:
            disk.link(made, second if overwrite else path)
        except OSError as error:
            if not overwrite:
                refuse_existing(path, "appeared while it was being made")
            if error.errno not in disk.UNSUPPORTED | {EPERM, EMLINK}:
                raise
            disk.rename(made, path)
        else:
            if overwrite:
                disk.rename(second, path)


def _remove(folder: Path) -> None:
    """The parts, and what stopped runs left of them. What else somebody put there stays."""
    with suppress(OSError):
        remove_all_dead(folder)
        for path in disk.list_folder(folder):
            if path.name.startswith(_OUR_NAMES):
                with suppress(OSError):
                    disk.unlink(path)
        disk.remove_folder(folder)
