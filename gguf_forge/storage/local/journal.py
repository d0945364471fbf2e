"""Journals record which bytes of an unfinished file are finished, so that a later run can continue from there.

A journal is a text file next to the unfinished file. Its first line identifies the run. The other lines have finished
byte ranges, and each line has a checksum. A range is recorded after its bytes have reached the disk, so the journal is
also right after a power cut. Reading stops at the first incomplete line.
"""

from __future__ import annotations

import re
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from zlib import crc32

from gguf_forge.storage.local import disk
from gguf_forge.storage.local.disk import Name
from gguf_forge.storage.local.held_folder import HeldFolder
from gguf_forge.wording import log_of

log = log_of(__name__)

# Finished ranges are recorded once they have this many bytes, or after this many seconds. A killed run loses about as
# much work.
BATCH_BYTES = 64 << 20
BATCH_SECONDS = 1.0

_MAGIC = "gguf-forge-journal-1"
_RANGE = re.compile("([0-9]{1,20})-([0-9]{1,20})")
_MOST_BYTES = 16 << 20  # of a journal that are read: the finished ranges of many terabytes

ByteRange = tuple[int, int]


def merged(ranges: Iterable[ByteRange]) -> list[ByteRange]:
    """The same bytes as sorted ranges (start, stop) that do not touch each other.

    Example:
        >>> merged([(8, 9), (0, 4), (4, 6), (5, 6)])
        [(0, 6), (8, 9)]
    """
    joined: list[ByteRange] = []
    for start, stop in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    return joined


@dataclass(frozen=True)
class JournalRecord:
    """The content of a journal.

    Attributes:
        fingerprint: The fingerprint of the run that wrote it.
        ranges: The finished byte ranges, sorted; they do not touch each other.
        end: The number of bytes of the journal that are valid.
    """

    fingerprint: str = ""
    ranges: tuple[ByteRange, ...] = ()
    end: int = 0

    def covers(self, start: int, stop: int) -> bool:
        """Whether all of these bytes are finished."""
        at = bisect_right(self.ranges, (start, float("inf"))) - 1
        return at >= 0 and stop <= self.ranges[at][1]


def read_journal(name: Name, size: int) -> JournalRecord:
    """Reads the journal of a file of `size` bytes. The record is empty if there is no journal.

    Raises:
        OSError: the journal cannot be read.
    """
    try:
        descriptor = disk.open_own(name)
    except FileNotFoundError:
        return JournalRecord()
    try:
        data = disk.pread_all(descriptor, min(disk.status_of_open(descriptor).st_size, _MOST_BYTES), 0)
    finally:
        disk.close(descriptor)
    first, *lines = data.split(b"\n")[:-1] or [b""]
    magic, _, fingerprint = _checked(first).partition(" ")
    if magic != _MAGIC:
        return JournalRecord()
    ranges, end = list[ByteRange](), len(first) + 1
    for line in lines:
        found = [_range(word) for word in _checked(line).split(" ")]
        if not all(start < stop <= size for start, stop in found):
            break
        ranges += found
        end += len(line) + 1
    return JournalRecord(fingerprint, tuple(merged(ranges)), end)


def _range(word: str) -> ByteRange:
    """The range that a word says; an empty one if it says none."""
    found = _RANGE.fullmatch(word)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _line(text: str) -> bytes:
    return b"%s %08x\n" % (text.encode(), crc32(text.encode()))


def _checked(line: bytes) -> str:
    """The text of a line without its checksum and line end; empty if the checksum is wrong."""
    text, _, checksum = line.rpartition(b" ")
    return text.decode("ascii", "replace") if checksum == b"%08x" % crc32(text) else ""


def differences(fingerprint: str, other: str) -> Sequence[str]:
    """The names whose digests differ between two fingerprints of `name=digest` words."""
    words = set(other.split())
    return [word.partition("=")[0] for word in fingerprint.split() if word not in words]


class Journal:
    """Records the finished bytes of an output file. Any thread may call its methods.

    If the journal can no longer be written, it is given up with a warning, because the output does not need it.

    Args:
        folder: The folder of both files.
        name: The name of the journal in it.
        output: The descriptor of the output file.
        fingerprint: The fingerprint of this run.
        thread: The executor that writes the journal with one thread, so that no worker waits for the disk.
        recorded: The record of earlier runs, if this run continues from them.
    """

    def __init__(
        self,
        folder: HeldFolder,
        name: str,
        output: int,
        fingerprint: str,
        thread: Executor,
        recorded: JournalRecord | None = None,
    ):
        self._folder = folder
        self._name = folder / name
        self._output = output
        self._end = recorded.end if recorded else 0
        self._first_line = _line(f"{_MAGIC} {fingerprint}")
        self._descriptor: int | None = None
        self._given_up = False
        self._mutex = threading.RLock()
        self._waiting: list[ByteRange] = []
        self._waiting_bytes = 0
        self._since = time.monotonic()
        self._thread = thread
        self._last: Future[None] | None = None

    def finished(self, start: int, stop: int) -> None:
        """Notes that these bytes have been written.

        Raises:
            OSError: bytes that were written earlier could not be synced to the disk.
        """
        with self._mutex:
            self._waiting.append((start, stop))
            self._waiting_bytes += stop - start
            late = time.monotonic() - self._since >= BATCH_SECONDS
            if self._given_up or (self._waiting_bytes < BATCH_BYTES and not late):
                return
            if self._last is not None:
                if not self._last.done():
                    return
                self._last.result()
            try:
                self._last = self._thread.submit(self._write_down)
            except RuntimeError as error:  # a limit on processes or memory
                self._give_up(str(error))

    @property
    def is_written(self) -> bool:
        """Whether the journal records anything."""
        return self._end > 0

    def close(self, *, write_down: bool) -> None:
        """Closes the journal. With `write_down`, it first records the finished ranges that are still waiting.

        Raises:
            OSError: bytes that were written could not be synced to the disk.
        """
        try:
            if self._last is not None:
                self._last.result()
            if write_down:
                self._write_down()
        finally:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                disk.close(descriptor)

    def _write_down(self) -> None:
        with self._mutex:
            ranges, self._waiting = merged(self._waiting), []
            self._waiting_bytes, self._since = 0, time.monotonic()
        if not ranges or self._given_up:
            return
        disk.sync_data(self._output)
        try:
            self._append(_line(" ".join(f"{start}-{stop}" for start, stop in ranges)))
        except OSError as error:
            self._give_up(error.strerror or str(error))

    def _give_up(self, why: str) -> None:
        self._given_up = True
        log.warning("%s: %s; a later --resume repeats the work from here on", self._name.path, why)

    def _append(self, line: bytes) -> None:
        is_new = self._end == 0
        if self._descriptor is None:
            self._descriptor = disk.create(self._name) if is_new else disk.open_own(self._name)
        lines = self._first_line + line if is_new else line
        disk.pwrite_all(self._descriptor, memoryview(lines), self._end)
        disk.sync_data(self._descriptor)
        if is_new:
            self._folder.sync()
        self._end += len(lines)
