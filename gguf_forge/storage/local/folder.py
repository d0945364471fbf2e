"""Folders on this machine's disks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gguf_forge.errors import InputError
from gguf_forge.storage.limits import limit_of
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.storage.paths import is_there, resolved

_KEPT_BYTES = limit_of("config.json")


@dataclass(frozen=True)
class LocalFolder:
    """A `Folder` on a disk. A small file is read once: all see the same bytes, even if it changes meanwhile.

    Example:
        >>> LocalFolder(Path("Qwen3-0.6B")).subfolder("1_Pooling").path.as_posix()
        'Qwen3-0.6B/1_Pooling'
    """

    path: Path
    _contents: dict[str, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        name = self.path.name
        return resolved(self.path).name if name in ("", "..") else name

    def path_of(self, name: str) -> Path:
        return self.path / name

    def names(self) -> tuple[str, ...]:
        try:
            return tuple(sorted(entry.name for entry in self.path.iterdir()))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise InputError(f"the folder cannot be read: {error.strerror}", file=self.path) from error

    def has(self, name: str) -> bool:
        return is_there(self.path / name)

    def read_small(self, name: str, limit: int | None = None) -> bytes:
        if name in self._contents and (limit is None or len(self._contents[name]) <= limit):
            return self._contents[name]
        if not self.has(name):
            hint = "check the path, or download the whole model folder"
            raise InputError("the file is missing", file=self.path / name, hint=hint)
        most = limit_of(Path(name).name) if limit is None else limit
        with self.open(name) as file:
            if file.size > most:
                raise InputError(
                    f"the file is larger than {most >> 20:,} MiB, the limit for such files", file=file.path
                )
            content = file.read(0, file.size).tobytes()
        if len(content) <= _KEPT_BYTES:
            self._contents[name] = content
        return content

    def open(self, name: str) -> SourceFile:
        return SourceFile(self.path / name)

    def subfolder(self, name: str) -> LocalFolder:
        return LocalFolder(self.path / name)


def located(path: Path) -> tuple[LocalFolder, str]:
    """Splits the path of a file into its folder and its name."""
    return LocalFolder(path.parent), path.name
