"""The disk fails at the n-th call, for every n: nothing is lost, and the next run makes the same bytes.

The invariant: if a run fails, the old output is there as it was, nothing new is under the final names, the exit code is
not 0, and the message names the cause. A clean run after it, or one that resumes, gives the bytes that it should.
"""

from __future__ import annotations

import errno
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from functools import wraps
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from checkpoints import NARROW, tiny_llama
from command_line import Run, listing
from faults import BROKEN, CALLS, DISK_FULL, INTERRUPTED, Faults, is_short

from gguf_forge.cli import main
from gguf_forge.engine import direct, disk, journal
from gguf_forge.engine import forge as engine
from gguf_forge.engine.output import beside

COMMANDS = {
    "convert": ("convert", "Tiny", "-t", "Q8_0"),
    "several": ("convert", "Tiny", "-o", "out-{ftype}.gguf", "-t", "Q8_0,Q4_0"),
    "split": ("convert", "Tiny", "-o", "out.gguf", "-t", "Q8_0", "--split-max-tensors", "7"),
    "quantize": ("quantize", "in.gguf", "out.gguf", "Q4_0"),
    "copy": ("quantize", "in.gguf", "out.gguf", "COPY"),
}
INPUTS = ("Tiny", "in.gguf")
OLD = b"the old output"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs, and for each command a folder with what it makes of them."""
    folder = tmp_path_factory.mktemp("made")
    tiny_llama(folder, NARROW)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["convert", "Tiny", "-o", "in.gguf", "-t", "F16", "-q"]) == 0
        for name, command in COMMANDS.items():
            before = listing(folder)
            assert main([*command, "-q"]) == 0
            (folder / name).mkdir()
            for new in set(listing(folder)) - {*before, name}:
                shutil.move(folder / new, folder / name)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands run. Everything that is finished is written down at once."""
    for name in INPUTS:
        (tmp_path / name).symlink_to(made / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(journal, "BATCH_BYTES", 50_000)
    return tmp_path


class AtOnce(Executor):
    """Does what it is given before it returns."""

    def __init__(self, *arguments: object):
        pass

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:  # type: ignore[override]
        done: Future[Any] = Future()
        try:
            done.set_result(work(*arguments))
        except BaseException as error:
            done.set_exception(error)
        return done


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal is written by the thread that finishes something: with one thread, each run is as the one before."""
    monkeypatch.setattr(engine, "_WAITING", 0)
    monkeypatch.setattr(journal, "ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr(journal, "BATCH_SECONDS", float("inf"))
    for call in ("sync", "sync_data", "sync_folder"):  # waiting for the disk takes long and changes nothing here
        real = getattr(disk, call)
        monkeypatch.setattr(disk, call, wraps(real)(lambda where: None))


def without_direct(patch: pytest.MonkeyPatch) -> None:
    """Only then does the system copy."""

    def open_direct(descriptor: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    patch.setattr(disk, "open_direct", wraps(disk.open_direct)(open_direct))


@pytest.fixture
def forge(capfd: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    def run(*arguments: str) -> Run:
        code = main(arguments)
        shown = capfd.readouterr()
        return Run(code, shown.out, shown.err)

    return run


def outputs(folder: Path) -> dict[str, bytes]:
    """What has a name that somebody reads."""
    return {path.name: path.read_bytes() for path in folder.glob("*.gguf") if path.name not in INPUTS}


def clean(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name not in INPUTS:
            path.unlink()


def each_fault(fault: object) -> Iterator[tuple[Faults, pytest.MonkeyPatch]]:
    """Faults at the first call, at the second, and so on, until a run does not come so far."""
    at = 0
    while True:
        at += 1
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, at, fault)  # type: ignore[arg-type]
            yield faults, patch
        if faults.call is None:
            return


def open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


RUNS = [
    (BROKEN, "convert", ""),
    (BROKEN, "several", "--overwrite --resume"),
    (DISK_FULL, "split", "--overwrite"),
    (BROKEN, "split", "--resume"),
    (DISK_FULL, "quantize", "--overwrite"),
    (INTERRUPTED, "quantize", "--resume"),
    (BROKEN, "copy", ""),
]


@pytest.mark.usefixtures("in_turn")
@pytest.mark.parametrize(("fault", "name", "options"), RUNS)
def test_nothing_is_lost_whatever_call_fails(
    made: Path,
    folder: Path,
    forge: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    fault: object,
    name: str,
    options: str,
) -> None:
    if name == "copy":
        without_direct(monkeypatch)
    elif name == "quantize":  # of its small tensors, too
        monkeypatch.setattr(direct, "_LEAST", 4096)
    expected = outputs(made / name)
    old = dict.fromkeys(expected, OLD) if "--overwrite" in options else {}
    command = (*COMMANDS[name], *options.split(), "--threads", "1", "--quiet")
    seen, failed = set(), 0
    for faults, patch in each_fault(fault):
        clean(folder)
        for path, data in old.items():
            (folder / path).write_bytes(data)
        files = open_files()
        ran = forge(*command)
        patch.undo()
        if open_files() != files:
            gc.collect()  # errors hold what was being read
        assert open_files() == files, faults.call
        if faults.call is None:
            assert ran.code == 0
        seen.add(faults.call)
        left = {path for path in listing(folder) if path not in (*INPUTS, *expected)}
        assert all(path.startswith(".gguf-forge-") for path in left), faults.call
        assert outputs(folder) == (expected if ran.code == 0 else old), faults.call
        if ran.code != 0:
            failed += 1
            assert ran.code in (4, 5), (faults.call, ran.err)
            causes = ("No space left", "Input/output error", "Interrupted system call")
            assert any(cause in ran.err for cause in causes), (faults.call, ran.err)
        again = forge(*command)
        assert again.code == 0 or (ran.code == 0 and again.code == 8), (faults.call, again.err)
        assert outputs(folder) == expected, faults.call
        if ran.code != 0 or "--overwrite" in options:
            assert set(listing(folder)) == {*INPUTS, *expected}, faults.call
    assert failed > 20
    assert seen >= {
        "open_read",
        "copy_range" if name == "copy" else "pread",
        "create",
        "lock",
        "allocate",
        "pwrite",
        "sync",
        "sync_folder",
    }


def test_every_call_is_met_somewhere(made: Path, folder: Path, forge: Callable[..., Run]) -> None:
    """The test above has seen all of the disk layer, or else it says too little."""
    seen: set[str] = set()
    for name, options in product(COMMANDS, ((), ("--overwrite",), ("--overwrite", "--resume"))):
        with pytest.MonkeyPatch.context() as patch:
            for call in CALLS:
                patch.setattr(disk, call, noting(seen, getattr(disk, call)))
            if name == "copy":
                without_direct(patch)
            assert forge(*COMMANDS[name], *options).code == 0
        clean(folder)
        beside(folder / "out.gguf", "partial").write_bytes(b"what a killed run left")
    assert seen == set(CALLS)


def noting(seen: set[str], call: Callable[..., object]) -> Callable[..., object]:
    def noted(*arguments: object) -> object:
        seen.add(call.__name__)
        return call(*arguments)

    return noted


@pytest.mark.usefixtures("in_turn")
@pytest.mark.parametrize(("name", "reads"), [("quantize", "pread"), ("copy", "copy_range")])
def test_short_reads_and_writes_are_continued(
    made: Path, folder: Path, forge: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, name: str, reads: str
) -> None:
    if name == "copy":
        without_direct(monkeypatch)
    expected = outputs(made / name)
    seen = set()
    for faults, _ in each_fault(is_short):
        assert forge(*COMMANDS[name], "--overwrite", "--threads", "1", "--quiet").code == 0
        assert outputs(folder) == expected, faults.call
        seen.add(faults.call)
    assert seen > {reads, "pwrite"}
