"""Writing past the page cache: the same bytes as writing through it."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gguf_forge.storage.buffers import ALIGNMENT, fresh
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.direct import DirectWriter

SIZE = 3_000_000


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    os.truncate(descriptor, SIZE)
    yield descriptor
    os.close(descriptor)


def fill(descriptor: int, writer: DirectWriter, *, aligned: bool) -> None:
    """Writes pieces of all sizes in any order, and compares."""
    expected = np.random.default_rng(3).integers(0, 256, SIZE, np.uint8)
    generator = random.Random(3)
    borders = sorted({0, SIZE, ALIGNMENT, 50 * ALIGNMENT, *(generator.randrange(SIZE) for _ in range(20))})
    pieces = list(pairwise(borders))
    generator.shuffle(pieces)
    for start, stop in pieces:
        data = fresh(stop - start, at=start if aligned else start + 8)
        data[:] = expected[start:stop]
        writer.write_all(data.data, start)
    writer.close()
    assert os.pread(descriptor, SIZE, 0) == expected.tobytes()


@pytest.mark.parametrize("aligned", [True, False])
def test_every_byte_arrives(opened: int, aligned: bool) -> None:
    fill(opened, DirectWriter(opened), aligned=aligned)


def test_whole_blocks_go_past_the_cache(opened: int, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = DirectWriter(opened)
    if not writer.is_direct:
        pytest.skip("this file system has no way past the cache")
    plain: list[int] = []
    pwrite = disk.pwrite

    def spying(descriptor: int, data: memoryview, offset: int) -> int:
        if descriptor == opened:
            plain.append(len(data))
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(disk, "pwrite", spying)
    writer.write_all(fresh(1_000_000, at=100).data, 100)
    assert len(plain) == 2
    assert max(plain) < ALIGNMENT


def test_short_writes_are_continued(opened: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = disk.pwrite
    monkeypatch.setattr(
        disk, "pwrite", lambda fd, data, offset: pwrite(fd, data[: max(1, len(data) // 3 // 512 * 512)], offset)
    )
    fill(opened, DirectWriter(opened), aligned=True)


@pytest.mark.parametrize("call", ["open_direct", "pwrite"])
def test_where_there_is_no_way_past_the_cache(opened: int, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    function = getattr(disk, call)

    def refuse(descriptor: int, *rest: object) -> int:
        if call == "pwrite" and descriptor == opened:
            return function(descriptor, *rest)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(disk, call, refuse)
    fill(opened, DirectWriter(opened), aligned=True)


def test_a_full_disk_is_an_error_and_not_another_try(opened: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        DirectWriter(opened).write_all(fresh(1 << 20).data, 0)
