"""Folders on this machine's disks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from gguf_forge.errors import InputError
from gguf_forge.storage.folder import SMALL_BYTES
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.storage.paths import is_there


@dataclass(frozen=True)
class LocalFolder:
    """A `Folder` on a disk.

    Example:
        >>> LocalFolder(Path("Qwen3-0.6B")).subfolder("1_Pooling").path.as_posix()
        'Qwen3-0.6B/1_Pooling'
    """

    path: Path

    @property
    def name(self) -> str:
        name = self.path.name
        return self.path.resolve().name if name in ("", "..") else name

    def names(self) -> tuple[str, ...]:
        try:
            return tuple(sorted(entry.name for entry in self.path.iterdir()))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise InputError(f"the folder cannot be read: {error.strerror}", file=self.path) from error

    def has(self, name: str) -> bool:
        return is_there(self.path / name)

    def read_small(self, name: str, limit: int = SMALL_BYTES) -> bytes:
        path = self.path / name
        try:
            status = path.stat()
            if not S_ISREG(status.st_mode) and not S_ISDIR(status.st_mode):  # Opening a pipe would wait for its writer.
                raise InputError("not a regular file", file=path)
            if status.st_size > limit:
                raise InputError(f"the file is larger than {limit >> 20} MiB", file=path)
            return path.read_bytes()
        except FileNotFoundError as error:
            raise InputError("the file is missing", file=path, hint="download the whole model folder") from error
        except OSError as error:
            raise InputError(f"the file cannot be read: {error.strerror or error}", file=path) from error

    def open(self, name: str) -> SourceFile:
        return SourceFile(self.path / name)

    def subfolder(self, name: str) -> LocalFolder:
        return LocalFolder(self.path / name)


def located(path: Path) -> tuple[LocalFolder, str]:
    """Splits the path of a file into its folder and its name."""
    return LocalFolder(path.parent), path.name
