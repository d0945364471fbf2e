"""What happens to a run from outside: sources that change, disks that are full, limits that are low, broken threads."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import NARROW, tiny_llama
from command_line import listing
from faults import exit_code_of, run_with_a_limit

from gguf_forge import convert, quantize_gguf
from gguf_forge.checkpoint.safetensors_file import read_safetensors_header
from gguf_forge.cli import main
from gguf_forge.engine import forge as engine
from gguf_forge.errors import InputError, OutputError, UsageError
from gguf_forge.storage.local import disk, journal, output, publish
from gguf_forge.storage.local.source_file import SourceFile

OLD = b"the old output"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    convert(tiny_llama(tmp_path, NARROW), tmp_path / "in.gguf", types="F16")
    return tmp_path / "in.gguf"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "out.gguf"
    path.write_bytes(OLD)
    return path


def quantize(source: Path, out: Path, **how: Any) -> bytes:
    (result,) = quantize_gguf(source, out, types="Q4_0", overwrite=True, **how)
    return result.path.read_bytes()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-64, os.SEEK_END)
        file.write(bytes(64))


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


def vanish(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def at_read(patch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Does something just before the n-th time that weights are read."""
    read, left = SourceFile.read, iter(range(number - 1, -1, -1))

    def reading(self: SourceFile, *where: Any, **how: Any) -> Any:
        is_header = threading.current_thread() is threading.main_thread()
        if not is_header and next(left, None) == 0:
            act()
        return read(self, *where, **how)

    patch.setattr(SourceFile, "read", reading)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (truncate, "became shorter while it was read"),
        (rewrite, "changed while it was read"),
        (replace, "changed while it was read"),
        (touch, "changed while it was read"),
        (vanish, "vanished while it was read"),
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_source_that_changes_while_it_is_read(
    source: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    problem: str,
    resume: bool,
) -> None:
    monkeypatch.setattr(journal, "BATCH_BYTES", 1)
    intact = source.read_bytes()
    with monkeypatch.context() as patch:
        at_read(patch, 8, lambda: change(source))
        with pytest.raises(InputError, match=rf"in\.gguf: the file {problem}"):
            quantize(source, out, resume=resume, threads=1)
    assert out.read_bytes() == OLD
    assert resume or listing(out.parent) == ["out.gguf"]
    # what was read of the other source is not gone on with
    source.write_bytes(intact[:-64] + bytes(64))
    resumed = quantize(source, out, resume=resume)
    assert listing(out.parent) == ["out.gguf"]
    assert resumed == quantize(source, out)


def test_a_header_that_vanishes_while_it_is_read(source: Path) -> None:
    """Through a map, that would end the process."""
    weights = source.parent / "Tiny" / "model.safetensors"
    with SourceFile(weights) as file:
        os.truncate(weights, 0)
        with pytest.raises(InputError, match="became shorter while it was read"):
            read_safetensors_header(file)


@pytest.mark.parametrize("error", [ValueError("a bug"), MemoryError(), InputError("broken")])
@pytest.mark.parametrize("threads", [1, 3])
def test_an_exception_in_one_thread(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, threads: int
) -> None:
    pack, left = engine.pack, iter(range(3, -1, -1))

    def failing(*arguments: Any, **options: Any) -> Any:
        if next(left, None) == 0:
            raise error
        return pack(*arguments, **options)

    monkeypatch.setattr(engine, "pack", failing)
    with pytest.raises(type(error)):
        quantize(source, out, threads=threads)
    assert out.read_bytes() == OLD
    assert listing(out.parent) == ["out.gguf"]


def test_no_memory_is_said(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    def hungry(*arguments: Any, **options: Any) -> Any:
        return np.empty(1 << 60, np.uint8)

    monkeypatch.setattr(engine, "pack", hungry)
    assert main(["quantize", str(source), str(out), "Q4_0", "--overwrite"]) == 1
    assert "error: the system gave no more memory\nhint: close other programs, or" in capfd.readouterr().err
    assert out.read_bytes() == OLD
    assert listing(out.parent) == ["out.gguf"]


def test_threads_that_cannot_be_started(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submit, left = ThreadPoolExecutor.submit, iter([True])

    def limited(self: Any, work: Any, *arguments: Any) -> Any:
        if next(left, False):
            return submit(self, work, *arguments)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", limited)
    with pytest.raises(UsageError, match="threads cannot be started: can't start new thread; give a smaller number"):
        quantize(source, out, threads=4)
    assert out.read_bytes() == OLD
    assert listing(out.parent) == ["out.gguf"]


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 128 KiB, of which nobody says beforehand that it is too small."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    monkeypatch.setattr("gguf_forge.planning.file_plan.check_room", lambda *arguments: None)
    monkeypatch.setattr(publish, "check_room", lambda *arguments: None)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
@pytest.mark.parametrize("can_reserve", [True, False])
@pytest.mark.parametrize("resume", [True, False])
def test_a_disk_that_is_full(
    source: Path, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_reserve: bool, resume: bool
) -> None:
    out = small_disk / "out.gguf"
    out.write_bytes(OLD)
    reads: list[int] = []
    at_read(monkeypatch, 1, lambda: reads.append(1))
    with monkeypatch.context() as patch:
        if not can_reserve:
            patch.setattr(output.disk, "allocate", lambda *arguments: disk.truncate(*arguments))
        with pytest.raises(OutputError, match=r"out\.gguf: No space left on device; free some room") as caught:
            quantize(source, out, resume=resume)
    assert caught.value.exit_code == 5
    # where room can be reserved, no time is lost
    assert bool(reads) != can_reserve
    assert out.read_bytes() == OLD
    assert resume or listing(small_disk) == ["out.gguf"]
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert quantize(source, out, resume=resume) == quantize(source, tmp_path / "elsewhere.gguf")
    assert listing(small_disk) == ["out.gguf"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_a_limit_on_open_files(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (
        "convert",
        str(source.parent / "Tiny"),
        "-o",
        "out.gguf",
        "-t",
        "Q4_0",
        "--split-max-tensors",
        "4",
        "--overwrite",
        "--quiet",
    )
    codes = []
    for more in range(-3, 12):
        codes.append(
            exit_code_of(monkeypatch, run_with_a_limit, str(out.parent), command, resource.RLIMIT_NOFILE, more)
        )
        if codes[-1] == 0:
            break
        assert codes[-1] in (4, 5)
        said = (out.parent / "said").read_text()
        assert "Too many open files" in said
        assert listing(out.parent) == ["out.gguf", "said"]
    assert {4, 5, 0} == set(codes)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the size of a process in /proc")
def test_a_limit_on_memory(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("quantize", str(source), str(out), "Q4_0", "--overwrite", "--quiet")
    for more in (0, 1 << 16, 1 << 20):
        code = exit_code_of(monkeypatch, run_with_a_limit, str(out.parent), command, resource.RLIMIT_AS, more)
        assert code in (1, 2, 4, 5)
        said = (out.parent / "said").read_text()
        assert any(cause in said for cause in ("memory", "address space", "threads cannot be started")), said
        assert "Traceback" not in said
        assert out.read_bytes() == OLD
        assert listing(out.parent) == ["out.gguf", "said"]


# Each task waits until the file that it is told of is gone.
WAITING = """
import sys, time
from pathlib import Path
import gguf_forge.engine.forge as forge
pack, wait = forge.pack, Path(sys.argv.pop())
def waiting(*arguments, **options):
    while wait.exists():
        time.sleep(0.01)
    return pack(*arguments, **options)
forge.pack = waiting
from gguf_forge.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_two_processes_and_one_output(source: Path, out: Path, capfd: Any) -> None:
    wait = source.parent / "wait"
    wait.touch()
    command = ["quantize", str(source), str(out), "Q4_0", "--overwrite"]
    first = subprocess.Popen([sys.executable, "-c", WAITING, *command, str(wait)], cwd=source.parent)
    while len(listing(out.parent)) < 2 and first.poll() is None:
        pass
    assert main(command) == 8
    assert "out.gguf: another run is writing this file\nhint: wait for it" in capfd.readouterr().err
    wait.unlink()
    assert first.wait() == 0
    assert listing(out.parent) == ["out.gguf"]
    assert out.read_bytes() == quantize(source, source.parent / "elsewhere.gguf")


def test_a_killed_process_loses_its_lock(source: Path, out: Path) -> None:
    wait = source.parent / "wait"
    wait.touch()
    command = ["quantize", str(source), str(out), "Q4_0", "--overwrite"]
    first = subprocess.Popen([sys.executable, "-c", WAITING, *command, str(wait)], cwd=source.parent)
    while len(listing(out.parent)) < 2 and first.poll() is None:
        pass
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert out.read_bytes() == OLD
    assert len(listing(out.parent)) == 2
    assert main(command) == 0
    assert listing(out.parent) == ["out.gguf"]
