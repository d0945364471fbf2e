"""A folder with some of its files taken from another one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gguf_forge.storage.folder import Folder
from gguf_forge.storage.source import Source


@dataclass(frozen=True)
class OverlaidFolder:
    """A `Folder` that is `below`, but for the files and folders of some names, which are those of `above` alone.

    Attributes:
        below: The folder itself.
        above: The other folder.
        of_above: What these names match.
    """

    below: Folder
    above: Folder
    of_above: re.Pattern[str]

    @property
    def path(self) -> Path:
        return self.below.path

    @property
    def name(self) -> str:
        return self.below.name

    def _folder_of(self, name: str) -> Folder:
        return self.above if self.of_above.fullmatch(name.partition("/")[0]) else self.below

    def path_of(self, name: str) -> Path:
        return self._folder_of(name).path_of(name)

    def names(self) -> tuple[str, ...]:
        both = {*self.below.names(), *self.above.names()}
        return tuple(sorted(name for name in both if self.has(name)))

    def has(self, name: str) -> bool:
        return self._folder_of(name).has(name)

    def read_small(self, name: str, limit: int | None = None) -> bytes:
        return self._folder_of(name).read_small(name, limit)

    def open(self, name: str) -> Source:
        return self._folder_of(name).open(name)

    def subfolder(self, name: str) -> Folder:
        return self._folder_of(name).subfolder(name)
