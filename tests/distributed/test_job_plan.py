"""A plan is written down, and believed by nobody."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from imatrices import made_up, write_gguf
from jobs import Q4

from gguf_forge import InputError, RefusedError, Request, UsageError, convert, finish, plan, plan_work, work
from gguf_forge.checkpoint import Checkpoint
from gguf_forge.distributed.job_plan import FORMAT
from gguf_forge.planning.splits import Split


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
    with pytest.raises(InputError, match=r"model\.safetensors: the input file changed after the plan was made"):
        work("plan.json", 1)
    with Checkpoint.open(here / "Tiny") as checkpoint:
        places = [(tensor.offset, tensor.nbytes) for tensor in checkpoint.tensors.values()]
    for offset, nbytes in places:
        other = bytes(byte ^ 0x15 for byte in data[offset : offset + nbytes])
        weights.write_bytes(data[:offset] + other + data[offset + nbytes :])
        with pytest.raises(InputError, match="the input file changed"):
            work("plan.json", 2)
    offset, nbytes = max(places, key=lambda place: place[1])
    weights.write_bytes(data[: offset + 100] + b"xyz" + data[offset + 103 :])
    work("plan.json", 1)  # samples are looked at, and what lies between them is not
    weights.write_bytes(data)
    config = here / "Tiny" / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-05', '"rms_norm_eps": 1e-06'))
    with pytest.raises(InputError, match=r"inputs or options changed since .* something changed: the config"):
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
    with pytest.raises(InputError, match="inputs or options changed"):
        work("plan.json", 0)


def test_a_source_that_is_gone(here: Path) -> None:
    plan_work(Q4, tasks=2)
    (here / "Tiny").rename(here / "Other")
    with pytest.raises(
        InputError, match="Tiny: the source of the plan is not there; the plan must stay where it was made"
    ):
        work("plan.json", 0)


def test_a_plan_that_lies_elsewhere(here: Path) -> None:
    plan_work(Q4, tasks=2)
    (here / "Tiny" / "plan.json").write_bytes((here / "plan.json").read_bytes())
    with pytest.raises(InputError, match="the plan's files go to a folder that is not there; make that folder again"):
        work("Tiny/plan.json", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: plan.update(version="0.0.1"), r"the plan is of gguf-forge 0\.0\.1, and this is"),
        (lambda plan: plan.update(gguf_forge_plan=FORMAT + 1), "use the same version everywhere"),
        (lambda plan: plan.pop("gguf_forge_plan"), "this is not a plan of gguf-forge"),
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
        (lambda plan: plan["outputs"][0].update(path="out/x.gguf"), "inputs or options changed"),
        (lambda plan: plan["tasks"].reverse(), "the tasks are not those that the plan was made with"),
        (lambda plan: plan.update(request=[]), "the request is not an object"),
        (lambda plan: plan["request"].update(pure=1), "the request's pure is 1, and should be bool"),
        (lambda plan: plan["request"].update(types=8), "the request's types is 8, and should be"),
        (lambda plan: plan["request"].update(types=["Q8_0"]), "inputs or options changed"),
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


def test_plans_are_not_written_over_the_model_or_another_plan(here: Path) -> None:
    plan_work(Q4, tasks=2)
    with pytest.raises(RefusedError, match="already exists"):
        plan_work(Q4, tasks=3)
    assert len(plan_work(Q4, tasks=3, overwrite=True).tasks) == 3
    with pytest.raises(RefusedError, match="one of the inputs"):
        plan_work(Q4, "Tiny/model.safetensors", overwrite=True)
