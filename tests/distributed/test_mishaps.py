"""Whatever happens to processes and disks, the files of a job are right, or not there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from command_line import listing
from faults import DISK_FULL, Faults, is_short
from jobs import PROGRAM, Q4, no_links, start
from quantized import digest, digests

from gguf_forge import ForgeError, convert, finish, plan_work, work
from gguf_forge.distributed.job import Job, is_sound, open_job
from gguf_forge.option import parse_size
from gguf_forge.planning.splits import Split
from gguf_forge.storage.local import disk


def test_processes_of_which_some_are_killed(here: Path) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    subprocess.run(
        [*PROGRAM, "plan", "Tiny", "-o", "out/m.gguf", "--save-plan", "plan.json", "--tasks", "3", "-q"], check=True
    )

    first, again, killed = start(0), start(0), start(1)
    while killed.poll() is None and not list(here.glob("out/*.parts/run-*/*")):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert [first.wait(), again.wait()] == [0, 0]
    killed.wait()
    ended = subprocess.run([*PROGRAM, "finish", "plan.json", "-q"], capture_output=True, text=True, check=False)
    assert ended.returncode == 4
    assert "tasks are not done: tasks 1-2" in ended.stderr or "task 2" in ended.stderr
    assert not (here / "out" / "m.gguf").exists()
    assert [start(task).wait() for task in (1, 2)] == [0, 0]
    subprocess.run([*PROGRAM, "finish", "plan.json", "-q"], check=True)
    assert digests(here / "out") == digests(here / "whole")


# Runs the verb again and again, each time in a process that is killed some file operations later, until one is not.
_KILLED_EVERYWHERE = """
import os, sys
from functools import wraps
from itertools import count
from pathlib import Path
import pytest
from faults import Faults, kills
from gguf_forge import finish, work
from gguf_forge.storage.local import disk

def no_links(path, to):
    raise PermissionError(1, "Operation not permitted")

plan, has_links, *task = sys.argv[1:]
if has_links == "False":
    disk.link = wraps(disk.link)(no_links)
for call in ("sync", "sync_data", "sync_folder"):  # kills lose nothing that was written
    setattr(disk, call, wraps(getattr(disk, call))(lambda where: None))
for n in count(1, 5 if task else 1):
    child = os.fork()
    if not child:
        Faults(pytest.MonkeyPatch(), n, kills)
        if task:
            work(plan, int(task[0]), threads=1)
        else:
            finish(plan, threads=1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(*sorted(path.stat().st_size for path in Path("out").glob("*.gguf")))
    if not os.WIFSIGNALED(status):
        sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no processes to fork here")
@pytest.mark.parametrize(
    ("split", "tasks", "has_links"),
    [("500K", None, True), ("500K", None, False), ("500K", 4, True), ("500K", 4, False)],
)
def test_kills_at_every_file_operation(here: Path, split: str, tasks: int | None, has_links: bool) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M", split=Split(max_size=parse_size(split)))
    n_tasks = len(plan_work(replace(Q4, split_max_size=split), tasks=tasks).tasks)

    def killed(*arguments: str) -> list[list[int]]:
        """The sizes of the final files, after each of the processes."""
        command = [sys.executable, "-c", _KILLED_EVERYWHERE, "plan.json", str(has_links), *arguments]
        paths = os.pathsep.join([str(Path(__file__).parents[1] / "support"), os.environ.get("PYTHONPATH", "")])
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths}
        )
        assert ended.returncode == 0, ended.stderr
        return [[int(size) for size in line.split()] for line in ended.stdout.splitlines()]

    for task in range(1, n_tasks):
        work("plan.json", task)
    seen = killed("0")
    assert len(seen) > 5
    assert not any(seen)
    seen = killed()
    complete = sorted(path.stat().st_size for path in (here / "whole").iterdir())
    assert len(seen) > 10
    assert seen[-1] == complete
    assert all(set(sizes) <= set(complete) for sizes in seen)
    assert digests(here / "out") == digests(here / "whole")
    assert listing(here) == ["Tiny", "out", "plan.json", "plan.json.finished", "whole"]


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize(("fault", "has_links"), [(DISK_FULL, True), (DISK_FULL, False), (is_short, True)])
def test_a_disk_that_fails_at_the_nth_call(
    here: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Any], has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(disk, "link", wraps(disk.link)(no_links))
    convert("Tiny", "whole/m.gguf", types="Q4_K_M", split=Split(max_size=500_000))
    n_tasks = len(plan_work(replace(Q4, split_max_size="500K"), tasks=4).tasks)
    for task in range(1, n_tasks):
        work("plan.json", task)
    job = open_job("plan.json")
    seen = 0
    for at in count(1):
        with pytest.MonkeyPatch.context() as patch:
            faults, failed = Faults(patch, at, fault), False
            try:
                work("plan.json", 0, threads=1)
            except ForgeError:
                failed = True
        found = job.recorded(0)
        assert found is None or all(is_sound(*part) for part in found.items())
        assert found is not None or failed
        left = {path.name for path in job.folder.iterdir()}
        assert {name for name in left if not name.startswith("run-")} <= {
            path.name
            for task in range(n_tasks)
            for path in (job.record(task), *(part.path for part in job.parts(task)))
        }
        if faults.call is None:
            break
        seen += failed
        for path in job.folder.glob("task-0*"):
            path.unlink()
    assert seen > 10 or fault is is_short
    _finish_with_faults(here, job, fault)


def _finish_with_faults(here: Path, job: Job, fault: Callable[..., Any]) -> None:
    def made() -> dict[str, list[int | str]]:
        return {path.name: digest(path.read_bytes()) for path in here.glob("out/*.gguf")}

    complete = digests(here / "whole")
    shutil.copytree(job.folder, here / "parts")
    for at in count(1):
        with pytest.MonkeyPatch.context() as patch:
            faults, failed = Faults(patch, at, fault), False
            try:
                finish("plan.json", threads=1)
            except ForgeError:
                failed = True
        assert made().items() <= complete.items()
        if failed:
            finish("plan.json")
        assert made() == complete
        assert finish("plan.json").was_finished
        if faults.call is None:
            return
        (here / "plan.json.finished").unlink()
        shutil.rmtree(here / "out")
        shutil.copytree(here / "parts", job.folder)
