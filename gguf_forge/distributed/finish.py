"""The end of a conversion on several machines: what the tasks made is checked, put together and gets its names.

It may be stopped at any moment and run again. A part is identified by its digest, whether its bytes are still in a file
of their own or already in the output. So a run needs no record of how far an earlier run came.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from errno import EMLINK, EPERM
from os import PathLike
from pathlib import Path
from threading import Event, Lock

import numpy as np

from gguf_forge.distributed.job import Job, PieceFile, is_sound, open_job, planned_again
from gguf_forge.engine.forge import default_threads
from gguf_forge.engine.threads import Progress
from gguf_forge.errors import InputError, RefusedError
from gguf_forge.run_settings import Observer
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.disk import Name
from gguf_forge.storage.local.held_folder import HeldFolder, held
from gguf_forge.storage.local.locks import is_at, locked_file
from gguf_forge.storage.local.output import refuse_existing
from gguf_forge.storage.local.output_errors import output_errors
from gguf_forge.storage.local.publish import check_output, check_room, published
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.storage.paths import is_file, is_same, is_there
from gguf_forge.tensors.expression import contiguous_runs
from gguf_forge.wording import log_of

log = log_of(__name__)


@dataclass(frozen=True)
class FinishResult:
    """The files of a plan.

    Attributes:
        paths: The files.
        sizes: Their bytes.
        seconds: How long it took.
        was_finished: The files existed already, and were only checked.
    """

    paths: tuple[Path, ...]
    sizes: tuple[int, ...]
    seconds: float
    was_finished: bool = False


def finish(
    plan_file: str | PathLike[str],
    *,
    overwrite: bool = False,
    threads: int | None = None,
    observer: Observer | None = None,
) -> FinishResult:
    """Puts together what the tasks of a plan made and gives it the final names; then the parts are removed.

    Every part is checked against the digest that its task recorded. A file that is one part is only renamed. A file of
    several parts is copied together, which needs its size on the disk once more. The first part of a split gets its
    name last. If it is stopped, it can be run again. When all is finished, it only checks the files.

    Args:
        plan_file: What `plan_work` wrote.
        overwrite: Replace existing files.
        threads: How many threads read and check; defaults to the processors this process may use.
        observer: Is told about the progress.

    Raises:
        InputError: the plan is damaged or of another version, or says other outputs than its request comes to; the
            source is not there; tasks are not done, or their parts are damaged: it says which.
        RefusedError: an output exists; another process is doing the same.
        OutputError: an output cannot be written.

    Example:
        >>> finish("plan.json").paths  # doctest: +SKIP
        (PosixPath('Qwen3-235B-A22B-Q4_K_M.gguf'),)
    """
    begun = time.perf_counter()
    job = open_job(plan_file)
    with held(job.file.parent) as beside_plan, held(job.outputs[0].parent) as outputs, _alone(job, outputs):
        is_new = _finish(
            job, _Folders(beside_plan, outputs), overwrite, threads or default_threads(), observer or Observer()
        )
    sizes = tuple(output.size for output in job.plan.outputs)
    return FinishResult(job.outputs, sizes, time.perf_counter() - begun, was_finished=not is_new)


@dataclass(frozen=True)
class _Folders:
    """The folders that `finish` writes to, held open."""

    plan: HeldFolder
    outputs: HeldFolder


@contextmanager
def _alone(job: Job, outputs: HeldFolder) -> Iterator[None]:
    """Locks the plan with `flock`, so that no other process finishes it at the same time. Without a folder of parts
    there is nothing to lock."""
    with ExitStack() as opened:
        with output_errors(job.lock), suppress(FileNotFoundError):
            parts = opened.enter_context(outputs.subfolder(job.folder.name))
            descriptor = locked_file(parts / job.lock.name)
            if descriptor is None:
                raise RefusedError("another process is finishing this plan", file=job.file, hint="wait for it")
            opened.callback(_release, descriptor, parts / job.lock.name)
        yield


def _release(descriptor: int, lock: Name) -> None:
    with suppress(OSError):
        if is_at(descriptor, lock):
            disk.unlink(lock)
    with suppress(OSError):
        disk.close(descriptor)


def _finish(job: Job, folders: _Folders, overwrite: bool, threads: int, watcher: Observer) -> bool:
    """Finishes the plan. The result is whether there was anything to do but removing parts."""
    finished = job.finished()
    recorded = [job.recorded(task, finished) for task in range(job.n_tasks)]
    undone = [task for task, found in enumerate(recorded) if found is None]
    digests = {part: digest for found in recorded for part, digest in (found or {}).items()}
    if undone:
        lost = job.tasks_of(part for part in digests if not is_there(part.path))
        _check_tasks(job, "not done", sorted({*undone, *lost}))
    checker = _Checker(job, digests, threads, watcher)
    there = checker.outputs_there()
    todo = [output for output in range(len(job.outputs)) if output not in there]
    if todo:
        _make_outputs(job, todo, checker, folders.outputs, overwrite=overwrite)
    with output_errors(job.outputs[0]):
        folders.outputs.sync()  # an earlier run may have been killed before it synced the folder
    if not finished:
        _write_down(job, digests, folders.plan)
    job.remove_parts(folders.outputs)
    return bool(todo)


def _make_outputs(job: Job, todo: Sequence[int], checker: _Checker, outputs: HeldFolder, *, overwrite: bool) -> None:
    parts = {output: job.parts_of_outputs[output] for output in todo}
    gone = [part for output in todo for part in parts[output] if not is_there(part.path)]
    _check_tasks(job, "not done", job.tasks_of(gone))
    with planned_again(job) as found:
        headers = [shard.layout.header for file in found.files for shard in file.shards]
        inputs = [path for file in found.files for path in file.inputs]
    firsts = [parts[output][0] for output in todo]
    strange = [part for part in firsts if not _begins_with(part, headers[part.piece.output])]
    _check_tasks(job, "damaged", job.tasks_of(strange))
    inputs += [job.here / file.path for file in job.plan.inputs]
    for output in todo:
        check_output(job.outputs[output], 0, inputs, overwrite=overwrite, folder=outputs)
    with output_errors(job.folder):
        folder = outputs.subfolder(job.folder.name)
    with folder:
        _put_together(job, todo, checker, folder, outputs, overwrite=overwrite)


def _put_together(
    job: Job, todo: Sequence[int], checker: _Checker, folder: HeldFolder, outputs: HeldFolder, *, overwrite: bool
) -> None:
    """Makes outputs of the parts in a folder."""
    parts = {output: job.parts_of_outputs[output] for output in todo}
    joined = [output for output in todo if len(parts[output]) > 1]
    for output in joined:  # a stopped run may have left this file, and its room on the disk is needed
        with output_errors(job.whole(output)), suppress(FileNotFoundError):
            disk.unlink(folder / job.whole(output).name)
    check_room(job.folder, [(job.whole(output), job.plan.outputs[output].size) for output in joined])
    sizes = {output: job.plan.outputs[output].size for output in todo}
    checker.watcher.begin_other("checking and joining", sum(sizes.values()) + sum(sizes[output] for output in joined))
    checker.check([part for output in todo for part in parts[output]])
    for output in joined:
        _join(parts[output], job.whole(output), folder, checker.watcher)
    for output in reversed(todo):
        _take_name(folder / job.whole(output).name, job.outputs[output], outputs, overwrite=overwrite)


def _begins_with(part: PieceFile, header: bytes) -> bool:
    """Whether the first part of an output begins with the header that planning gives."""
    with SourceFile(part.path) as file:
        return file.read(0, min(file.size, len(header))).tobytes() == header


def _write_down(job: Job, digests: Mapping[PieceFile, str], folder: HeldFolder) -> None:
    """Records that the plan is finished, for tasks and for `finish` if they are run again."""
    if not os.access(job.file.parent, os.W_OK | os.X_OK):
        log.warning("%s: the folder is not writable, so nothing will tell that the plan is finished", job.file.parent)
        return
    text = job.finished_text(digests).encode()
    with published(job.finished_file, len(text), overwrite=True, folder=folder) as out:
        out.write_at(0, memoryview(text))


def _check_tasks(job: Job, what: str, tasks: Sequence[int]) -> None:
    """Raises InputError if `tasks` has any: they are named, with `what` is wrong with them."""
    if not tasks:
        return
    runs = contiguous_runs(np.asarray(tasks))
    names = ", ".join(f"{start}-{stop - 1}" if stop - start > 1 else f"{start}" for start, stop in runs)
    if len(tasks) == job.n_tasks and all(map(is_there, job.outputs)):
        hint = f"{job.outputs[0]} exists, but nothing tells that it is what the tasks made"
    else:
        hint = f"do each of them with `gguf-forge job work {job.file} --task N`, then finish again"
    are, those = ("is", "task") if len(tasks) == 1 else ("are", "tasks")
    raise InputError(f"{len(tasks)} of {job.n_tasks} tasks {are} {what}: {those} {names}", file=job.file, hint=hint)


@dataclass(frozen=True)
class _Checker:
    """Compares bytes with the digests that tasks recorded, in several threads."""

    job: Job
    digests: Mapping[PieceFile, str]
    threads: int
    watcher: Observer

    def outputs_there(self) -> set[int]:
        """The outputs that exist under their names with all their bytes, from an earlier run."""
        likely = [output for output in range(len(self.job.outputs)) if self._may_be_there(output)]
        if not likely:
            return set()
        parts = [self.job.parts_of_outputs[output] for output in likely]
        self.watcher.begin_other("checking what is there", sum(part.size for of in parts for part in of))
        # A file that is something else mostly differs in its first part. Others are read only if that is right.
        wrong = self._unsound([of[0] for of in parts], self.job.is_in_output)
        wrong |= self._unsound([p for of in parts if of[0] not in wrong for p in of[1:]], self.job.is_in_output)
        return set(likely) - {part.piece.output for part in wrong}

    def _may_be_there(self, output: int) -> bool:
        path = self.job.outputs[output]
        return is_file(path) and path.stat().st_size == self.job.plan.outputs[output].size

    def check(self, parts: Sequence[PieceFile]) -> None:
        """Raises InputError if the bytes of a part are not those that its task wrote."""
        _check_tasks(self.job, "damaged", self.job.tasks_of(self._unsound(parts, is_sound)))

    def _unsound(
        self, parts: Sequence[PieceFile], is_right: Callable[[PieceFile, str, Progress], bool]
    ) -> set[PieceFile]:
        lock, stopped = Lock(), Event()

        def progress(n_bytes: int) -> None:
            if stopped.is_set():
                raise CancelledError
            with lock:
                self.watcher.advance(n_bytes)

        with ThreadPoolExecutor(self.threads) as pool:
            checks = {part: pool.submit(is_right, part, self.digests[part], progress) for part in parts}
            try:
                return {part for part, check in checks.items() if not check.result()}
            finally:
                stopped.set()
                pool.shutdown(cancel_futures=True)


def _join(parts: Sequence[PieceFile], path: Path, folder: HeldFolder, observer: Observer) -> None:
    """Makes a file by copying its parts in order."""
    with published(path, parts[-1].piece.stop, overwrite=True, folder=folder) as out:
        for part in parts:
            with SourceFile(part.path) as source:
                out.copy_from(source, 0, part.piece.start, part.size)
                source.check_unchanged()
            observer.advance(part.size)


def _take_name(made: Name, path: Path, outputs: HeldFolder, *, overwrite: bool) -> None:
    """Gives a complete file its final name as a hard link. The old name stays, so that `finish` can be run again."""
    if is_same(made.path, path):
        return
    final = outputs / path.name
    second = replace(made, path=made.path.with_name(f"{made.name}.named"))
    with output_errors(path):
        with suppress(FileNotFoundError):
            disk.unlink(second)
        try:
            disk.link(made, second if overwrite else final)
        except OSError as error:
            if not overwrite:
                refuse_existing(outputs, path, "appeared while it was being made")
            if error.errno not in disk.UNSUPPORTED | {EPERM, EMLINK}:
                raise
            disk.rename(made, final)
        else:
            if overwrite:
                disk.rename(second, final)
