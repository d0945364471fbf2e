"""A task is done once or twice, and what runs leave goes."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from command_line import listing
from jobs import Q4, stopped_in_the_middle
from quantized import digests

from gguf_forge import OutputError, UsageError, convert, finish, plan_work, work
from gguf_forge.storage.local import disk


def test_what_is_done_is_only_checked(here: Path) -> None:
    plan_work(Q4, tasks=2)
    assert [work("plan.json", 0).was_done for _ in range(2)] == [False, True]


@pytest.mark.parametrize("task", [3, -1])
def test_tasks_that_are_not_there(here: Path, task: int) -> None:
    plan_work(Q4, tasks=3)
    with pytest.raises(UsageError, match=rf"there is no task {task}; the tasks of this plan are 0 to 2"):
        work("plan.json", task)


def test_no_room_for_the_parts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_work(Q4, tasks=2)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OutputError, match="the disk has 0 free"):
        work("plan.json", 0)


def long_ago(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (0, 0))


def test_what_a_run_that_lives_has_made_stays(here: Path) -> None:
    """However long it has not written anything."""
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    plan_work(Q4, tasks=2)
    living, run = stopped_in_the_middle(here, 0)
    before = set(listing(run))
    assert before
    long_ago(*run.iterdir(), run, run.with_name(f"{run.name}.lock"))
    work("plan.json", 1)
    assert set(listing(run)) == before
    (here / "wait").unlink()
    assert living.wait() == 0
    finish("plan.json")
    assert digests(here / "out") == digests(here / "whole")


def test_what_a_killed_run_left_goes_with_the_next_one(here: Path) -> None:
    plan_work(Q4, tasks=2)
    killed, run = stopped_in_the_middle(here, 0)
    killed.kill()
    killed.wait()
    assert listing(run)
    work("plan.json", 1)
    assert listing(run.parent) == ["task-1-0.part", "task-1.sha256"]


def test_what_a_run_of_another_machine_left_goes_after_a_day(here: Path) -> None:
    """Locks may be of that machine alone."""
    plan_work(Q4, tasks=4)
    killed, run = stopped_in_the_middle(here, 0)
    killed.kill()
    killed.wait()
    lock = run.with_name(f"{run.name}.lock")
    lock.write_text("another machine")
    work("plan.json", 1)
    assert run.exists()
    long_ago(lock, run)
    work("plan.json", 2)
    assert run.exists()  # it wrote to a file of it just now
    long_ago(lock, run, *run.iterdir())
    work("plan.json", 3)
    assert not [path for path in run.parent.iterdir() if path.name.startswith("run-")]


def test_where_there_are_no_locks_nothing_is_removed_before_the_end(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_lock(descriptor: int) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    plan_work(Q4, tasks=2)
    killed, run = stopped_in_the_middle(here, 0)
    killed.kill()
    killed.wait()
    with monkeypatch.context() as patch:
        patch.setattr(disk, "lock", no_lock)
        for task in (0, 1):
            work("plan.json", task)
        assert run.exists()
    finish("plan.json")
    assert digests(here / "out") == digests(here / "whole")
    assert not run.parent.exists()
