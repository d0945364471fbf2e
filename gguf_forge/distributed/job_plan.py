"""plan.json: a conversion written down, so that machines which share a disk can each do a part of it.

It holds the request, samples of the inputs, and every output file with its size and a digest of all that decides its
bytes except the weights, cut into tasks. A machine that does a task plans the request again, and must get the same
files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from gguf_forge.engine.fingerprint import content_digest, program_version
from gguf_forge.engine.pieces import Piece, cut_pieces
from gguf_forge.errors import InputError, OutputError, UsageError
from gguf_forge.planning.making import RequestPlan, planned, without_own
from gguf_forge.planning.model import TensorSource
from gguf_forge.request import Request
from gguf_forge.storage.json_file import read_json_object
from gguf_forge.storage.limits import limit_of
from gguf_forge.storage.local.folder import located
from gguf_forge.storage.local.held_folder import held, made_folder
from gguf_forge.storage.local.publish import check_output, published
from gguf_forge.storage.paths import resolved
from gguf_forge.storage.source import Source

T = TypeVar("T")

FORMAT = 2
# The samples of each tensor, and the bytes of each, spread evenly from its first bytes to its last ones.
_SAMPLES, _SAMPLE_BYTES = 4, 64
# Threads that read samples. They mostly wait for the disk, perhaps over a network.
_SAMPLING_THREADS = 8
_KEY = "gguf_forge_plan"
_MAKE_ANEW = "make the plan again with `gguf-forge job plan`"


@dataclass(frozen=True)
class JobInput:
    """A file that holds tensors, its size in bytes, the digests of what comes before them and of samples of them."""

    path: str
    size: int
    sha256: str
    samples: str


@dataclass(frozen=True)
class JobOutput:
    """A file to make, whole or a part of a split one; `sha256` is of all that decides its bytes but the weights."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class JobPlan:
    """A conversion in tasks.

    Attributes:
        version: Of the program.
        folder: Where relative paths begin, seen from the folder of the plan.
        request: What is asked for.
        inputs: What it is made of.
        outputs: What is made.
        tasks: The pieces of each task; all together are all outputs.
    """

    version: str
    folder: str
    request: Request
    inputs: tuple[JobInput, ...]
    outputs: tuple[JobOutput, ...]
    tasks: tuple[tuple[Piece, ...], ...]

    def __repr__(self) -> str:
        more = f" and {len(self.outputs) - 1} more" if len(self.outputs) > 1 else ""
        return f"<JobPlan {self.outputs[0].path}{more}: {len(self.tasks)} tasks>"

    @property
    def id(self) -> str:
        """Identifies the plan: 16 digits that depend on everything in it except the folder."""
        content = {**self.as_json(), "folder": ""}
        return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def as_text(self) -> str:
        """JSON, with a line for each item of a list."""
        lines = []
        for name, value in self.as_json().items():
            text = json.dumps(value)
            if isinstance(value, list):
                text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
            lines.append(f" {json.dumps(name)}: {text}")
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def as_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {
            _KEY: FORMAT,
            "version": self.version,
            "folder": self.folder,
            "request": self.request.as_json(),
            "inputs": [asdict(file) for file in self.inputs],
            "outputs": [asdict(file) for file in self.outputs],
            "tasks": [[list(piece) for piece in task] for task in self.tasks],
        }

    def pieces(self, task: int) -> tuple[Piece, ...]:
        """What task number `task` makes.

        Raises:
            UsageError: there is no such task.
        """
        if not 0 <= task < len(self.tasks):
            raise UsageError(f"there is no task {task}", hint=f"the tasks of this plan are 0 to {len(self.tasks) - 1}")
        return self.tasks[task]


def plan_work(
    request: Request, out: str | PathLike[str] = "plan.json", *, tasks: int | None = None, overwrite: bool = False
) -> JobPlan:
    """Plans a conversion and writes the plan to `out`, for `work` and `finish`. Reads only samples of the weights.

    Args:
        request: What to make. Its relative paths begin at the current folder. The plan stores where that folder is,
            seen from its own, as `..` for example. So other machines may see both under another path, together.
        out: The plan.
        tasks: How many; None for one for each file or part of a split. Files are cut only if there are more tasks.
        overwrite: Replace an existing plan.

    Raises:
        ForgeError: what was wrong, where, and what to do.

    Example:
        >>> request = Request(source="Qwen3-235B-A22B", types=("Q4_K_M",), split_max_size="20G")
        >>> len(plan_work(request, tasks=4).tasks)  # doctest: +SKIP
        4
    """
    with planned(request) as found:
        return save_work_plan(found, request, Path(out), tasks=tasks, overwrite=overwrite)


def save_work_plan(found: RequestPlan, request: Request, file: Path, *, tasks: int | None, overwrite: bool) -> JobPlan:
    """Writes the plan of what `request` came to in the current folder; as `plan_work` does.

    The folder of the outputs is made if it is missing, so that tasks which begin at the same time find it.
    """
    try:
        folder = Path(os.path.relpath(resolved(Path.cwd()), resolved(file.parent))).as_posix()
    except OSError as error:
        raise OutputError(f"the current folder no longer exists: {error.strerror}", file=file) from error
    plan = make_work_plan(found, request, folder, tasks, Path(), with_samples=True)
    text = plan.as_text().encode()
    read = without_own(path for each in found.files for path in each.inputs)
    inputs = [*(each.source.path for each in found.inputs), *read]
    with made_folder(found.files[0].path.parent), held(file.parent) as here:
        check_output(file, len(text), inputs, overwrite=overwrite, folder=here, content="a plan of tasks")
        with published(file, len(text), overwrite=overwrite, folder=here) as out:
            out.write_at(0, memoryview(text))
    return plan


def make_work_plan(
    found: RequestPlan, request: Request, folder: str, n_tasks: int | None, here: Path, *, with_samples: bool
) -> JobPlan:
    """The plan of a job, made from a planned request.

    Args:
        found: The planned request.
        request: What is asked for.
        folder: Where relative paths begin, as it is written down.
        n_tasks: None for one task for each file or part.
        here: The same folder, as it is reached now.
        with_samples: Take samples of the inputs. Otherwise their digest is "".

    Raises:
        UsageError: a number of tasks that makes no sense.
    """
    with ThreadPoolExecutor(_SAMPLING_THREADS) as pool:
        samples = tuple(pool.map(samples_digest, found.inputs)) if with_samples else ("",) * len(found.inputs)
    shards = [shard for file in found.files for shard in file.shards]
    return JobPlan(
        program_version(),
        folder,
        request,
        tuple(
            JobInput(_written(file.source.path, here), file.source.size, _head_digest(file), digest)
            for file, digest in zip(found.inputs, samples, strict=True)
        ),
        tuple(JobOutput(_written(shard.path, here), shard.layout.size, content_digest(shard)) for shard in shards),
        cut_pieces(shards, n_tasks),
    )


def _head_digest(file: TensorSource) -> str:
    return sha256(file.source.read(0, file.head).data).hexdigest()


def samples_digest(file: TensorSource) -> str:
    """The digest of a few bytes of every tensor. It differs if a file of the same layout holds other weights.

    A change between the samples is not seen. Times and inodes would show it, but they differ between machines.
    """
    found = sha256()
    for offset, nbytes in file.tensors:
        last = max(nbytes - _SAMPLE_BYTES, 0)
        for start in sorted({last * number // (_SAMPLES - 1) for number in range(_SAMPLES)}):
            found.update(file.source.read(offset + start, min(_SAMPLE_BYTES, nbytes)).data)
    return found.hexdigest()


def _written(path: Path, here: Path) -> str:
    """A path as the plan writes it: relative to `here` if it is below that folder."""
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else os.fspath(path)


def check_same(plan: JobPlan, now: JobPlan, file: Path) -> None:
    """Raises InputError if a plan, read from `file`, differs from the plan made `now` except in the samples."""
    here = file.parent / plan.folder
    if [here / known.path for known in plan.inputs] != [here / found.path for found in now.inputs]:
        raise InputError("the source has other files than the plan says", file=file, hint=_MAKE_ANEW)
    for known, found in zip(plan.inputs, now.inputs, strict=True):
        if (known.size, known.sha256) != (found.size, found.sha256):
            raise _other_file(here / found.path)
    outputs = [[(here / part.path, part.size, part.sha256) for part in of.outputs] for of in (plan, now)]
    if outputs[0] != outputs[1]:
        raise InputError(
            "inputs or options changed since the plan was made: the outputs would differ",
            file=file,
            hint=f"something changed: the config, the tokenizer, the model card, the importance matrix; {_MAKE_ANEW}",
        )
    if plan.tasks != now.tasks:
        raise InputError("the tasks are not those that the plan was made with", file=file, hint=_MAKE_ANEW)


def check_samples(plan: JobPlan, inputs: Iterable[TensorSource], used: Iterable[Source]) -> None:
    """Raises InputError if an input that is `used` has other samples than the plan says. `inputs` is in its order."""
    paths = {source.path for source in used}
    for known, found in zip(plan.inputs, inputs, strict=True):
        if found.source.path in paths and samples_digest(found) != known.samples:
            raise _other_file(found.source.path)


def _other_file(path: Path) -> InputError:
    return InputError(
        "the input file changed after the plan was made",
        file=path,
        hint=f"put that one back, or {_MAKE_ANEW}",
    )


def read_job_plan(file: Path) -> JobPlan:
    """Reads a plan.

    Raises:
        InputError: it is no plan, of another version, or contradicts itself.
    """
    try:
        value = read_json_object(*located(file), limit_of("plan.json"))
    except InputError as error:  # its hint is about a model's files
        raise InputError(error.words.problem, file=error.file, hint=f"check the path, or {_MAKE_ANEW}") from None
    if _KEY not in value:
        raise InputError("this is not a plan of gguf-forge", file=file, hint="make one with `gguf-forge job plan`")
    version = value.get("version")
    if value[_KEY] != FORMAT or version != program_version():
        raise InputError(
            f"the plan is of gguf-forge {version!s:.40}, and this is {program_version()}",
            file=file,
            hint=f"use the same version everywhere, or {_MAKE_ANEW}",
        )
    try:
        plan = JobPlan(
            program_version(),
            _of_type(str, value["folder"]),
            Request.from_json(value["request"], file),
            tuple(_object_of(JobInput, item) for item in _of_type(list, value["inputs"])),
            tuple(_object_of(JobOutput, item) for item in _of_type(list, value["outputs"])),
            tuple(tuple(map(_piece, _of_type(list, task))) for task in _of_type(list, value["tasks"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the plan is damaged: {error}", file=file, hint=_MAKE_ANEW) from error
    if not _is_complete(plan):
        raise InputError("the plan is damaged: its tasks do not make its files", file=file, hint=_MAKE_ANEW)
    return plan


def _of_type(kind: type[T], value: Any) -> T:
    if type(value) is not kind:  # in Python, a bool is also an int
        raise TypeError(f"{value!r:.80} is not {kind.__name__}")
    return value


def _object_of(kind: type[T], value: Any) -> T:
    """Reads a dataclass of texts and numbers from a JSON object that has exactly its fields."""
    kinds = get_type_hints(kind)
    if _of_type(dict, value).keys() != kinds.keys():
        raise ValueError(f"{value!r:.80} has not the fields {', '.join(kinds)}")
    return kind(**{name: _of_type(wanted, value[name]) for name, wanted in kinds.items()})


def _piece(value: Any) -> Piece:
    return Piece(*(_of_type(int, number) for number in _of_type(list, value)))


def _is_complete(plan: JobPlan) -> bool:
    """Whether the pieces make every byte of every output exactly once."""
    done = [0] * len(plan.outputs)
    for piece in sorted(piece for task in plan.tasks for piece in task):
        if not 0 <= piece.output < len(done) or not done[piece.output] == piece.start < piece.stop:
            return False
        done[piece.output] = piece.stop
    return bool(done) and done == [output.size for output in plan.outputs]
