"""An output file while it is written: under a temporary name, locked, and with a journal of its finished bytes.

The temporary name is `.gguf-forge-HASH.partial`, where HASH is a hash of the final name. The process that writes the
file holds a lock on it (`flock`), which ends with the process. So an unfinished file without a lock was left by a
killed run. The next run that writes the same file removes it, or continues it with `--resume`.

Everybody can foretell the temporary name, and may be able to make files in the folder. So a run writes only to files
that it made itself, or that nobody else made or can write to. It opens no links, pipes or devices.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor
from contextlib import suppress
from errno import EPERM
from functools import partial
from hashlib import sha256
from pathlib import Path
from stat import S_IMODE, S_IRUSR, S_ISREG, S_IWUSR

from gguf_forge.errors import OutputError, RefusedError
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.direct import DirectWriter
from gguf_forge.storage.local.disk import Name
from gguf_forge.storage.local.held_folder import HeldFolder
from gguf_forge.storage.local.journal import Journal, JournalRecord, differences, read_journal
from gguf_forge.storage.local.locks import is_at
from gguf_forge.storage.local.output_errors import output_errors
from gguf_forge.storage.local.samples import Samples
from gguf_forge.storage.sink import Output
from gguf_forge.storage.source import Source
from gguf_forge.wording import log_of

log = log_of(__name__)

# The endings of the files next to an output: the unfinished file, its journal, the old file during the renaming, and an
# empty file that shows which owner and permissions a new file gets.
ENDINGS = ("partial", "journal", "old", "probe")
_COPY_PIECE = 1 << 20
# An unfinished file has these permissions, even if it will be read-only, so that the next run can continue it.
_OPENABLE = S_IRUSR | S_IWUSR


def beside(path: Path, ending: str) -> Path:
    """The path of a temporary file that belongs to the output `path`."""
    # The name is a hash, because the output's name may already have the greatest possible length.
    return path.with_name(f".gguf-forge-{sha256(os.fsencode(path.name)).hexdigest()[:16]}.{ending}")


def refuse_existing(folder: HeldFolder, path: Path, problem: str) -> None:
    """Raises RefusedError if the folder has anything under the name of the output `path`."""
    if folder.has(path.name):
        raise RefusedError(problem, file=path, hint="choose another name or use --overwrite")


class LocalSink:
    """A file of known size that is written at offsets. Several threads may write at the same time.

    Bytes that are never written are zero. `published_together` calls `begin`, `complete`, `take_name` and `end`.

    Args:
        output: The file.
        folder: Its folder. It stays open as long as the sink is used.
    """

    def __init__(self, output: Output, folder: HeldFolder):
        self.path = output.path
        self._folder = folder
        self._name = folder / output.path.name
        self._size = output.size
        self._fingerprint = output.fingerprint
        self._mode = output.mode
        self._partial, self._journal_name, self._old, self._probe = (
            folder / beside(output.path, ending).name for ending in ENDINGS
        )
        self._descriptor: int | None = None
        self._is_begun = self._is_ended = self._is_new = self._is_ours = False
        self._replaced: os.stat_result | None = None
        self._recorded = JournalRecord()
        self._journal: Journal | None = None
        self._writer: DirectWriter | None = None
        self._samples = Samples()
        self._is_foreign = False
        # Whether the unfinished file stays for a later run to continue.
        self.is_kept = False

    def write_at(self, offset: int, data: memoryview) -> None:
        """Writes all of `data`, with as many system calls as needed."""
        with output_errors(self.path):
            if self._writer is None:
                raise OutputError("the file was written after it was closed", file=self.path)
            self._writer.write_all(data, offset)
            self._samples.add(offset, data)

    def copy_from(self, source: Source, source_offset: int, offset: int, nbytes: int) -> None:
        """Copies bytes from a source. The kernel copies them (`copy_file_range`) unless we write with `O_DIRECT`.

        Raises:
            InputError: the source cannot be read, or became shorter.
            OutputError: the file cannot be written.
        """
        # `copy_file_range` copies inside the page cache, which is slower than writing with `O_DIRECT`.
        while (
            not self._is_direct
            and nbytes
            and (copied := source.copy_range(self._opened, nbytes, source_offset, offset))
        ):
            source_offset, offset, nbytes = source_offset + copied, offset + copied, nbytes - copied
        while nbytes:
            part = source.read(source_offset, min(nbytes, _COPY_PIECE), at=offset)
            self.write_at(offset, part.data)
            source_offset, offset, nbytes = source_offset + part.size, offset + part.size, nbytes - part.size

    def has(self, offset: int, nbytes: int) -> bool:
        """Whether an earlier run finished these bytes."""
        return self._recorded.covers(offset, offset + nbytes)

    def finished(self, offset: int, nbytes: int) -> None:
        """Notes that these bytes are written. A run that resumes this one does not write them again."""
        if self._journal is not None:
            with output_errors(self.path):
                self._journal.finished(offset, offset + nbytes)

    def begin(self, journals: Executor, *, overwrite: bool, resume: bool) -> None:
        """Creates or continues the unfinished file and reserves its room on the disk. `journals` writes the journal.

        Raises:
            RefusedError: another run has the file; or the output exists and may not be replaced.
            OutputError: there is no room, or the file cannot be created.
        """
        with output_errors(self.path):
            self.take(resume=resume)
            self._set_mode(_OPENABLE)
            if not overwrite:
                refuse_existing(self._folder, self.path, "already exists")
            # The inode is in the fingerprint, so that a journal never counts for another file of the same name.
            fingerprint = f"{self._fingerprint} file={disk.status_of_open(self._opened).st_ino}"
            if not self._is_new:
                self._recorded = self._still_valid(self._read_journal(), fingerprint)
            if not self._recorded.ranges:
                self._empty()
            self._reserve()
            self._writer = DirectWriter(self._opened)
            self._journal = Journal(
                self._folder, self._journal_name.name, self._opened, fingerprint, journals, self._recorded
            )

    @property
    def _is_direct(self) -> bool:
        return self._writer is not None and self._writer.is_direct

    @property
    def _opened(self) -> int:
        if self._descriptor is None:
            raise OutputError("the file was written after it was closed", file=self.path)
        return self._descriptor

    def take(self, *, resume: bool = False) -> None:
        """Creates the unfinished file and locks it. With `resume`, it opens the one that an earlier run left."""
        self._is_begun = True
        while not self._is_ours:
            try:
                self._descriptor, self._is_new = disk.create(self._partial, self._first_mode), True
            except FileExistsError:
                try:
                    self._descriptor, self._is_new = self._open_left(), False
                except FileNotFoundError:
                    continue  # Another run has just completed it.
            self._lock()
            self._is_ours = self._is_at(self._partial)
            if self._is_ours and not self._is_new and not (resume and self._may_continue()):
                self._is_ours = False
                self._remove_left()
            if not self._is_ours:
                self._close()

    @property
    def _first_mode(self) -> int:
        return 0o666 if self._mode is None else self._mode | _OPENABLE

    def _open_left(self) -> int:
        """Opens the file that has the name of the unfinished file already."""
        try:
            descriptor = disk.open_own(self._partial)
        except PermissionError:
            raise self._in_the_way("another user's file") from None
        if not S_ISREG(disk.status_of_open(descriptor).st_mode):
            disk.close(descriptor)
            raise self._in_the_way("not a regular file")
        return descriptor

    def _in_the_way(self, what: str) -> OutputError:
        return OutputError(
            f"is in the way: {what}", file=self._partial.path, hint="remove it, or choose another folder"
        )

    def _remove_left(self) -> None:
        try:
            disk.unlink(self._partial)
        except PermissionError:  # In a folder such as /tmp, only its owner can remove a file.
            raise self._in_the_way("another user's file") from None

    def _may_continue(self) -> bool:
        """Whether only this user made and can change the unfinished file, as far as owner and permissions can tell."""
        left = disk.status_of_open(self._opened)
        # A file with a second name got its final name just before its run was killed.
        return left.st_nlink == 1 and self._is_like_new(left)

    def _is_like_new(self, left: os.stat_result) -> bool:
        """Whether a file has the owner and at most the permissions of a file that this process makes.

        Some file systems give files an owner or permissions that the process did not choose. So a new file tells what
        is usual in the folder.
        """
        with suppress(FileNotFoundError):
            disk.unlink(self._probe)
        descriptor = disk.create(self._probe, self._first_mode)
        try:
            new = disk.status_of_open(descriptor)
            disk.unlink(self._probe)
        finally:
            disk.close(descriptor)
        usual = S_IMODE(new.st_mode) | _OPENABLE
        return left.st_uid == new.st_uid and not S_IMODE(left.st_mode) & ~usual

    def _read_journal(self) -> JournalRecord:
        """The journal of the run that left the unfinished file; an empty one if somebody else could have written it."""
        try:
            left = disk.status_of_name(self._journal_name)
        except FileNotFoundError:
            return JournalRecord()
        if not S_ISREG(left.st_mode) or not self._is_like_new(left):
            return JournalRecord()
        return read_journal(self._journal_name, self._size)

    def _set_mode(self, more: int = 0) -> None:
        if self._mode is None:
            return
        try:
            disk.change_mode(self._opened, self._mode | more)
        except OSError as error:
            if error.errno not in disk.UNSUPPORTED | {EPERM}:  # Some file systems lack permissions.
                raise

    def _lock(self) -> None:
        try:
            locked = disk.lock(self._opened)
        except OSError as error:
            if error.errno not in disk.UNSUPPORTED:
                raise
            if not self._is_new:
                raise RefusedError(
                    "another run is writing this file or was killed; the file system has no locks to tell which",
                    file=self.path,
                    hint=f"if none is running, remove {self._partial.path}",
                ) from None
            locked = True
        if not locked:
            raise RefusedError(
                "another run is writing this file", file=self.path, hint="wait for it, or choose another name"
            )

    def _is_at(self, name: Name) -> bool:
        return is_at(self._opened, name)

    def _still_valid(self, recorded: JournalRecord, fingerprint: str) -> JournalRecord:
        """The record if it is valid for this run, otherwise an empty one."""
        if not recorded.ranges:
            return JournalRecord()
        changed = differences(fingerprint, recorded.fingerprint)
        if not changed and disk.status_of_open(self._opened).st_size == self._size:
            return recorded
        reason = f"changed since then: {', '.join(changed) or 'size of the unfinished file'}"
        log.warning("%s: starts again from the beginning instead of resuming (%s)", self.path, reason)
        return JournalRecord()

    def _empty(self) -> None:
        """Removes the content that an earlier run left.

        The journal goes first, because it must never record bytes that are no longer there.
        """
        with suppress(FileNotFoundError):
            disk.unlink(self._journal_name)
            self._folder.sync()
        if not self._is_new:
            disk.truncate(self._opened, 0)

    def _reserve(self) -> None:
        """Reserves the room on the disk (`fallocate`) before any work. Without support for it, the file is sparse."""
        if not self._size:
            return
        try:
            disk.allocate(self._opened, self._size)
        except OSError as error:
            if error.errno not in disk.UNSUPPORTED:
                raise
            disk.truncate(self._opened, self._size)

    def complete(self) -> None:
        """Waits until everything is on the disk.

        Raises:
            OutputError: it cannot be written, or another process wrote to the file or cut it.
        """
        with output_errors(self.path):
            if self._journal is not None:
                self._journal.close(write_down=False)
            disk.sync(self._opened)
            self._is_foreign = self._is_changed_by_others()
        if self._is_foreign:
            raise OutputError(
                "another process wrote to the unfinished file",
                file=self._partial.path,
                hint="run again, and let no other program touch this file meanwhile",
            )

    def _is_changed_by_others(self) -> bool:
        if disk.status_of_open(self._opened).st_size != self._size:
            return True
        return self._samples.first_difference(partial(disk.pread_all, self._opened)) is not None

    def take_name(self, *, overwrite: bool) -> None:
        """Gives the complete file its name.

        Raises:
            RefusedError: another file has got the name meanwhile, and may not be replaced.
            OutputError: the file cannot be renamed, or somebody removed or replaced it.
        """
        with output_errors(self.path):
            if not self._folder.is_at_its_path:
                raise OutputError(
                    "the folder was moved or replaced while the file was written",
                    file=self._folder.path,
                    hint="run again, and let nobody change this folder's path meanwhile",
                )
            if not self._is_at(self._partial):
                raise OutputError(
                    "the unfinished file was removed or replaced while it was written",
                    file=self._partial.path,
                    hint="run again, and do not touch this file meanwhile",
                )
            if overwrite:
                self._replace()
            else:
                self._take_free_name()
            self._set_mode()

    def _take_free_name(self) -> None:
        """Takes the name only if no other file has it. A hard link never replaces a file, but renaming would."""
        problem = "appeared while it was being made"
        try:
            disk.link(self._partial, self._name)
        except FileExistsError:
            refuse_existing(self._folder, self.path, problem)
            raise
        except OSError:  # Some file systems lack hard links.
            refuse_existing(self._folder, self.path, problem)
            disk.rename(self._partial, self._name)
        else:
            disk.unlink(self._partial)

    def _replace(self) -> None:
        with suppress(FileNotFoundError):
            disk.unlink(self._old)
        with suppress(FileNotFoundError):
            self._replaced = disk.status_of_name(self._name)
        with suppress(OSError):  # There is no old file, or the file system has no hard links.
            disk.link(self._name, self._old)
        disk.rename(self._partial, self._name)

    def give_name_back(self) -> None:
        """Undoes `take_name`, even if it was interrupted, so that the old file has its name again."""
        if not self._is_at(self._name):
            return
        is_partial = self._is_at(self._partial)
        if self._replaced is not None and _names(self._old, self._replaced):
            if not is_partial:
                disk.link(self._name, self._partial)
            disk.rename(self._old, self._name)
        elif is_partial:
            disk.unlink(self._name)
        elif self._replaced is None:
            disk.rename(self._name, self._partial)

    @property
    def is_left(self) -> bool:
        """Whether an earlier run left an unfinished file, and the journal of what is finished in it."""
        return all(self._folder.has(name.name) for name in (self._partial, self._journal_name))

    def end(self, *, keep: bool) -> None:
        """Removes the temporary files, or with `keep` leaves those that a later run needs to continue.

        A file that cannot be removed stays. It does no harm, because nobody reads its name and the next run removes it.
        """
        with suppress(OSError):
            self._end(keep=keep)
        self._is_ended = True
        self._close()

    def _end(self, *, keep: bool) -> None:
        if not self._is_begun or self._is_ended:
            return
        if not self._is_ours:
            self._remove_empty()
            return
        is_unfinished = self._is_at(self._partial)
        keep = keep and not self._is_foreign
        if self._journal is not None:
            with suppress(OSError):
                self._journal.close(write_down=keep and is_unfinished)
        if not is_unfinished and not self._is_at(self._name):
            # Somebody removed our file. If there is another one, it is not ours, and the journal may be its journal.
            if not self._folder.has(self._partial.name):
                disk.unlink(self._journal_name)
            return
        # If this run did not get as far as its journal, there may be the journal of an earlier run.
        if keep and is_unfinished and (self._journal.is_written if self._journal else not self._is_new):
            self.is_kept = True
            return
        for left in (self._journal_name, self._old, *([self._partial] if is_unfinished else [])):
            with suppress(OSError):
                disk.unlink(left)

    def _remove_empty(self) -> None:
        """Removes an empty unfinished file that was created just before a signal, so that it is not locked yet."""
        if self._descriptor is None:
            self._descriptor = disk.open_own(self._partial)
        status = disk.status_of_open(self._opened)
        is_empty = status.st_size == 0 and status.st_uid == os.geteuid()
        if is_empty and disk.lock(self._opened) and self._is_at(self._partial):
            disk.unlink(self._partial)

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):  # An error here loses nothing, because the file is already synced.
                disk.close(descriptor)


def _names(name: Name, file: os.stat_result) -> bool:
    """Whether the name is that of this file."""
    try:
        return os.path.samestat(disk.status_of_name(name), file)
    except FileNotFoundError:
        return False
