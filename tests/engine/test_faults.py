"""The disk fails at the n-th call, for every n: nothing is lost, and the next run makes the same bytes.

The invariant: if a run fails, the old output is there as it was, nothing new is under the final names, the exit code is
not 0, and the message names the cause. A clean run after it, or one that resumes, gives the bytes that it should.
"""

from __future__ import annotations

import gc
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import faults
import pytest
from checkpoints import NARROW, tiny_llama
from command_line import Run, listing
from faults import (
    BROKEN,
    CALLS,
    DISK_FULL,
    INTERRUPTED,
    Fault,
    Faults,
    exit_code_of,
    is_short,
    run_and_be_killed,
    stops_after,
    stops_before,
    without_direct_writes,
)

from gguf_forge.cli import main
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.output import beside

COMMANDS = {
    "convert": ("convert", "Tiny", "-t", "Q8_0"),
    "several": ("convert", "Tiny", "-o", "out-{ftype}.gguf", "-t", "Q8_0,Q4_0"),
    "split": ("convert", "Tiny", "-o", "out.gguf", "-t", "Q8_0", "--split-max-tensors", "7"),
    "quantize": ("quantize", "in.gguf", "out.gguf", "Q4_0"),
    "copy": ("split", "in.gguf", "out", "--split-max-tensors", "99"),
}
PARTS = ("split", "in.gguf", "out")
EDIT = ("edit", "m.gguf", "--set", "general.name=Another")
UNPACK = ("dequantize", "in.gguf", "--safetensors", "-o", "unpacked", "--threads", "1")
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
    """Where commands run."""
    for name in INPUTS:
        (tmp_path / name).symlink_to(made / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run is as the one before."""
    faults.in_turn(monkeypatch)


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


def each_fault(fault: Fault) -> Iterator[tuple[Faults, pytest.MonkeyPatch]]:
    """Faults at the first call, at the second, and so on, until a run does not come so far."""
    at = 0
    while True:
        at += 1
        with pytest.MonkeyPatch.context() as patch:
            met = Faults(patch, at, fault)
            yield met, patch
        if met.call is None:
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
    fault: Fault,
    name: str,
    options: str,
) -> None:
    if name == "copy":
        without_direct_writes(monkeypatch)
    expected = outputs(made / name)
    old = dict.fromkeys(expected, OLD) if "--overwrite" in options else {}
    command = (*COMMANDS[name], *options.split(), "--threads", "1", "--quiet")
    seen, failed = set(), 0
    for met, patch in each_fault(fault):
        clean(folder)
        for path, data in old.items():
            (folder / path).write_bytes(data)
        files = open_files()
        ran = forge(*command)
        patch.undo()
        if open_files() != files:
            gc.collect()  # errors hold what was being read
        assert open_files() == files, met.call
        if met.call is None:
            assert ran.code == 0
        seen.add(met.call)
        left = {path for path in listing(folder) if path not in (*INPUTS, *expected)}
        assert all(path.startswith(".gguf-forge-") for path in left), met.call
        assert outputs(folder) == (expected if ran.code == 0 else old), met.call
        if ran.code != 0:
            failed += 1
            assert ran.code in (4, 5), (met.call, ran.err)
            causes = ("No space left", "Input/output error", "Interrupted system call")
            assert any(cause in ran.err for cause in causes), (met.call, ran.err)
        again = forge(*command)
        assert again.code == 0 or (ran.code == 0 and again.code == 8), (met.call, again.err)
        assert outputs(folder) == expected, met.call
        if ran.code != 0 or "--overwrite" in options:
            assert set(listing(folder)) == {*INPUTS, *expected}, met.call
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


@pytest.mark.usefixtures("in_turn")
def test_every_call_is_met_somewhere(made: Path, folder: Path, forge: Callable[..., Run]) -> None:
    """The test above has seen all of the disk layer, or else it says too little."""
    seen: set[str] = set()
    runs = product(COMMANDS, ((), ("--overwrite",), ("--overwrite", "--resume")))
    for name, options in ((name, options) for name, options in runs if name != "copy" or "--resume" not in options):
        with pytest.MonkeyPatch.context() as patch:
            if name == "copy":
                without_direct_writes(patch)
            for call in CALLS:
                patch.setattr(disk, call, noting(seen, getattr(disk, call)))
            assert forge(*COMMANDS[name], *options).code == 0
        clean(folder)
        beside(folder / "out.gguf", "partial").write_bytes(b"what a killed run left")
    shutil.copy(made / "in.gguf", folder / "m.gguf")
    with pytest.MonkeyPatch.context() as patch:
        without_direct_writes(patch)
        for call in CALLS:
            patch.setattr(disk, call, noting(seen, getattr(disk, call)))
        assert [forge(*command).code for command in (EDIT, UNPACK)] == [0, 0]
    # the jobs of many machines meet it, in tests/distributed
    assert set(CALLS) - seen == {"remove_folder"}


def noting(seen: set[str], call: Callable[..., object]) -> Callable[..., object]:
    def noted(*arguments: object) -> object:
        seen.add(call.__name__)
        return call(*arguments)

    return noted


@pytest.mark.usefixtures("in_turn")
@pytest.mark.parametrize("fault", [BROKEN, stops_after(signal.SIGTERM)])
def test_a_private_file_that_is_changed_in_place(
    made: Path, folder: Path, forge: Callable[..., Run], fault: Fault
) -> None:
    """The old one or the new one, and nobody else could read either at any time."""
    path, old = folder / "m.gguf", (made / "in.gguf").read_bytes()
    seen = set()
    for met, patch in each_fault(fault):
        path.write_bytes(old)
        path.chmod(0o600)
        write = disk.pwrite

        def private(descriptor: int, data: memoryview, offset: int, write: Callable[..., int] = write) -> int:
            assert stat.S_IMODE(disk.status_of_open(descriptor).st_mode) == 0o600
            return write(descriptor, data, offset)

        patch.setattr(disk, "pwrite", private)
        ran = forge(*EDIT, "--quiet")
        patch.undo()
        seen.add(met.call)
        assert ran.code in ((0, 4, 5, 143) if met.call else (0,)), (met.call, ran.err)
        assert (path.read_bytes() == old) == (ran.code != 0) or ran.code == 143, met.call
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, met.call
        assert forge(*EDIT, "--quiet").code == 0, met.call
        assert b"Another" in path.read_bytes()[:10_000]
        assert all(name.startswith(".gguf-forge-") for name in set(listing(folder)) - {*INPUTS, "m.gguf"}), met.call
    assert seen > {"change_mode", "create", "pwrite", "rename", "sync"}


def test_a_read_only_file_that_is_changed_in_place_stays_one(
    made: Path, folder: Path, forge: Callable[..., Run]
) -> None:
    shutil.copy(made / "in.gguf", folder / "m.gguf")
    (folder / "m.gguf").chmod(0o440)
    assert forge(*EDIT).code == 0
    assert stat.S_IMODE((folder / "m.gguf").stat().st_mode) == 0o440


@pytest.mark.usefixtures("in_turn")
@pytest.mark.parametrize("fault", [BROKEN, stops_before(signal.SIGINT)])
def test_parts_go_when_what_is_made_of_them_is_there(
    made: Path, folder: Path, forge: Callable[..., Run], fault: Fault
) -> None:
    assert forge("split", "in.gguf", "part", "--split-max-tensors", "8").code == 0
    parts = {path.name: path.read_bytes() for path in folder.glob("part-*")}
    merge = ("merge", min(parts), "m.gguf", "--delete-splits", "--threads", "1", "--quiet")
    assert forge(*merge).code == 0
    expected = (folder / "m.gguf").read_bytes()
    failed = set()
    for met, patch in each_fault(fault):
        clean(folder)
        for name, data in parts.items():
            (folder / name).write_bytes(data)
        ran = forge(*merge)
        patch.undo()
        left = {path.name: path.read_bytes() for path in folder.glob("part-*")}
        is_made = (folder / "m.gguf").exists()
        assert left == parts if not is_made else left.items() <= parts.items(), met.call
        assert ran.code != 0 or not left, met.call  # a signal may come when all parts are gone
        if ran.code:
            failed.add(met.call)
        assert is_made or forge(*merge).code == 0, met.call
        assert (folder / "m.gguf").read_bytes() == expected, met.call
    assert failed > {"pwrite", "unlink", "sync"}


@pytest.mark.usefixtures("in_turn")
@pytest.mark.parametrize("fault", [DISK_FULL, stops_before(signal.SIGTERM)])
def test_a_folder_is_made_with_all_that_goes_into_it(
    made: Path, folder: Path, forge: Callable[..., Run], fault: Fault
) -> None:
    assert forge(*UNPACK).code == 0
    unpacked, failed = folder / "unpacked", set()
    expected = (unpacked / "model.safetensors").read_bytes()
    for met, patch in each_fault(fault):
        shutil.rmtree(unpacked, ignore_errors=True)
        ran = forge(*UNPACK, "--quiet")
        patch.undo()
        if ran.code:
            failed.add(met.call)
            is_made = (unpacked / "model.safetensors").exists()  # a signal may come too late
            assert is_made or forge(*UNPACK, "--quiet").code == 0, met.call
        assert (unpacked / "model.safetensors").read_bytes() == expected, met.call
    assert failed > {"create", "make_folder", "pwrite", "sync"}


@pytest.mark.usefixtures("in_turn")
@pytest.mark.parametrize(("command", "reads"), [(COMMANDS["quantize"], "pread"), (PARTS, "copy_range")])
def test_short_reads_and_writes_are_continued(
    folder: Path, forge: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], reads: str
) -> None:
    if command == PARTS:
        without_direct_writes(monkeypatch)
    assert forge(*command, "--quiet").code == 0
    expected = outputs(folder)
    seen = set()
    for met, _ in each_fault(is_short):
        assert forge(*command, "--overwrite", "--threads", "1", "--quiet").code == 0
        assert outputs(folder) == expected, met.call
        seen.add(met.call)
    assert seen > {reads, "pwrite"}


@pytest.mark.usefixtures("in_turn")
@pytest.mark.parametrize(
    ("fault", "code", "name", "options"),
    [
        (stops_before(signal.SIGTERM), 143, "convert", ""),
        (stops_after(signal.SIGINT), 130, "quantize", "--overwrite"),
        (stops_before(signal.SIGINT), 130, "split", "--overwrite --resume"),
        (stops_after(signal.SIGTERM), 143, "several", "--overwrite"),
    ],
)
def test_nothing_is_lost_when_a_signal_comes_at_any_call(
    made: Path, folder: Path, forge: Callable[..., Run], fault: Fault, code: int, name: str, options: str
) -> None:
    expected = outputs(made / name)
    old = dict.fromkeys(expected, OLD) if "--overwrite" in options else {}
    command = (*COMMANDS[name], *options.split(), "--threads", "1", "--quiet")
    stopped = 0
    for met, patch in each_fault(fault):
        clean(folder)
        for path, data in old.items():
            (folder / path).write_bytes(data)
        ran = forge(*command)
        patch.undo()
        assert ran.code == (0 if met.call is None else code), (met.call, ran.err)
        # once all have their names, a signal is too late
        found = outputs(folder)
        assert found == expected or (found == old and met.call is not None), met.call
        if found == old:
            stopped += 1
            assert "error: stopped" in ran.err
            left = set(listing(folder)) - {*INPUTS, *old}
            assert not left or "--resume" in options, (met.call, left)
        again = forge(*command)
        assert again.code == 0 or (found == expected and again.code == 8), (met.call, again.err)
        assert outputs(folder) == expected, met.call
        if again.code == 0:
            assert set(listing(folder)) == {*INPUTS, *expected}, met.call
    assert stopped > 20


@pytest.mark.usefixtures("in_turn")
@pytest.mark.parametrize(("name", "options"), [("convert", ""), ("split", "--overwrite"), ("quantize", "--resume")])
def test_nothing_is_lost_when_the_process_is_killed_at_any_call(
    made: Path, folder: Path, forge: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, name: str, options: str
) -> None:
    expected = outputs(made / name)
    old = dict.fromkeys(expected, OLD) if "--overwrite" in options else {}
    command = (*COMMANDS[name], *options.split(), "--threads", "1")
    at, resumed = 0, set()
    while True:
        at += 1
        clean(folder)
        for path, data in old.items():
            (folder / path).write_bytes(data)
        code = exit_code_of(monkeypatch, run_and_be_killed, str(folder), (*command, "--quiet"), at)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        found = outputs(folder)
        # several names cannot change at once: a kill in between leaves old and new files, but complete ones
        assert all(data in (expected[path], old.get(path)) for path, data in found.items())
        assert set(old) <= set(found)
        assert all(path.startswith(".gguf-forge-") for path in set(listing(folder)) - {*INPUTS, *expected})

        copy = folder.parent / f"{folder.name}-{at}"
        shutil.copytree(folder, copy, symlinks=True)
        for where, how in ((folder, "--resume"), (copy, "--overwrite")):
            monkeypatch.chdir(where)
            ran = forge(*command, how, "--json")
            assert ran.code == 0, (at, how, ran.err)
            assert outputs(where) == expected, (at, how)
            assert set(listing(where)) == {*INPUTS, *expected}, (at, how)
            resumed.add((how, ran.json["files"][0]["resumed_tensors"] > 0))
        monkeypatch.chdir(folder)
        shutil.rmtree(copy)
    assert at > 40
    assert resumed >= {("--resume", False), ("--resume", True), ("--overwrite", False)}
