"""What a stopped run had finished is not done again, and nothing is taken for finished that was not."""

from __future__ import annotations

import errno
import logging
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from command_line import listing
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.errors import OutputError
from gguf_forge.storage.local import disk, journal
from gguf_forge.storage.local.disk import Name
from gguf_forge.storage.local.journal import JournalRecord, merged, read_journal
from gguf_forge.storage.local.output import LocalSink, beside
from gguf_forge.storage.local.publish import published, published_together
from gguf_forge.storage.sink import Output

SIZE = 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.gguf"


class Killed(BaseException):
    """Ends a run as SIGKILL does: what it would do at its end is left out."""


@contextmanager
def killed(path: Path, monkeypatch: pytest.MonkeyPatch, fingerprint: str = "inputs=1") -> Iterator[LocalSink]:
    """A run whose process ends with the block."""
    with (
        monkeypatch.context() as patch,
        pytest.raises(Killed),
        published(path, SIZE, overwrite=False, fingerprint=fingerprint) as out,
    ):
        yield out
        out._journal._thread.shutdown()  # type: ignore[union-attr]
        patch.setattr(LocalSink, "_end", lambda self, keep: None)
        raise Killed


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is finished is written down at once."""
    monkeypatch.setattr(journal, "BATCH_BYTES", 1)


def put(out: LocalSink, start: int, stop: int) -> None:
    out.write_at(start, memoryview(bytes([7]) * (stop - start)))
    out.finished(start, stop - start)


def resumed(path: Path, fingerprint: str = "inputs=1") -> list[bool]:
    """Which bytes a run finds finished. It ends well."""
    with published(path, SIZE, overwrite=False, resume=True, fingerprint=fingerprint) as out:
        found = [out.has(at, 1) for at in range(SIZE)]
    assert listing(path.parent) == ["a.gguf"]
    return found


@pytest.mark.usefixtures("often")
def test_what_a_killed_run_finished_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed(path, monkeypatch) as out:
        put(out, 100, 200)
        out._journal._last.result()  # type: ignore[union-attr]
        put(out, 200, 300)
        out.write_at(500, memoryview(b"not finished"))
    assert resumed(path) == [100 <= at < 300 for at in range(SIZE)]
    assert path.read_bytes()[100:300] == bytes([7]) * 200


@pytest.mark.usefixtures("often")
def test_without_resume_a_run_begins_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed(path, monkeypatch) as out:
        put(out, 100, 200)
    with published(path, SIZE, overwrite=False, fingerprint="inputs=1") as out:
        assert not out.has(100, 1)
    assert path.read_bytes() == bytes(SIZE)
    assert listing(path.parent) == ["a.gguf"]


def test_a_run_that_is_stopped_keeps_what_it_has_if_it_resumes(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An error or signal writes down what waits; a run without --resume leaves nothing."""
    for resume, left in ((False, 0), (True, 2)):
        with pytest.raises(KeyboardInterrupt), published(path, SIZE, overwrite=False, resume=resume) as out:
            put(out, 10, 20)
            raise KeyboardInterrupt
        assert len(listing(path.parent)) == left
        assert ("a.gguf: the finished part is kept: run again with resume=True" in caplog.text) == resume
    assert resumed(path, "") == [10 <= at < 20 for at in range(SIZE)]


def test_what_is_kept_of_several_files_is_said_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outputs = [Output(path.with_name(name), SIZE) for name in ("a.gguf", "b.gguf", "c.gguf")]
    with pytest.raises(KeyboardInterrupt), published_together(outputs, overwrite=False, resume=True) as files:
        for out in files:
            put(out, 10, 20)
        raise KeyboardInterrupt
    [kept] = caplog.messages
    assert "a.gguf and 2 more: the finished part is kept: run again with resume=True" in kept
    caplog.clear()
    with published_together(outputs, overwrite=False) as files:
        [left] = caplog.messages
        assert "a.gguf and 2 more: starting over; resume=True would continue" in left
    caplog.clear()
    with published_together(outputs, overwrite=True):
        assert caplog.messages == []


def test_a_run_that_resumes_and_has_nothing_leaves_nothing(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), published(path, SIZE, overwrite=False, resume=True):
        raise KeyboardInterrupt
    assert listing(path.parent) == []


@pytest.mark.usefixtures("often")
def test_several_stops(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed(path, monkeypatch) as out:
        put(out, 0, 10)
    for start in (20, 40):
        with (
            pytest.raises(ValueError),
            published(path, SIZE, overwrite=False, resume=True, fingerprint="inputs=1") as out,
        ):
            assert out.has(0, 10)
            put(out, start, start + 10)
            raise ValueError
    assert resumed(path) == [at < 10 or 20 <= at < 30 or 40 <= at < 50 for at in range(SIZE)]


@pytest.mark.usefixtures("often")
def test_another_run_begins_anew_and_says_why(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with killed(path, monkeypatch, "version=1 inputs=1 output=1") as out:
        put(out, 0, 10)
    with caplog.at_level(logging.WARNING):
        assert not any(resumed(path, "version=1 inputs=2 output=1"))
    assert "a.gguf: starts again from the beginning instead of resuming (changed since then: inputs)" in caplog.text
    assert path.read_bytes() == bytes(SIZE)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("change", ["cut", "replaced"])
def test_an_unfinished_file_that_was_tampered_with(path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    with killed(path, monkeypatch) as out:
        put(out, 0, 10)
    partial = beside(path, "partial")
    if change == "cut":
        os.truncate(partial, SIZE - 1)
    else:
        (path.parent / "copy").write_bytes(partial.read_bytes())
        (path.parent / "copy").rename(partial)
    assert not any(resumed(path))


@pytest.mark.usefixtures("often")
def test_a_torn_journal_says_what_is_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut anywhere, or with a flipped bit anywhere, a journal says less, never more."""
    with killed(path, monkeypatch) as out:
        for start in (0, 20, 40):
            put(out, start, start + 10)
            out._journal._last.result()  # type: ignore[union-attr]
    whole = beside(path, "journal").read_bytes()
    full = read_journal(Name(beside(path, "journal")), SIZE)
    assert full.ranges == ((0, 10), (20, 30), (40, 50))
    other = path.parent / "other"
    seen = set()
    for at in range(len(whole)):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]):
            other.write_bytes(damaged)
            found = read_journal(Name(other), SIZE)
            assert found.ranges == full.ranges[: len(found.ranges)]
            assert found.fingerprint in ("", full.fingerprint)
            seen.add(len(found.ranges))
    assert seen == {0, 1, 2}


@given(st.binary())
def test_any_bytes_are_a_journal_that_says_nothing(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "journal"
    path.write_bytes(data)
    assert read_journal(Name(path), SIZE) == JournalRecord()


def test_ranges_outside_the_file_are_not_believed(path: Path) -> None:
    lines = [f"{journal._MAGIC} inputs=1", "0-10", f"10-{SIZE + 1}", "10-20"]
    path.write_bytes(b"".join(map(journal._line, lines)))
    assert read_journal(Name(path), SIZE).ranges == ((0, 10),)


@pytest.mark.parametrize(
    "text", ["1" * 5000 + "-2", "1" * 400_000, "0-10 x", "0-10  20-30", "5-5", "10-5", "0-" + "9" * 30, ""]
)
def test_a_journal_with_other_words_than_ranges_says_nothing(path: Path, text: str) -> None:
    path.write_bytes(journal._line(f"{journal._MAGIC} inputs=1") + journal._line(text))
    assert read_journal(Name(path), SIZE).ranges == ()


def test_a_journal_of_many_gigabytes_is_read_in_part(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    pread_all = disk.pread_all

    def noted(descriptor: int, n_bytes: int, offset: int) -> bytes:
        asked.append(n_bytes)
        return pread_all(descriptor, n_bytes, offset)

    monkeypatch.setattr(disk, "pread_all", noted)
    path.write_bytes(b"".join(map(journal._line, [f"{journal._MAGIC} inputs=1", "0-10"])))
    os.truncate(path, 8 << 30)
    assert read_journal(Name(path), SIZE).ranges == ((0, 10),)
    assert max(asked) <= 16 << 20


@pytest.mark.usefixtures("often")
def test_a_resumed_run_writes_over_the_torn_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed(path, monkeypatch) as out:
        put(out, 0, 10)
    with beside(path, "journal").open("ab") as file:
        file.write(b"20-30 and then the power")
    with pytest.raises(ValueError), published(path, SIZE, overwrite=False, resume=True, fingerprint="inputs=1") as out:
        put(out, 40, 50)
        raise ValueError
    assert resumed(path) == [at < 10 or 40 <= at < 50 for at in range(SIZE)]


def test_nothing_is_written_down_before_it_is_on_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, bool]] = []
    partial = beside(path, "partial")
    for name in ("sync_data", "pwrite", "sync_folder", "sync"):
        call = getattr(disk, name)

        def noting(first: object, *more: object, name: str = name, call: object = call) -> object:
            is_output = (
                name != "sync_folder" and isinstance(first, int) and os.path.samestat(os.fstat(first), partial.stat())
            )
            order.append((name, is_output))
            return call(first, *more)  # type: ignore[operator]

        monkeypatch.setattr(disk, name, noting)
    with published(path, SIZE, overwrite=False, resume=True) as out:
        put(out, 0, 10)
        out._journal._write_down()  # type: ignore[union-attr]
    assert order == [
        ("pwrite", True),
        ("sync_data", True),
        ("pwrite", False),
        ("sync_data", False),
        ("sync_folder", False),
        ("sync", True),
        ("sync_folder", False),
    ]


@pytest.mark.usefixtures("often")
def test_the_journal_goes_before_what_it_speaks_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that begins anew and loses its power must not leave the journal of the one before."""
    with killed(path, monkeypatch) as out:
        put(out, 0, 10)

    def fail(descriptor: int, size: int) -> None:
        assert not beside(path, "journal").exists()
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(disk, "allocate", fail)
    with pytest.raises(OutputError, match="broken"), published(path, SIZE, overwrite=False):
        pass


@pytest.mark.usefixtures("often")
def test_a_journal_that_cannot_be_written_is_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pwrite = disk.pwrite

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        if data[:4] == b"gguf":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(disk, "pwrite", full)
    with published(path, SIZE, overwrite=False) as out:
        for start in range(0, SIZE, 100):
            put(out, start, start + 100)
    assert path.read_bytes() == bytes([7]) * SIZE
    assert listing(path.parent) == ["a.gguf"]
    assert caplog.text.count("No space left on device; a later resume=True repeats the work from here on") == 1


@pytest.mark.usefixtures("often")
def test_a_disk_that_loses_what_was_written_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system says it once, to whoever syncs first: the end of the run must not miss it."""
    told: list[int] = []

    def once(descriptor: int) -> None:
        if not told:
            told.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(disk, "sync_data", once)
    monkeypatch.setattr(disk, "sync", once)
    with (
        pytest.raises(OutputError, match=r"a\.gguf: Input/output error"),
        published(path, SIZE, overwrite=False) as out,
    ):
        put(out, 0, 10)
    assert told
    assert listing(path.parent) == []


@pytest.mark.usefixtures("often")
def test_one_thread_writes_the_journals_of_all_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, seen = disk.sync_data, set()

    def noting(descriptor: int) -> None:
        seen.add(threading.get_ident())
        sync(descriptor)

    monkeypatch.setattr(disk, "sync_data", noting)
    outputs = [Output(path.with_name(f"{number}.gguf"), SIZE) for number in range(5)]
    with published_together(outputs, overwrite=False) as files:
        before = threading.active_count()
        for file in files:
            put(file, 0, 10)
        assert threading.active_count() == before + 1
    assert len(seen) == 1
    assert threading.get_ident() not in seen


def test_time_passes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow work is written down though it is little."""
    monkeypatch.setattr(journal, "BATCH_SECONDS", 0.0)
    with killed(path, monkeypatch) as out:
        put(out, 0, 10)
    assert sum(resumed(path)) == 10


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)).map(lambda pair: (pair[0], sum(pair)))))
def test_merged_ranges_are_the_same_bytes(ranges: list[tuple[int, int]]) -> None:
    joined = merged(random.Random(1).sample(ranges, len(ranges)))
    covered = {at for start, stop in ranges for at in range(start, stop)}
    assert {at for start, stop in joined for at in range(start, stop)} == covered
    assert all(stop < start for (_, stop), (start, _) in pairwise(joined))
    found = JournalRecord("", tuple(joined), 1)
    for start in range(70):
        for stop in (start + 1, start + 5):
            assert found.covers(start, stop) == covered.issuperset(range(start, stop))
