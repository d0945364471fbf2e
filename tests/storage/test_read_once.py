"""Bytes that several readers want are read once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from counting_source import Counting

from gguf_forge.errors import InputError
from gguf_forge.storage.read_once import ReadOnce, read
from gguf_forge.storage.source import ByteRange

CONTENT = np.arange(4096, dtype=np.uint16).astype(np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Counting:
    path = tmp_path / "weights"
    path.write_bytes(CONTENT.tobytes())
    return Counting(path)


def test_pieces_that_overlap(source: Counting) -> None:
    kept = ReadOnce([ByteRange(source, 100, 3000)], 1 << 20)
    with kept.serving():
        for start, stop in ((200, 300), (250, 400), (100, 3100), (150, 160), (299, 2000)):
            assert np.array_equal(read(source, start, stop - start), CONTENT[start:stop])
    assert source.times[100:3100].tolist() == [1] * 3000


def test_what_is_read_may_be_changed(source: Counting) -> None:
    kept = ReadOnce([ByteRange(source, 0, 4096)], 1 << 20)
    with kept.serving():
        read(source, 10, 10)[:] = 0
        assert np.array_equal(read(source, 10, 10), CONTENT[10:20])


def test_other_bytes_are_read_as_always(source: Counting) -> None:
    kept = ReadOnce([ByteRange(source, 0, 100)], 1 << 20)
    assert [kept.has(source, at) for at in (0, 99, 100)] == [True, True, False]
    with kept.serving():
        read(source, 100, 50)
        read(source, 100, 50)
    read(source, 0, 10)
    assert source.times[100:150].tolist() == [2] * 50


def test_what_was_not_used_for_the_longest_time_goes_first(source: Counting) -> None:
    kept = ReadOnce([ByteRange(source, 0, 4096)], 250)
    with kept.serving():
        for start in (0, 100, 0, 200, 0, 100):
            read(source, start, 100)
        read(source, 1000, 300)  # more than is kept
        assert np.array_equal(read(source, 0, 100), CONTENT[:100])
    assert [source.times[at] for at in (0, 100, 200)] == [1, 2, 1]


def test_nothing_is_kept_without_room(source: Counting) -> None:
    with ReadOnce([ByteRange(source, 0, 4096)], 0).serving():
        assert np.array_equal(read(source, 5, 5), read(source, 5, 5))
    assert source.times[5] == 2


def test_a_read_that_fails_takes_no_room(source: Counting) -> None:
    """The error reaches the reader, and those that come after it read again."""
    kept = ReadOnce([ByteRange(source, 0, 4096)], 200)
    os.truncate(source.path, 100)
    with kept.serving():
        for _ in range(2):
            with pytest.raises(InputError, match="weights: the file became shorter while it was read"):
                read(source, 0, 200)
        os.truncate(source.path, 4096)
        assert len(read(source, 0, 200)) == len(read(source, 0, 200)) == 200
    assert source.times[0] == 3


def test_many_threads(source: Counting) -> None:
    kept = ReadOnce([ByteRange(source, 0, 2048), ByteRange(source, 2048, 2048)], 1 << 20)
    wrong: list[int] = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        with kept.serving():
            for _ in range(200):
                start = int(random.integers(0, 2000)) + 2048 * int(random.integers(2))
                nbytes = int(random.integers(1, 48))
                if not np.array_equal(read(source, start, nbytes), CONTENT[start : start + nbytes]):
                    wrong.append(start)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert source.times.max() == 1
