"""A conversion in tasks gives the files of one in a single run, whatever happens to the processes that do them."""

from __future__ import annotations

import errno
import fcntl
import json
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
from checkpoints import tiny_llama
from command_line import listing
from faults import DISK_FULL, Faults, is_short
from imatrices import made_up, write_gguf
from quantized import digest, digests

from gguf_forge import (
    ForgeError,
    InputError,
    OutputError,
    RefusedError,
    Request,
    UsageError,
    convert,
    finish,
    plan,
    plan_work,
    work,
)
from gguf_forge.checkpoint import Checkpoint
from gguf_forge.engine import disk
from gguf_forge.job import Job, is_sound, open_job
from gguf_forge.quantization import quantize_gguf
from gguf_forge.recipe import Options, parse_tensor_type, read_imatrix
from gguf_forge.request import parse_size
from gguf_forge.splits import Split
from gguf_forge.work_plan import FORMAT


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a model `Tiny` in it."""
    monkeypatch.chdir(tmp_path)
    tiny_llama(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "whole").mkdir()
    return tmp_path


Q4 = Request(source="Tiny", out="out/m.gguf", types=("Q4_K_M",))


def run(request: Request, tasks: int | None, plan_file: str = "plan.json") -> int:
    n_tasks = len(plan_work(request, plan_file, tasks=tasks).tasks)
    for task in reversed(range(n_tasks)):
        assert not work(plan_file, task).was_done
    finish(plan_file)
    return n_tasks


@pytest.mark.parametrize("tasks", [None, 1, 2, 5, 13])
def test_one_file(here: Path, tasks: int | None) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    assert run(Q4, tasks) == tasks or tasks is None
    assert digests(here / "out") == digests(here / "whole")


@pytest.mark.parametrize("tasks", [None, 2, 9])
def test_parts_of_a_split_in_two_types(here: Path, tasks: int | None) -> None:
    results = convert("Tiny", "whole/{ftype}.gguf", types=["BF16", "Q5_K_M"], split=Split(max_size=500_000))
    request = Request(source="Tiny", out="out/{ftype}.gguf", types=("BF16", "Q5_K_M"), split_max_size="500K")
    n_tasks = run(request, tasks)
    assert n_tasks == (tasks or sum(len(result.file.shards) for result in results))
    assert digests(here / "out") == digests(here / "whole")


def test_everything_that_can_be_asked_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the tasks are done from another folder: paths begin where they did when it was planned."""
    infos = plan("Tiny", types="F32")[0].tensors
    write_gguf(here / "im.gguf", made_up(infos))
    (here / "types.txt").write_text("attn_k=q5_k")
    (here / "meta.json").write_text('{"general.name": "Other"}')
    options = Options(
        tensor_types=(parse_tensor_type("ffn_up=q8_0"), parse_tensor_type("attn_k=q5_k")),
        imatrix=read_imatrix("im.gguf").selected(exclude=["ffn_gate"]),
    )
    convert("Tiny", "whole/m.gguf", types="Q3_K_M", options=options, metadata="meta.json")
    request = replace(
        Q4,
        types=("q3_k_m",),
        tensor_type=("ffn_up=q8_0",),
        tensor_type_file="types.txt",
        imatrix="im.gguf",
        exclude_weights=("ffn_gate",),
        metadata="meta.json",
    )
    (here / "jobs").mkdir()
    plan_work(request, "jobs/plan.json", tasks=3)
    monkeypatch.chdir(here / "jobs")
    for task in range(3):
        work("plan.json", task)
    monkeypatch.chdir("/")
    assert finish(here / "jobs" / "plan.json").paths == (here / "jobs" / ".." / "out" / "m.gguf",)
    assert digests(here / "out") == digests(here / "whole")


def test_a_gguf_file_as_the_source(here: Path) -> None:
    convert("Tiny", "base.gguf", types="BF16")
    quantize_gguf("base.gguf", "whole/m.gguf", types="Q4_K_M")
    run(replace(Q4, source="base.gguf"), 3)
    assert digests(here / "out") == digests(here / "whole")
    with pytest.raises(UsageError, match="the file type is missing"):
        plan_work(Request(source="base.gguf"), "other.json")
    with pytest.raises(UsageError, match="--model-name, --vocab-only: no use for a GGUF file"):
        plan_work(Request(source="base.gguf", types=("Q8_0",), model_name="x", vocab_only=True), "other.json")


def test_a_vocabulary_alone(here: Path) -> None:
    convert("Tiny", "whole/m.gguf", vocab_only=True)
    run(Request(source="Tiny", out="out/m.gguf", vocab_only=True), 2)
    assert digests(here / "out") == digests(here / "whole")


def test_the_folder_moves_as_a_whole(here: Path) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    plan_work(Q4, tasks=2)
    work("plan.json", 0)
    (here / "jobs").mkdir()
    for name in ("Tiny", "out", "plan.json"):
        shutil.move(here / name, here / "jobs" / name)
    work("jobs/plan.json", 1)
    finish("jobs/plan.json")
    assert digests(here / "jobs" / "out") == digests(here / "whole")


def test_what_is_done_is_only_checked(here: Path) -> None:
    plan_work(Q4, tasks=2)
    assert [work("plan.json", 0).was_done for _ in range(2)] == [False, True]


PROGRAM = [sys.executable, "-m", "gguf_forge"]


def test_processes_of_which_some_are_killed(here: Path) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    subprocess.run(
        [*PROGRAM, "plan", "Tiny", "-o", "out/m.gguf", "--out", "plan.json", "--tasks", "3", "-q"], check=True
    )

    first, again, killed = start(0), start(0), start(1)
    while killed.poll() is None and not list(here.glob("out/*.parts/run-*/*")):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert [first.wait(), again.wait()] == [0, 0]
    killed.wait()
    ended = subprocess.run([*PROGRAM, "finish", "plan.json", "-q"], capture_output=True, text=True, check=False)
    assert ended.returncode == 4
    assert "tasks are not done: 1-2" in ended.stderr or "tasks are not done: 2" in ended.stderr
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
from gguf_forge.engine import disk

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
        paths = os.pathsep.join([str(Path(__file__).parent / "support"), os.environ.get("PYTHONPATH", "")])
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


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk takes long and changes nothing here."""
    for call in ("sync", "sync_data", "sync_folder"):
        monkeypatch.setattr(disk, call, wraps(getattr(disk, call))(lambda where: None))


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


def done(here: Path, tasks: int = 3) -> Path:
    plan_work(Q4, tasks=tasks)
    for task in range(tasks):
        work("plan.json", task)
    return here / "plan.json"


def test_missing_tasks_are_named(here: Path) -> None:
    plan_work(Q4, tasks=9)
    for task in (0, 4, 6):
        work("plan.json", task)
    with pytest.raises(InputError, match=r"plan\.json: 6 of 9 tasks are not done: 1-3, 5, 7-8; do each of them with"):
        finish("plan.json")
    parts = open_job("plan.json").folder
    (parts / "task-4.sha256").write_text("nonsense\n")
    (parts / "task-6-0.part").unlink()
    with pytest.raises(InputError, match="8 of 9 tasks are not done: 1-8"):
        finish("plan.json")
    work("plan.json", 4)
    with pytest.raises(InputError, match="not done: 1-3, 5-8"):
        finish("plan.json")


@pytest.mark.parametrize("how", ["changed", "shorter", "longer"])
def test_damaged_parts_are_named_and_made_anew(here: Path, how: str) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    done(here)
    part = open_job("plan.json").parts(1)[0].path
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes({"changed": data, "shorter": data[:-1], "longer": data + b"x"}[how])
    with pytest.raises(InputError, match="1 of 3 tasks are damaged: 1; do each of them"):
        finish("plan.json")
    assert list((here / "out").glob("*.gguf")) == []
    assert not work("plan.json", 1).was_done
    finish("plan.json")
    assert digests(here / "out") == digests(here / "whole")


def test_existing_files_are_not_replaced_unless_asked(here: Path) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    done(here)
    (here / "out" / "m.gguf").write_bytes(b"old")
    with pytest.raises(RefusedError, match=r"out/m\.gguf: exists already"):
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
        InputError, match=r"3 of 3 tasks are not done: 0-2; (do each|out/m\.gguf exists, but nothing tells)"
    ):
        finish("plan.json")
    # with the last task there are the bytes that changed; the others are right in the output, if that has its size
    assert [work("plan.json", task).was_done for task in range(3)] == [change == "changed"] * 2 + [False]
    assert "plan.json: was finished, but its files are not as they were then: the task is done again" in caplog.text
    if change == "changed":
        with pytest.raises(InputError, match="2 of 3 tasks are not done: 0-1"):
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
    with pytest.raises(InputError, match=r"not done: 0-2; out/m\.gguf exists, but nothing tells that it is what"):
        finish("plan.json")


def no_links(path: Path, to: Path) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("tasks", [1, 3])
def test_without_hard_links(here: Path, monkeypatch: pytest.MonkeyPatch, tasks: int) -> None:
    convert("Tiny", "whole/m.gguf", types="Q4_K_M")
    done(here, tasks)
    monkeypatch.setattr(disk, "link", no_links)
    finish("plan.json")
    assert digests(here / "out") == digests(here / "whole")


def test_what_others_put_among_the_parts_stays(here: Path) -> None:
    done(here)
    job = open_job("plan.json")
    (job.folder / "notes.txt").write_text("mine")
    finish("plan.json")
    assert listing(job.folder) == ["notes.txt"]
    (here / "out" / "m.gguf").unlink()
    with pytest.raises(InputError, match="3 of 3 tasks are not done"):
        finish("plan.json")


@pytest.mark.parametrize("task", [3, -1])
def test_tasks_that_are_not_there(here: Path, task: int) -> None:
    plan_work(Q4, tasks=3)
    with pytest.raises(UsageError, match=rf"there is no task {task}; the tasks of this plan are 0 to 2"):
        work("plan.json", task)


def edit(change: Callable[[dict[str, Any]], object]) -> None:
    plan_file = Path("plan.json")
    value = json.loads(plan_file.read_text())
    change(value)
    plan_file.write_text(json.dumps(value))


def test_a_source_that_changed(here: Path) -> None:
    plan_work(Q4, tasks=4)
    weights = here / "Tiny" / "model.safetensors"
    os.utime(weights, (1, 1))  # machines need not agree on times
    work("plan.json", 0)
    data = weights.read_bytes()
    weights.write_bytes(data.replace(b', "shape"', b' ,"shape"', 1))
    with pytest.raises(
        InputError, match=r"model\.safetensors: this is not the file any more that the plan was made for"
    ):
        work("plan.json", 1)
    with Checkpoint.open(here / "Tiny") as checkpoint:
        places = [(tensor.offset, tensor.nbytes) for tensor in checkpoint.tensors.values()]
    for offset, nbytes in places:
        other = bytes(byte ^ 0x15 for byte in data[offset : offset + nbytes])
        weights.write_bytes(data[:offset] + other + data[offset + nbytes :])
        with pytest.raises(InputError, match="this is not the file any more"):
            work("plan.json", 2)
    offset, nbytes = max(places, key=lambda place: place[1])
    weights.write_bytes(data[: offset + 100] + b"xyz" + data[offset + 103 :])
    work("plan.json", 1)  # samples are looked at, and what lies between them is not
    weights.write_bytes(data)
    config = here / "Tiny" / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-05', '"rms_norm_eps": 1e-06'))
    with pytest.raises(InputError, match=r"the same request comes to other files now .* something changed: the config"):
        work("plan.json", 2)


def test_samples_are_taken_of_what_a_task_reads(here: Path) -> None:
    """So that a task of a model in many files does not look at all of them."""
    convert("Tiny", "in.gguf", types="F16", split=Split(max_size=500_000))
    first, *_, last = sorted(here.glob("in-*"))
    n_tasks = len(plan_work(replace(Q4, source=first.name, split_max_size="200K")).tasks)
    data = last.read_bytes()
    last.write_bytes(data[:-1000] + bytes(1000))

    def is_refused(task: int) -> bool:
        try:
            work("plan.json", task)
        except InputError as error:
            return error.file == Path(last.name)
        return False

    refused = list(filter(is_refused, range(n_tasks)))
    assert 0 < len(refused) < n_tasks
    last.write_bytes(data)
    for task in refused:
        work("plan.json", task)
    finish("plan.json")


def test_a_matrix_that_changed(here: Path) -> None:
    """Its weights are not in the headers of the outputs, and decide their bytes all the same."""
    entries = made_up(plan("Tiny", types="F32")[0].tensors)
    write_gguf(here / "im.gguf", entries)
    plan_work(replace(Q4, imatrix="im.gguf"), tasks=2)
    write_gguf(here / "im.gguf", {name: (sums + 1, counts) for name, (sums, counts) in entries.items()})
    with pytest.raises(InputError, match="comes to other files now"):
        work("plan.json", 0)


def test_a_source_that_is_gone(here: Path) -> None:
    plan_work(Q4, tasks=2)
    (here / "Tiny").rename(here / "Other")
    with pytest.raises(
        InputError, match="Tiny: the source of the plan is not there; the plan must lie where it was made"
    ):
        work("plan.json", 0)


def test_a_plan_that_lies_elsewhere(here: Path) -> None:
    plan_work(Q4, tasks=2)
    (here / "Tiny" / "plan.json").write_bytes((here / "plan.json").read_bytes())
    with pytest.raises(InputError, match="the plan's files go to a folder that is not there; leave the plan where"):
        work("Tiny/plan.json", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: plan.update(version="0.0.1"), r"the plan is of gguf-forge 0\.0\.1, and this is"),
        (lambda plan: plan.update(gguf_forge_plan=FORMAT + 1), "use the same version everywhere"),
        (lambda plan: plan.pop("gguf_forge_plan"), "this is no plan of gguf-forge"),
        (lambda plan: plan.pop("tasks"), "the plan is damaged: 'tasks'"),
        (lambda plan: plan.update(tasks=[[[0, 0, True]]]), "the plan is damaged: True is not int"),
        (lambda plan: plan.update(tasks=[[[0, 0]]]), "the plan is damaged"),
        (lambda plan: plan.update(tasks=[{}]), "the plan is damaged: {} is not list"),
        (lambda plan: plan["tasks"].pop(), "its tasks do not make its files"),
        (lambda plan: plan.update(outputs=[], tasks=[]), "its tasks do not make its files"),
        (lambda plan: plan.update(tasks=[*plan["tasks"], [[7, 0, 1]]]), "its tasks do not make its files"),
        (lambda plan: plan["outputs"][0].update(more=1), "has not the fields path, size, sha256"),
        (lambda plan: plan["outputs"][0].update(size="1"), "'1' is not int"),
        (lambda plan: plan["inputs"].clear(), "the source has other files than the plan says"),
        (lambda plan: plan["outputs"][0].update(path="out/x.gguf"), "comes to other files now"),
        (lambda plan: plan["tasks"].reverse(), "the tasks are not those that the plan was made with"),
        (lambda plan: plan.update(request=[]), "the request is not an object"),
        (lambda plan: plan["request"].update(pure=1), "the request's pure is 1, and should be bool"),
        (lambda plan: plan["request"].update(types=8), "the request's types is 8, and should be"),
        (lambda plan: plan["request"].update(types=["Q8_0"]), "comes to other files now"),
        (lambda plan: plan["request"].update(magic=1), "an option 'magic', which is not known"),
        (lambda plan: plan["request"].pop("source"), "the request lacks a source"),
    ],
)
def test_plans_that_were_tampered_with(here: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    plan_work(Q4, tasks=2)
    edit(change)
    with pytest.raises(InputError, match=message):
        work("plan.json", 0)
    assert list((here / "out").iterdir()) == []


def test_requests_are_written_down_and_read_again() -> None:
    for request in (
        Q4,
        Request(source="a", split_max_tensors=3, no_tensor_first_split=True, override_kv=("a.b=int:1",), pure=True),
        Request(source=Path("a"), types="Q8_0", tensor_type=["a=q8_0"]),  # type: ignore[arg-type]
    ):
        assert Request.from_json(json.loads(json.dumps(request.as_json())), Path("x")) == request
    with pytest.raises(UsageError, match="split_max_tensors is 'x', and should be int"):
        Request(source="a", split_max_tensors="x")  # type: ignore[arg-type]


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
    plan_work(Q4, tasks=3)
    killed, run = stopped_in_the_middle(here, 0)
    killed.kill()
    killed.wait()
    lock = run.with_name(f"{run.name}.lock")
    lock.write_text("another machine")
    work("plan.json", 1)
    assert run.exists()
    long_ago(lock, run)
    work("plan.json", 1)
    assert run.exists()  # it wrote to a file of it just now
    long_ago(lock, run, *run.iterdir())
    work("plan.json", 2)
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


def test_plans_are_not_written_over_the_model_or_another_plan(here: Path) -> None:
    plan_work(Q4, tasks=2)
    with pytest.raises(RefusedError, match="exists already"):
        plan_work(Q4, tasks=3)
    assert len(plan_work(Q4, tasks=3, overwrite=True).tasks) == 3
    with pytest.raises(RefusedError, match="one of the inputs"):
        plan_work(Q4, "Tiny/model.safetensors", overwrite=True)


def test_no_room_for_the_parts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_work(Q4, tasks=2)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OutputError, match="the disk has 0 free"):
        work("plan.json", 0)
