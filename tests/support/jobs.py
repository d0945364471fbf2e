"""Conversions in tasks, for tests of them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

from gguf_forge import Request, finish, plan_work, work
from gguf_forge.distributed.job import open_job

Q4 = Request(source="Tiny", out="out/m.gguf", types=("Q4_K_M",))


PROGRAM = [sys.executable, "-m", "gguf_forge"]


def run(request: Request, tasks: int | None, plan_file: str = "plan.json") -> int:
    n_tasks = len(plan_work(request, plan_file, tasks=tasks).tasks)
    for task in reversed(range(n_tasks)):
        assert not work(plan_file, task).was_done
    finish(plan_file)
    return n_tasks


def done(here: Path, tasks: int = 3) -> Path:
    plan_work(Q4, tasks=tasks)
    for task in range(tasks):
        work("plan.json", task)
    return here / "plan.json"


def start(task: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*PROGRAM, "work", "plan.json", "--task", str(task), "-q"])


def stopped_in_the_middle(here: Path, task: int) -> tuple[subprocess.Popen[bytes], Path]:
    """A process that waits in the middle of a task, and the folder of its run."""
    ready = here / "ready"
    (here / "wait").touch()
    code = f"""
import sys, time
from pathlib import Path
from gguf_forge.engine import forge
pack = forge.pack
def waiting(*arguments, **options):
    Path("ready").touch()
    while Path("wait").exists():
        time.sleep(0.01)
    return pack(*arguments, **options)
forge.pack = waiting
from gguf_forge import work
work("plan.json", {task})
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    while not ready.exists():
        assert process.poll() is None
        time.sleep(0.01)
    (run,) = (path for path in open_job("plan.json").folder.glob("run-*") if path.is_dir())
    return process, run


def no_links(path: Path, to: Path) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))
