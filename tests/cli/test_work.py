"""`job plan`, `job work` and `job finish`: what they say; tests/distributed has what they do."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Forge, listing


def test_a_job(forge: Forge, model: Path) -> None:
    planned = forge("plan", model, "-t", "Q8_0,Q4_0", "--save-plan", "plan.json", "--tasks", "3")
    assert planned.code == 0
    *_, plan, each, end = planned.out.splitlines()
    assert plan.split()[:4] == ["plan", "plan.json:", "3", "tasks"]
    assert each.split(maxsplit=2)[2] == "gguf-forge job work plan.json --task 0 ... 2"
    assert end.split(maxsplit=1)[1] == "gguf-forge job finish plan.json"
    for task in range(3):
        ran = forge("work", "plan.json", "--task", task)
        assert ran.code == 0
        assert ran.out.splitlines()[0].split() == ["task", str(task), "done"]
        assert ran.err.startswith(f"task {task}: ")
    assert forge("work", "plan.json", "--task", 1).out.splitlines()[0].split()[2:] == ["was", "done", "already"]
    finished = forge("finish", "plan.json")
    assert finished.err.startswith("checking and joining: ")
    names = ["Tiny-1.2M-Q4_0.gguf", "Tiny-1.2M-Q8_0.gguf"]
    assert sorted(line.split()[0] for line in finished.out.splitlines()[:2]) == names
    assert listing(Path()) == [*names, "plan.json", "plan.json.finished"]
    again = forge("work", "plan.json", "--task", 1)
    assert again.out.splitlines()[0].split(maxsplit=2)[2] == "was done already; the plan is finished"
    again = forge("finish", "plan.json")
    assert again.code == 0
    assert "was finished already; the files are as they were then" in again.out
    assert [forge("convert", model, "-o", "x.gguf", "-t", kind, "--overwrite").code for kind in ("Q8_0",)] == [0]
    assert Path("x.gguf").read_bytes() == Path(names[1]).read_bytes()


def test_a_link_that_leads_to_itself(forge: Forge, model: Path) -> None:
    """Python before 3.13 raises a RuntimeError for it."""
    Path("loop").symlink_to("loop")
    for out in (("--save-plan", "loop/plan.json"), ("-o", "loop/../m.gguf"), ("-o", "loop/m.gguf")):
        ran = forge("plan", model, "-t", "Q8_0", *out)
        assert "bug" not in ran.err
        assert ran.code in (0, 5), ran.err
    assert forge("convert", model, "-t", "Q8_0", "-o", "loop/m.gguf").code == 5
    assert forge("plan", "loop/..", "-t", "Q8_0").code == 2


def test_a_job_for_scripts(forge: Forge, model: Path) -> None:
    planned = forge("plan", model, "-o", "m.gguf", "--save-plan", "plan.json", "--tasks", "2", "--json").json
    assert planned["plan"]["path"] == "plan.json"
    assert [task["task"] for task in planned["plan"]["tasks"]] == [0, 1]
    done = [forge("work", "plan.json", "--task", task, "--json").json for task in (0, 1)]
    assert [work["size"] for work in done] == [task["size"] for task in planned["plan"]["tasks"]]
    assert [work["was_done"] for work in done] == [False, False]
    assert all(Path(path).stat().st_size for work in done for path in work["parts"])
    finished = forge("finish", "plan.json", "--json").json
    assert finished["files"] == [{"path": "m.gguf", "size": planned["files"][0]["size"]}]
    assert not finished["was_finished"]
    assert forge("work", "plan.json", "--task", "0", "--json").json["is_finished"]
    assert forge("finish", "plan.json", "--json").json["was_finished"]


def test_the_names_in_a_group_and_the_old_ones_do_the_same(forge: Forge, model: Path) -> None:
    assert forge("job", "plan", model, "-o", "new.gguf", "--tasks", "2").code == 0
    assert [forge("job", "work", "plan.json", "--task", task).code for task in (0, 1)] == [0, 0]
    assert forge("job", "finish", "plan.json").code == 0
    assert forge("plan", model, "-o", "old.gguf", "--save-plan", "old.json", "--tasks", "2").code == 0
    assert [forge("work", "old.json", "--task", task).code for task in (0, 1)] == [0, 0]
    assert forge("finish", "old.json").code == 0
    assert Path("new.gguf").read_bytes() == Path("old.gguf").read_bytes()
    assert forge("plan", model, "-o", "new.gguf", "--save-plan", "same.json", "--tasks", "2").code == 0
    assert Path("same.json").read_text() == Path("plan.json").read_text()


def test_quiet_says_nothing(forge: Forge, model: Path) -> None:
    for command in (
        ("plan", model, "-o", "m.gguf", "--save-plan", "plan.json"),
        ("work", "plan.json", "--task", "0"),
        ("finish", "plan.json"),
    ):
        ran = forge(*command, "--quiet")
        assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_a_gguf_file_can_be_planned(forge: Forge, model: Path) -> None:
    forge("convert", model, "-o", "base.gguf", "-t", "Q8_0")
    assert "already quantized" in forge("plan", "base.gguf", "-t", "Q4_0").err
    planned = forge("plan", "base.gguf", "-t", "Q4_0", "--allow-requantize", "-o", "m.gguf", "--json")
    assert (planned.code, planned.file["type"]) == (0, "Q4_0")


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (("plan", "MODEL", "--tasks", "2"), 2, "name its file with --save-plan plan.json"),
        (("plan", "MODEL", "--save-plan", "plan.json", "--tasks", "0"), 2, "--tasks"),
        (("plan", "MODEL", "--save-plan", "plan.json"), 8, "plan.json: already exists"),
        (("plan", "MODEL", "--save-plan", "nowhere/plan.json"), 5, "the folder does not exist"),
        (("plan", "MODEL", "--save-plan", "m.gguf"), 2, "this is the name of a GGUF file, and a plan of tasks is none"),
        (("work", "plan.json"), 2, "--task"),
        (("work", "plan.json", "--task", "4"), 2, "there is no task 4"),
        (("work", "missing.json", "--task", "0"), 4, "missing.json: the file is missing\nhint: check the path, or "),
        (("work", "notes.json", "--task", "0"), 4, "this is not a plan of gguf-forge"),
        (("finish", "plan.json"), 4, "2 of 2 tasks are not done: tasks 0-1"),
        (("finish", "missing.json"), 4, "missing.json"),
    ],
)
def test_refusals(forge: Forge, model: Path, command: tuple[str, ...], code: int, message: str) -> None:
    Path("notes.json").write_text("{}")
    assert forge("plan", model, "--save-plan", "plan.json", "--tasks", "2").code == 0
    ran = forge(*(model if word == "MODEL" else word for word in command))
    assert ran.code == code
    assert message in ran.err


@pytest.mark.parametrize("out", ["new/", "new/deep/x.gguf", "new/x-{ftype}.gguf"])
def test_the_plan_makes_the_folder_of_the_outputs(forge: Forge, model: Path, out: str) -> None:
    planned = forge("job", "plan", model, "-t", "Q8_0", "-o", out)
    assert (planned.code, planned.err) == (0, "")
    assert forge("job", "work", "plan.json", "--task", "0").code == 0
    (file,) = forge("job", "finish", "plan.json", "--json").json["files"]
    assert forge("convert", model, "-t", "Q8_0", "-o", "other.gguf").code == 0
    assert Path(file["path"]).read_bytes() == Path("other.gguf").read_bytes()


def test_files_are_named_without_detours(forge: Forge, model: Path) -> None:
    Path("job").mkdir()
    assert forge("job", "plan", model, "-o", "job/m.gguf", "--save-plan", "job/plan.json").code == 0
    (part,) = forge("job", "work", "job/plan.json", "--task", "0", "--json").json["parts"]
    assert Path(part).parent.parent == Path("job")
    assert forge("job", "finish", "job/plan.json", "--json").json["files"][0]["path"] == "job/m.gguf"
    again = forge("job", "finish", Path("job/plan.json").absolute(), "--json")
    assert again.code == 0, again.err
    assert again.json["files"][0]["path"] == str(Path("job/m.gguf").resolve())


def test_a_plan_that_is_not_written_makes_no_folder(forge: Forge, model: Path) -> None:
    assert forge("job", "plan", model, "-o", "new/", "--save-plan", "nowhere/plan.json").code == 5
    assert not Path("new").exists()
