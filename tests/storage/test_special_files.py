"""Only regular files are read, and only up to the limit of their kind, whatever a folder or an option names."""

from __future__ import annotations

import ast
import os
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import gguf_forge
from gguf_forge.errors import InputError
from gguf_forge.storage.limits import FILE_LIMITS, limit_of
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.storage.local.source_file import SourceFile


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def terminal(path: Path) -> None:
    path.symlink_to("/dev/tty")


def unix_socket(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        here = Path.cwd()
        os.chdir(path.parent)  # The address of a socket has at most 108 bytes.
        try:
            bound.bind(path.name)
        finally:
            os.chdir(here)


SPECIAL = (pipe, device, terminal, unix_socket)
special = pytest.mark.parametrize("make", SPECIAL)


@special
@pytest.mark.parametrize("linked", [False, True])
def test_special_files_are_refused_without_opening_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], linked: bool
) -> None:
    make(tmp_path / ("target" if linked else "config.json"))
    if linked:
        (tmp_path / "config.json").symlink_to("target")

    def opened(path: Path) -> int:
        raise AssertionError("opening a device may already do something")

    monkeypatch.setattr(disk, "open_read", opened)
    with pytest.raises(InputError, match=r"config\.json: not a regular file"):
        LocalFolder(tmp_path).read_small("config.json")
    with pytest.raises(InputError, match=r"config\.json: not a regular file"):
        LocalFolder(tmp_path).open("config.json")


@pytest.mark.parametrize("make", [pipe, device])
def test_a_special_file_that_takes_the_name_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    """Opening does not wait for the writer of a pipe, and what was opened is looked at once more."""
    path = tmp_path / "config.json"
    path.write_text("{}")
    look = disk.status

    def swapped(at: Path) -> os.stat_result:
        found = look(at)
        at.unlink()
        make(at)
        return found

    monkeypatch.setattr(disk, "status", swapped)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(InputError, match="not a regular file"):
        SourceFile(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_links_to_regular_files_are_followed(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("{}")
    (tmp_path / "config.json").symlink_to("blob")
    assert LocalFolder(tmp_path).read_small("config.json") == b"{}"


def test_files_that_are_missing_or_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the file is missing"):
        LocalFolder(tmp_path).read_small("config.json")
    with pytest.raises(InputError, match="this is a folder, not a file"):
        LocalFolder(tmp_path.parent).read_small(tmp_path.name)


@pytest.mark.parametrize("limit", FILE_LIMITS, ids=lambda limit: limit.kind)
def test_a_file_beyond_the_limit_of_its_kind_is_not_read(tmp_path: Path, limit: object) -> None:
    name = limit.names[0].replace("*", "x")  # type: ignore[attr-defined]
    path = tmp_path / name
    path.touch()
    os.truncate(path, limit_of(name))
    assert len(LocalFolder(tmp_path).read_small(name)) == limit_of(name)
    os.truncate(path, limit_of(name) + 1)
    with pytest.raises(InputError, match="larger than"):
        LocalFolder(tmp_path).read_small(name)


def test_the_limits_are_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "SECURITY.md").read_text(encoding="utf-8")
    for limit in FILE_LIMITS:
        assert f"| {limit.kind} | {limit.nbytes >> 20} MiB | {limit.largest} |" in page


def test_files_are_opened_in_one_place_only() -> None:
    """What a user or a model names goes through `storage`. The others read what the package or the system has."""
    package = Path(gguf_forge.__file__).parent
    names = {"read_bytes", "read_text", "open"}
    opening = {
        f"{file.relative_to(package).as_posix()}: {ast.unparse(call)}"
        for file in package.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and (
            (isinstance(call.func, ast.Attribute) and call.func.attr in {"read_bytes", "read_text"})
            or (isinstance(call.func, ast.Name) and call.func.id in names)
            or ast.unparse(call.func) in ("os.open", "path.open", "Path.open")
        )
    }
    ours = ("storage/local/disk.py", "foreign/child.py", "cli/info.py", "kernels/bench.py", "cli/demo_checkpoint.py")
    rest = {
        text for text in opening if not text.startswith(ours) and "files(" not in text and "read_text(*" not in text
    }
    assert {text.partition(":")[0] for text in rest} == {
        "cli/streams.py",
        "storage/memory.py",
        "storage/local/own_folder.py",
    }
