"""Several parts of a model in one run (`--parts`): each is the file of its own option, and all are written together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from projectors import DRAFTS, options, write, write_with_all_parts
from quantized import digests
from synthetic import FAMILIES, read_description

from gguf_forge import Observer, OutputError, Request, Split, UsageError, convert, plan, plan_work, quantize_gguf
from gguf_forge.distributed.finish import finish
from gguf_forge.distributed.work import work
from gguf_forge.planning.file_plan import FilePlan
from gguf_forge.planning.open_model import open_model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_with_all_parts(tmp_path / "hf")


def planned(source: Path, **how: Any) -> dict[str, FilePlan]:
    """What would be made in all, by name."""
    return {file.path.name: file for file in plan(source, **hints(), **how)}


def hints() -> dict[str, Any]:
    return {"pre_tokenizer": read_description(FAMILIES / "qwen35").pre_tokenizer}


def made(source: Path, out: Path, **how: Any) -> dict[str, list[int | str]]:
    convert(source, out, **hints(), **how)
    return digests(out.parent)


def test_each_part_is_the_file_of_its_own_option(source: Path, tmp_path: Path) -> None:
    alone = {"m.gguf": {"no_mtp": True}, "mmproj-m.gguf": {"mmproj": True}, "mtp-m.gguf": {"mtp": True}}
    types = {"m.gguf": "Q4_K_M", "mmproj-m.gguf": "Q8_0", "mtp-m.gguf": "F16"}
    (tmp_path / "alone").mkdir()
    (tmp_path / "all").mkdir()
    for name, how in alone.items():
        convert(source, tmp_path / "alone" / name, types=types[name], **how, **hints())
    together = ["main:Q4_K_M", "mmproj:Q8_0", "mtp:F16"]
    found = made(source, tmp_path / "all" / "m.gguf", parts="all", types=together)
    assert found == digests(tmp_path / "alone")
    assert len(found) == 3


def test_a_quantized_projector_is_what_the_quantizer_makes_of_its_base_file(source: Path, tmp_path: Path) -> None:
    (base,) = convert(source, tmp_path / "base.gguf", types="auto", mmproj=True, **hints())
    (two_steps,) = quantize_gguf(base.path, tmp_path / "two.gguf", types="Q8_0")
    (one_step,) = convert(source, tmp_path / "one.gguf", parts="mmproj", types="Q8_0", **hints())
    assert one_step.path.read_bytes() == two_steps.path.read_bytes()


def test_parts_without_types_of_their_own_have_the_usual_ones(source: Path) -> None:
    found = planned(source, parts="all", types=["Q4_K_M", "Q8_0"])
    assert [(file.part, file.file_type.name) for file in found.values()] == [
        ("main", "Q4_K_M"),
        ("main", "Q8_0"),
        ("mmproj", "BF16"),
        ("mtp", "Q4_K_M"),
        ("mtp", "Q8_0"),
    ]
    assert [name.split("-")[0] for name in found] == ["Hf", "Hf", "mmproj", "mtp", "mtp"]


def test_some_parts_may_be_asked_for(source: Path) -> None:
    found = planned(source, parts=["mmproj,main"], types="F16")
    assert [(file.part, file.file_type.name) for file in found.values()] == [("main", "F16"), ("mmproj", "BF16")]
    (main, _) = found.values()
    assert main.tensors == planned(source, types="F16").popitem()[1].tensors
    (only,) = planned(source, out="x-{ftype}.gguf", parts="mtp", types="F16")
    assert only == "x-f16.gguf"


def test_further_layers_may_be_left_out_of_all_parts(source: Path) -> None:
    found = planned(source, parts="all", no_mtp=True)
    assert [file.part for file in found.values()] == ["main", "mmproj"]


def test_patterns_of_types_are_for_a_part_too(source: Path) -> None:
    found = planned(source, parts="all", types=["main:Q4_K_*", "mmproj:Q8_0,F16", "mtp:BF16"])
    assert [f"{file.part}:{file.file_type}" for file in found.values()] == [
        *("main:Q4_K_S", "main:Q4_K_M", "mmproj:Q8_0", "mmproj:F16", "mtp:BF16"),
    ]


def test_the_options_of_the_mix_and_of_the_split_are_those_of_main_and_drafts(source: Path) -> None:
    found = planned(source, parts="all", types=["Q4_K_M", "mmproj:Q8_0", "mtp:F16"], tensor_type="ffn_=q5_1")
    main, projector, _ = found.values()
    assert {info.type.name for info in main.tensors if ".ffn_" in info.name and "norm" not in info.name} == {"Q5_1"}
    assert projector.tensors == planned(source, mmproj=True, types="Q8_0").popitem()[1].tensors
    files = plan(source, "m.gguf", parts="all", types="F16", split=Split(max_tensors=8), **hints())
    assert [len(file.shards) > 1 for file in files] == [True, False, True]


def test_a_folder_that_is_named_is_made(source: Path, tmp_path: Path) -> None:
    results = convert(source, tmp_path / "models", parts="main,mmproj", types="F16", **hints())
    assert {result.path.parent for result in results} == {tmp_path / "models"}


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ({"parts": "dspark"}, r"no part dspark; it has main, mmproj, mtp"),
        ({"parts": "main,x\x1b"}, r"no part x.*; it has main, mmproj, mtp"),
        ({"parts": ","}, "a list of names is empty"),
        ({"parts": ""}, "a list of names is empty"),
        ({"parts": "all", "mmproj": True}, "parts= and mmproj=True exclude each other"),
        ({"parts": "all", "mtp": True, "dspark": True}, "parts= and mtp=True, dspark=True exclude each other"),
        ({"parts": "all", "vocab_only": True}, "parts= and vocab_only=True exclude each other"),
        ({"parts": "mtp", "no_mtp": True}, "no_mtp=True and the part mtp exclude each other"),
        (
            {"parts": "mtp", "sentence_transformers_dense_modules": True},
            "dense_modules=True: no effect on parts",
        ),
        ({"parts": "main", "types": "mmproj:F16"}, "types for the part mmproj, which is not made; .* made are main"),
        (
            {"types": "mmproj:F16"},
            'no parts are asked for; add parts="all", or parts="mmproj"',
        ),
        ({"parts": "mmproj,mtp", "types": "F16"}, r"F16: which of the parts mmproj, mtp is that for\?"),
        ({"parts": "all", "out": "m.gguf", "types": "F16,Q8_0"}, r"2 files, but only one output name: m\.gguf"),
        ({"parts": "all", "types": "mmproj:nonsense"}, "nonsense"),
        ({"parts": "all", "types": "main:mmproj:F16"}, "mmproj:F16"),
    ],
)
def test_what_cannot_be_is_refused(source: Path, how: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        planned(source, **how)


def test_a_gguf_file_has_no_parts(source: Path, tmp_path: Path) -> None:
    (base,) = convert(source, tmp_path / "base.gguf", types="F16", **hints())
    with pytest.raises(UsageError, match="parts=: not for a GGUF file"):
        plan(base.path, types="Q8_0", parts="all")


class Fails(Observer):
    """Fails at the very end, when most parts are complete."""

    def begin(self, files: Sequence[FilePlan]) -> None:
        self.left = sum(file.bytes_to_write for file in files)

    def advance(self, n_bytes: int) -> None:
        self.left -= n_bytes
        if self.left == 0:
            raise OutputError("broken")


def test_no_part_is_left_of_a_run_that_fails(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="broken"):
        convert(source, tmp_path / "out" / "m.gguf", parts="all", types="F16", observer=Fails(), **hints())
    assert list((tmp_path / "out").iterdir()) == []


def test_resuming_leaves_parts_that_are_complete(source: Path, tmp_path: Path) -> None:
    how: dict[str, Any] = {"parts": "all", "types": "F16", "resume": True, **hints()}
    first = convert(source, tmp_path / "out.gguf", **how)
    (tmp_path / "mmproj-out.gguf").unlink()
    times = {file.path: file.path.stat().st_mtime_ns for file in first if file.path.exists()}
    again = convert(source, tmp_path / "out.gguf", **how)
    assert [result.resumed_tensors == len(result.file.tensors) for result in again] == [True, False, True]
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_unfinished_files_of_parts_that_are_no_longer_asked_for_are_told(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out" / "m.gguf"
    how: dict[str, Any] = {"types": "F16", "resume": True, **hints()}
    with pytest.raises(OutputError, match="broken"):
        convert(source, out, parts="all", observer=Fails(), **how)
    convert(source, out, parts="main", **how)
    assert "2 unfinished files of other outputs are left (.gguf-forge-*.partial" in caplog.text
    caplog.clear()
    out.unlink()
    convert(source, out, parts="all", **how)
    assert "unfinished" not in caplog.text
    assert not [path for path in out.parent.iterdir() if path.name.startswith(".")]


def test_a_job_makes_all_parts(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "once").mkdir()
    expected = made(source, tmp_path / "once" / "m.gguf", parts="all", types=["Q4_K_M", "mmproj:Q8_0"])
    types = ("Q4_K_M", "mmproj:Q8_0")
    request = Request(source="hf", out="job/m.gguf", parts=("all",), types=types, **hints())
    (tmp_path / "job").mkdir()
    n_tasks = len(plan_work(request, tasks=5).tasks)
    for task in range(n_tasks):
        work("plan.json", task)
    finish("plan.json")
    assert digests(tmp_path / "job") == expected


def test_a_draft_of_its_own_takes_the_vocabulary_of_its_model(tmp_path: Path) -> None:
    """The checkpoint of a DSpark draft here has the draft's tensors alone, so that is the only part to make."""
    path = DRAFTS / "deepseek-v4-dspark.json"
    source, how = write(path, tmp_path / "hf"), options(path, tmp_path)
    (alone,) = convert(source, tmp_path / "alone.gguf", types="F16", **how)
    how.pop("dspark")
    (together,) = convert(source, tmp_path / "together.gguf", types="F16", parts="dspark", **how)
    assert together.path.read_bytes() == alone.path.read_bytes()
    assert together.file.part == "dspark"


def test_every_kind_of_source_says_its_parts(source: Path) -> None:
    with open_model(source) as model:
        assert list(model.parts()) == ["main", "mmproj", "mtp"]
