"""A conversion in tasks gives the files of one in a single run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from imatrices import made_up, write_gguf
from jobs import Q4, run
from quantized import digests

from gguf_forge import Request, UsageError, convert, finish, plan, plan_work, quantize_gguf, work
from gguf_forge.planning.splits import Split
from gguf_forge.recipe import Options, parse_tensor_type, read_imatrix


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
    assert finish(here / "jobs" / "plan.json").paths == ((here / "out" / "m.gguf").resolve(),)
    assert digests(here / "out") == digests(here / "whole")


def test_a_gguf_file_as_the_source(here: Path) -> None:
    convert("Tiny", "base.gguf", types="BF16")
    quantize_gguf("base.gguf", "whole/m.gguf", types="Q4_K_M")
    run(replace(Q4, source="base.gguf"), 3)
    assert digests(here / "out") == digests(here / "whole")
    with pytest.raises(UsageError, match="model_name=, vocab_only=True: not for a GGUF file"):
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
