"""plan.json: a conversion written down, so that machines which share a disk can each do a part of it.

It holds what is asked for, what the source looked like, and every file to the last byte but the weights, cut into
tasks. It is small, whatever the model, and whoever does a task plans anew from the request: nothing in the file is
believed, it only has to agree.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gguf_forge.engine.pieces import Piece, cut_pieces
from gguf_forge.engine.tasks import Shard
from gguf_forge.errors import UsageError
from gguf_forge.request import Planned, Request
from gguf_forge.source import MappedFile

FORMAT = 1
_KEY = "gguf_forge_plan"
_CHUNK = 8 << 20


@dataclass(frozen=True)
class Input:
    """A file that the outputs are made of. `head` bytes of it decide what they look like; the rest are weights."""

    path: str
    size: int
    head: int
    head_sha256: str


@dataclass(frozen=True)
class Output:
    """A file to make, or a part of a split one."""

    path: str
    size: int
    header: int
    header_sha256: str


@dataclass(frozen=True)
class WorkPlan:
    """A conversion in tasks.

    Attributes:
        version: Of the program.
        folder: What relative paths begin at, relative to the folder of the plan.
        request: What is asked for.
        inputs: What it is made of.
        outputs: What is made.
        tasks: The pieces of each task; all together are all outputs.
    """

    version: str
    folder: str
    request: Request
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    tasks: tuple[tuple[Piece, ...], ...]

    @property
    def id(self) -> str:
        """Tells plans apart: 16 digits that depend on all there is in a plan but the folder."""
        content = {**self.as_json(), "folder": ""}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        return {
            _KEY: FORMAT,
            "version": self.version,
            "folder": self.folder,
            "request": self.request.as_json(),
            "inputs": [asdict(file) for file in self.inputs],
            "outputs": [asdict(file) for file in self.outputs],
            "tasks": [[piece._asdict() for piece in task] for task in self.tasks],
        }

    def pieces(self, task: int) -> tuple[Piece, ...]:
        """What task number `task` makes.

        Raises:
            UsageError: there is no such task.
        """
        if not 0 <= task < len(self.tasks):
            raise UsageError(f"there is no task {task}", hint=f"tasks go from 0 to {len(self.tasks) - 1}")
        return self.tasks[task]


def work_plan(planned: Planned, request: Request, folder: str, n_tasks: int | None, here: Path) -> WorkPlan:
    """The plan of what a request came to.

    Args:
        planned: What it came to.
        request: What is asked for.
        folder: What relative paths begin at, as it is written down.
        n_tasks: None for one task for each file or part.
        here: The same folder as it can be reached now.

    Raises:
        UsageError: a number of tasks that makes no sense.
        InputError: an input cannot be read.
    """
    shards = [shard for file in planned.files for shard in file.shards]
    return WorkPlan(
        program_version(),
        folder,
        request,
        tuple(_inputs(planned, here)),
        tuple(_output(shard, here) for shard in shards),
        cut_pieces(shards, n_tasks),
    )


def program_version() -> str:
    from importlib.metadata import version

    return version("gguf-forge")


def _inputs(planned: Planned, here: Path) -> Iterator[Input]:
    for source, head in planned.weights:
        yield Input(_written(source.path, here), source.size, head, _sha256(source.view(0, head).data))
    for path in planned.small:
        with MappedFile(path) as file:
            yield Input(_written(path, here), file.size, file.size, _sha256(file.view(0, file.size).data))


def _output(shard: Shard, here: Path) -> Output:
    header = shard.layout.header
    return Output(_written(shard.path, here), shard.layout.size, len(header), _sha256(header))


def _sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _written(path: Path, here: Path) -> str:
    """A path as the plan has it: relative to `here` where it was given so."""
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else os.fspath(path)
