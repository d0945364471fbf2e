"""What the tasks made gets its names when it is right, and when it has them nothing is done again."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from command_line import listing
from jobs import PROGRAM, Q4, done, no_links, stopped_in_the_middle
from quantized import digests

from gguf_forge import InputError, RefusedError, convert, finish, plan_work, work
from gguf_forge.distributed.job import open_job
from gguf_forge.storage.local import disk


def test_missing_tasks_are_named(here: Path) -> None:
    plan_work(Q4, tasks=9)
    for task in (0, 4, 6):
        work("plan.json", task)
    with pytest.raises(InputError, match=r"plan\.json: 6 of 9 tasks are not done: tasks 1-3, 5, 7-8; do each of them"):
        finish("plan.json")
    parts = open_job("plan.json").folder
    (parts / "task-4.sha256").write_text("nonsense\n")
    (parts / "task-6-0.part").unlink()
    with pytest.raises(InputError, match="8 of 9 tasks are not done: tasks 1-8"):
        finish("plan.json")
    work("plan.json", 4)
    with pytest.raises(InputError, match="not done: tasks 1-3, 5-8"):
        finish("plan.json")


@pytest.mark.parametrize("how", ["changed", "shorter", "longer"])
def test_damaged_parts_are_named_and_made_anew(here: Path, how: str) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    done(here)
    part = open_job("plan.json").parts(1)[0].path
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes({"changed": data, "shorter": data[:-1], "longer": data + b"x"}[how])
    with pytest.raises(InputError, match="1 of 3 tasks is damaged: task 1; do each of them"):
        finish("plan.json")
    assert list((here / "out").glob("*.gguf")) == []
    assert not work("plan.json", 1).was_done
    finish("plan.json")
    assert digests(here / "out") == digests(here / "whole")


def test_existing_files_are_not_replaced_unless_asked(here: Path) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    done(here)
    (here / "out" / "m.gguf").write_bytes(b"old")
    with pytest.raises(RefusedError, match=r"out/m\.gguf: already exists"):
        finish("plan.json")
    assert (here / "out" / "m.gguf").read_bytes() == b"old"
    finish("plan.json", overwrite=True)
    assert digests(here / "out") == digests(here / "whole")


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.parametrize("tasks", [1, 3])
def test_what_is_finished_is_only_checked(here: Path, tasks: int) -> None:
    assert not finish(done(here, tasks)).was_finished
    before = state(here / "out")
    shutil.rmtree(here / "Tiny")  # it is not needed any more
    for task in range(tasks):
        result = work("plan.json", task)
        assert result.was_done
        assert result.is_finished
        assert result.parts == (Path("out") / "m.gguf",)
    assert finish("plan.json").was_finished
    assert state(here / "out") == before


@pytest.mark.parametrize("change", ["gone", "changed", "longer"])
def test_finished_files_that_are_not_as_they_were(here: Path, caplog: pytest.LogCaptureFixture, change: str) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    finish(done(here, 3))
    out = here / "out" / "m.gguf"
    data = bytearray(out.read_bytes())
    data[-10] ^= 1
    out.unlink()
    if change != "gone":
        out.write_bytes(data if change == "changed" else data + b"x")
    with pytest.raises(
        InputError, match=r"3 of 3 tasks are not done: tasks 0-2; (do each|out/m\.gguf exists, but nothing tells)"
    ):
        finish("plan.json")
    # with the last task there are the bytes that changed; the others are right in the output, if that has its size
    assert [work("plan.json", task).was_done for task in range(3)] == [change == "changed"] * 2 + [False]
    assert "plan.json: was finished, but its files are not as they were then: the task is done again" in caplog.text
    if change == "changed":
        with pytest.raises(InputError, match="2 of 3 tasks are not done: tasks 0-1"):
            finish("plan.json")
        out.unlink()
        for task in range(2):
            assert not work("plan.json", task).was_done
    finish("plan.json", overwrite=True)
    assert digests(here / "out") == digests(here / "whole")


def test_a_task_that_is_done_again_while_the_plan_is_finished(here: Path) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    done(here, 2)
    (open_job("plan.json").folder / "task-0.sha256").unlink()
    late, _ = stopped_in_the_middle(here, 0)
    work("plan.json", 0)
    finish("plan.json")
    (here / "wait").unlink()
    assert late.wait() == 0
    assert digests(here / "out") == digests(here / "whole")
    assert work("plan.json", 0).is_finished


def test_a_plan_is_finished_by_one_process_at_a_time(here: Path) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    done(here)
    job = open_job("plan.json")
    with job.lock.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RefusedError, match=r"plan\.json: another process is finishing this plan; wait for it"):
            finish("plan.json")
        assert listing(here / "out") == [job.folder.name]
    finish("plan.json")
    assert digests(here / "out") == digests(here / "whole")


def test_two_processes_that_finish(here: Path) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    done(here)
    both = [subprocess.Popen([*PROGRAM, "finish", "plan.json", "-q"]) for _ in range(2)]
    assert {process.wait() for process in both} <= {0, 8}
    assert digests(here / "out") == digests(here / "whole")
    assert finish("plan.json").was_finished


def test_a_plan_in_a_folder_that_is_not_writable(
    here: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    done(here)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != Path() and access(path, mode))
    finish("plan.json")
    assert digests(here / "out") == digests(here / "whole")
    assert "the folder is not writable, so nothing will tell that the plan is finished" in caplog.text
    with pytest.raises(InputError, match=r"not done: tasks 0-2; out/m\.gguf exists, but nothing tells that it is what"):
        finish("plan.json")


@pytest.mark.parametrize("tasks", [1, 3])
def test_without_hard_links(here: Path, monkeypatch: pytest.MonkeyPatch, tasks: int) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    done(here, tasks)
    monkeypatch.setattr(disk, "link", no_links)
    finish("plan.json")
    assert digests(here / "out") == digests(here / "whole")


def test_it_takes_no_room_twice(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before the joined file has its name, it joins it again in the room of the first one."""
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    done(here)
    job = open_job("plan.json")
    size = job.plan.outputs[0].size
    with monkeypatch.context() as patch:
        patch.setattr("gguf_forge.distributed.finish._take_name", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finish("plan.json")
    assert job.whole(0).stat().st_size == size

    def usage(folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=size + size // 2 - (size if job.whole(0).exists() else 0))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    finish("plan.json")
    assert digests(here / "out") == digests(here / "whole")


def test_a_part_that_is_made_again_while_its_output_has_its_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    done(here, 1)
    job = open_job("plan.json")
    with monkeypatch.context() as patch:
        patch.setattr("gguf_forge.distributed.finish._write_down", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finish("plan.json")
    again = job.whole(0).with_name("again")
    again.write_bytes(job.whole(0).read_bytes())
    again.rename(job.whole(0))
    finish("plan.json")
    assert digests(here / "out") == digests(here / "whole")


def test_what_others_put_among_the_parts_stays(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    done(here)
    job = open_job("plan.json")
    for name in ("notes.txt", "task-notes.txt"):
        (job.folder / name).write_text("mine")
    finish("plan.json")
    assert listing(job.folder) == ["notes.txt", "task-notes.txt"]
    assert f"{job.folder}: is left" in caplog.text
    (here / "out" / "m.gguf").unlink()
    with pytest.raises(InputError, match="3 of 3 tasks are not done"):
        finish("plan.json")


@pytest.mark.parametrize("target", ["victim", "../victim", "out/../../victim"])
def test_a_plan_of_a_stranger_writes_no_other_file(here: Path, target: str) -> None:
    """A plan with parts and records of its own: `finish` plans the request again, which comes to other outputs."""
    plan_work(Q4, tasks=1)
    value = json.loads(Path("plan.json").read_text())
    evil = b"export EVIL=1\n"
    value["outputs"] = [{"path": target, "size": len(evil), "sha256": "0" * 64}]
    value["tasks"] = [[[0, 0, len(evil)]]]
    Path("plan.json").write_text(json.dumps(value))
    job = open_job("plan.json")
    job.folder.mkdir()
    (job.folder / "task-0-0.part").write_bytes(evil)
    job.record(0).write_text(f"{sha256(evil).hexdigest()}  task-0-0.part\n")
    with pytest.raises(InputError, match="inputs or options changed since the plan was made"):
        finish("plan.json", overwrite=True)
    assert not Path(target).exists()


def test_a_part_of_a_stranger_must_begin_with_the_header(here: Path) -> None:
    plan_work(Q4, tasks=1)
    work("plan.json", 0)
    job = open_job("plan.json")
    (part,) = job.parts(0)
    evil = bytes(part.size)
    part.path.write_bytes(evil)
    job.record(0).write_text(f"{sha256(evil).hexdigest()}  {part.path.name}\n")
    with pytest.raises(InputError, match="1 of 1 tasks is damaged"):
        finish("plan.json")
    assert not job.outputs[0].exists()
