"""A storage that is no disk: folders and files that are values of this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import InputError, RefusedError
from gguf_forge.storage.buffers import fresh
from gguf_forge.storage.limits import limit_of
from gguf_forge.storage.sink import Output
from gguf_forge.storage.source import Source

# Nothing is there: a way round the protocol does not find anything.
ROOT = Path("/no/such/place")


@dataclass
class MemorySource:
    """A file of a `MemoryFolder`."""

    path: Path
    data: bytes
    is_open: bool = True

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def identity(self) -> str:
        return sha256(self.data).hexdigest()

    def read(self, offset: int, nbytes: int, *, at: int = 0) -> NDArray[np.uint8]:
        assert self.is_open
        if not 0 <= offset <= offset + nbytes <= self.size:
            raise InputError("outside the file", file=self.path)
        found = fresh(nbytes, at=at)
        found[:] = np.frombuffer(self.data, np.uint8, nbytes, offset)
        return found

    def read_pieces(self, offset: int, nbytes: int, step: int, count: int) -> NDArray[np.uint8]:
        return np.stack([self.read(offset + step * number, nbytes) for number in range(count)])

    def copy_range(self, target: int, nbytes: int, offset: int, at: int) -> int:
        return 0

    def check_unchanged(self) -> None:
        pass

    def close(self) -> None:
        self.is_open = False


@dataclass(frozen=True)
class MemoryFolder:
    """Files by their names, as an object store has them: a folder is what is before a slash."""

    path: Path
    files: dict[str, bytes]

    @classmethod
    def copy_of(cls, folder: Path) -> MemoryFolder:
        found = (path for path in folder.rglob("*") if path.is_file())
        return cls(ROOT / folder.name, {path.relative_to(folder).as_posix(): path.read_bytes() for path in found})

    @property
    def name(self) -> str:
        return self.path.name

    def path_of(self, name: str) -> Path:
        return self.path / name

    def names(self) -> tuple[str, ...]:
        return tuple(sorted({name.partition("/")[0] for name in self.files}))

    def has(self, name: str) -> bool:
        return name in self.files or any(other.startswith(f"{name}/") for other in self.files)

    def read_small(self, name: str, limit: int | None = None) -> bytes:
        if len(self._content(name)) > (limit_of(name) if limit is None else limit):
            raise InputError("the file is too large", file=self.path / name)
        return self._content(name)

    def open(self, name: str) -> MemorySource:
        return MemorySource(self.path / name, self._content(name))

    def _content(self, name: str) -> bytes:
        if name not in self.files:
            raise InputError("the file is missing", file=self.path / name)
        return self.files[name]

    def subfolder(self, name: str) -> MemoryFolder:
        inside = {
            path.removeprefix(f"{name}/"): data for path, data in self.files.items() if path.startswith(f"{name}/")
        }
        return MemoryFolder(self.path / name, inside)


class MemorySink:
    """A file that is being written."""

    def __init__(self, output: Output):
        self.data = bytearray(output.size)

    def write_at(self, offset: int, data: memoryview) -> None:
        assert offset + len(data) <= len(self.data)
        self.data[offset : offset + len(data)] = data

    def copy_from(self, source: Source, source_offset: int, offset: int, nbytes: int) -> None:
        self.write_at(offset, source.read(source_offset, nbytes).data)

    def has(self, offset: int, nbytes: int) -> bool:
        return False

    def finished(self, offset: int, nbytes: int) -> None:
        pass


@dataclass(frozen=True)
class MemoryStore:
    """Where finished files are, by their paths."""

    files: dict[Path, bytes] = field(default_factory=dict)

    @contextmanager
    def publish(
        self, outputs: Sequence[Output], *, overwrite: bool, resume: bool = False
    ) -> Iterator[tuple[MemorySink, ...]]:
        """All of them when the block ends well, none when it does not."""
        for output in outputs:
            if output.path in self.files and not overwrite:
                raise RefusedError("already exists", file=output.path)
        sinks = tuple(map(MemorySink, outputs))
        yield sinks
        self.files.update({output.path: bytes(sink.data) for output, sink in zip(outputs, sinks, strict=True)})
