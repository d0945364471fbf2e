"""Somebody swaps the folder of outputs, or a name in it, between two steps of a run: nothing outside changes.

The run holds the folder open. So a swap at any later call of the disk layer leads no writing, renaming or removing to
another folder. Each test swaps before the first such call, before the second, and so on, until a run has fewer calls.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import faults
import pytest
from checkpoints import tiny_gguf
from faults import CALLS

from gguf_forge import (
    Request,
    convert,
    dequantize_gguf,
    edit_gguf,
    finish,
    merge_gguf,
    plan_work,
    quantize_gguf,
    report,
    split_gguf,
    work,
)
from gguf_forge.errors import ForgeError, OutputError
from gguf_forge.storage.local import disk
from gguf_forge.storage.local.disk import Name
from gguf_forge.storage.local.held_folder import HeldFolder, made_folder
from gguf_forge.storage.local.publish import published
from gguf_forge.toolbox.verify.checksums import write_sums

OUT = Path("out")
AWAY = Path("away")
PRECIOUS = Path("precious")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a GGUF file `in.gguf` and a folder for outputs."""
    monkeypatch.chdir(tmp_path)
    tiny_gguf(tmp_path).rename("in.gguf")
    OUT.mkdir()
    faults.in_turn(monkeypatch)
    return tmp_path


def nothing() -> None:
    pass


def old_output() -> None:
    (OUT / "m.gguf").write_bytes(b"old")


def a_copy() -> None:
    shutil.copy("in.gguf", OUT / "m.gguf")


def parts() -> None:
    split_gguf("in.gguf", OUT / "m", max_tensors=7, threads=1)


def a_plan() -> None:
    plan_work(Request(source="Tiny", out="out/m.gguf", types=("Q8_0",)), "plan.json", tasks=2, overwrite=True)


def done_tasks() -> None:
    a_plan()
    for task in range(2):
        work("plan.json", task, threads=1)


def a_plan_elsewhere() -> None:
    """The plan lies in the folder that is swapped, and the outputs in another one."""
    Path("made").mkdir(exist_ok=True)
    plan_work(Request(source="Tiny", out="made/m.gguf", types=("Q8_0",)), OUT / "plan.json", tasks=1, overwrite=True)
    work(OUT / "plan.json", 0, threads=1)
    shutil.copytree("made", "parts", dirs_exist_ok=True)


def finishing_elsewhere() -> None:
    shutil.rmtree("made")
    shutil.copytree("parts", "made")
    finish(OUT / "plan.json", threads=1)


def quantizing(**how: bool) -> None:
    quantize_gguf("in.gguf", OUT / "m.gguf", types="Q8_0", threads=1, **how)


RUNS: dict[str, tuple[Callable[[], None], Callable[[], object]]] = {
    "quantize": (nothing, quantizing),
    "quantize, replacing": (old_output, lambda: quantizing(overwrite=True)),
    "quantize, resuming": (nothing, lambda: quantizing(resume=True)),
    "convert": (nothing, lambda: convert("Tiny", OUT / "m-{ftype}.gguf", types=["Q8_0", "Q4_0"], threads=1)),
    "split": (nothing, lambda: split_gguf("in.gguf", OUT / "m", max_tensors=7, threads=1)),
    "merge": (parts, lambda: merge_gguf(min(OUT.glob("m-*")), "m.gguf", delete_splits=True, overwrite=True, threads=1)),
    "edit": (a_copy, lambda: edit_gguf(OUT / "m.gguf", set={"general.name": "Another"})),
    "dequantize": (nothing, lambda: dequantize_gguf("in.gguf", OUT / "new", safetensors=True, threads=1)),
    "report": (nothing, lambda: report("in.gguf", OUT / "page.html", threads=1)),
    "verify --write-sums": (nothing, lambda: write_sums("in.gguf", OUT / "sums")),
    "job plan": (nothing, lambda: plan_work(Request(source="Tiny", types=("Q8_0",)), OUT / "plan.json", tasks=2)),
    "job work": (a_plan, lambda: work("plan.json", 0, threads=1)),
    "job finish": (done_tasks, lambda: finish("plan.json", threads=1)),
    "job finish, its record": (a_plan_elsewhere, finishing_elsewhere),
}
# The calls that change something, or are the last ones before something is changed.
CHANGES = ("create", "link", "make_folder", "open_own", "open_subfolder", "remove_folder", "rename", "unlink")


class Attack:
    """Does something before the n-th call that changes something, counted from when `OUT` is held open.

    Attributes:
        is_done: Whether the run came to that call.
        names: The paths that the calls have named.
    """

    def __init__(self, patch: pytest.MonkeyPatch, at: int, attack: Callable[[Path], None]):
        self.is_done = False
        self.names: list[Path] = []
        self._left = at
        self._is_open = False
        self._attack = attack
        for name in CALLS:
            patch.setattr(disk, name, self._watching(getattr(disk, name)))

    def _watching(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def watched(*arguments: Any) -> Any:
            named = [at.path if isinstance(at, Name) else at for at in arguments if isinstance(at, Name | Path)]
            self.names += named
            if self._is_open and call.__name__ in CHANGES:
                self._left -= 1
                if self._left == 0:
                    self.is_done = True
                    self._attack(named[0])
            found = call(*arguments)
            self._is_open |= call.__name__ == "open_folder" and named == [OUT]
            return found

        return watched


def each_attack(attack: Callable[[Path], None], prepare: Callable[[], None]) -> Iterator[Attack]:
    shutil.rmtree(OUT)
    OUT.mkdir()
    prepare()
    shutil.copytree(OUT, "prepared")
    at = 0
    while True:
        at += 1
        for left in (OUT, AWAY):
            if left.is_symlink():
                left.unlink()
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree("prepared", OUT)
        with pytest.MonkeyPatch.context() as patch:
            met = Attack(patch, at, attack)
            yield met
        if not met.is_done:
            return


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def names_of_a_run(prepare: Callable[[], None], run: Callable[[], object]) -> list[Path]:
    """The paths in `OUT` that a run names."""
    prepare()
    with pytest.MonkeyPatch.context() as patch:
        met = Attack(patch, 0, lambda path: None)
        run()
    return sorted({path.relative_to(OUT) for path in met.names if OUT in path.parents and ".." not in path.parts})


def swap_the_folder(path: Path) -> None:
    """The folder moves away, and its path leads to another one."""
    OUT.rename(AWAY)
    OUT.symlink_to(PRECIOUS)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", RUNS)
def test_a_folder_that_is_swapped_at_any_call(name: str) -> None:
    prepare, run = RUNS[name]
    names = names_of_a_run(prepare, run)
    PRECIOUS.mkdir()
    for each in names:
        if any(each in other.parents for other in names):
            (PRECIOUS / each).mkdir(parents=True)
        else:
            (PRECIOUS / each).parent.mkdir(parents=True, exist_ok=True)
            (PRECIOUS / each).write_bytes(b"precious")
    before, refused = tree(PRECIOUS), 0
    for met in each_attack(swap_the_folder, prepare):
        try:
            run()
        except ForgeError:
            assert met.is_done
            refused += 1
        assert tree(PRECIOUS) == before
    assert refused


def swap_a_name(path: Path) -> None:
    """The name that the call is about leads to another file."""
    if OUT in path.parents:
        path.unlink(missing_ok=True)
        path.symlink_to(PRECIOUS.resolve() / "file")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["quantize, replacing", "quantize, resuming", "convert", "edit", "report"])
def test_a_name_that_is_swapped_at_any_call(name: str) -> None:
    prepare, run = RUNS[name]
    PRECIOUS.mkdir()
    (PRECIOUS / "file").write_bytes(b"precious")
    refused = 0
    for met in each_attack(swap_a_name, prepare):
        try:
            run()
        except ForgeError:
            assert met.is_done
            refused += 1
        assert tree(PRECIOUS) == {"precious/file": b"precious"}
    assert refused


def test_a_run_says_that_its_folder_was_swapped(here: Path) -> None:
    PRECIOUS.mkdir()
    problem = "^out: the folder was moved or replaced while the file was written; run again, and let nobody"
    with pytest.raises(OutputError, match=problem), published(OUT / "m.gguf", 8, overwrite=True):
        swap_the_folder(OUT)
    assert tree(PRECIOUS) == tree(AWAY) == {}


def test_a_folder_that_was_made_is_removed_where_it_was_made(here: Path) -> None:
    (PRECIOUS / "new").mkdir(parents=True)
    with pytest.raises(ValueError), made_folder(OUT / "new" / "newer"):
        swap_the_folder(OUT)
        raise ValueError
    assert tree(PRECIOUS) == {"precious/new": None}
    assert tree(AWAY) == {}


def test_a_link_under_the_name_of_a_folder_of_our_own_is_not_followed(here: Path) -> None:
    PRECIOUS.mkdir()
    with HeldFolder(OUT) as folder:
        (OUT / "ours").symlink_to(PRECIOUS.resolve())
        with pytest.raises(OSError):
            folder.subfolder("ours")


@pytest.mark.parametrize("name", ["", ".", "..", "../precious", "a/b"])
def test_what_leads_out_of_a_folder_is_no_name_in_it(here: Path, name: str) -> None:
    with HeldFolder(OUT) as folder, pytest.raises(ValueError, match="is not a name in a folder"):
        folder / name


@pytest.mark.parametrize("name", ["quantize, replacing", "convert", "edit", "dequantize", "job finish"])
def test_a_system_without_handles_reaches_names_by_their_paths(
    here: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, run = RUNS[name]
    prepare()
    run()
    expected = tree(OUT)
    shutil.rmtree(OUT)
    OUT.mkdir()
    monkeypatch.setattr(disk, "HAS_HANDLES", False)
    prepare()
    run()
    assert tree(OUT) == expected
