"""A file of weights whose reads are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gguf_forge.storage.local.source_file import SourceFile


class Counting(SourceFile):
    """A file that knows how often each of its bytes was read."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.times = np.zeros(self.size, int)

    def read(self, offset: int, nbytes: int, *, at: int = 0) -> np.ndarray:
        self.times[offset : offset + nbytes] += 1
        return super().read(offset, nbytes, at=at)

    def read_pieces(self, offset: int, nbytes: int, step: int, count: int) -> np.ndarray:
        for number in range(count):
            self.times[offset + number * step :][:nbytes] += 1
        return super().read_pieces(offset, nbytes, step, count)
