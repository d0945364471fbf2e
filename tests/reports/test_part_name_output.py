"""A whole file does not get the name of a part of a split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import tiny_gguf, tiny_llama
from command_line import Forge, listing

from gguf_forge import Request, UsageError, convert, edit_gguf, plan_work
from gguf_forge.gguf_file.opened import open_gguf

PART = "out-00001-of-00002.gguf"


def test_quantize_refuses_and_names_both_ways(made: Callable[..., Path], forge: Forge, tmp_path: Path) -> None:
    run = forge("quantize", made() / "in-00001-of-00002.gguf", PART, "Q8_0")
    said = " ".join(run.err.split())
    assert run.code == UsageError.exit_code
    assert "this is the name of one of 2 parts of a split, and the output is a whole file" in said
    assert "choose out.gguf, or add --keep-split" in said
    assert listing(tmp_path / "here") == []


def test_keep_split_takes_the_beginning_of_the_name(made: Callable[..., Path], forge: Forge, tmp_path: Path) -> None:
    assert forge("quantize", made() / "in-00001-of-00002.gguf", PART, "Q8_0", "--keep-split").code == 0
    assert listing(tmp_path / "here") == ["out-00001-of-00002.gguf", "out-00002-of-00002.gguf"]
    assert forge("inspect", PART).code == 0


@pytest.mark.parametrize("more", [("--split-max-tensors", "5"), ("--no-tensor-first-split",)])
def test_other_splits_do_as_well(more: tuple[str, ...], made: Callable[..., Path], forge: Forge) -> None:
    assert forge("quantize", made() / "in-00001-of-00002.gguf", "out-00007-of-00009.gguf", "Q8_0", *more).code == 0
    first = min(Path().glob("out-00001-of-*.gguf"))
    with open_gguf(first) as gguf:
        assert len(gguf.tensors) == 21
    assert not any("00009" in path.name for path in Path().iterdir())


def test_commands_that_write_one_file(made: Callable[..., Path], forge: Forge, tmp_path: Path) -> None:
    part, whole = made() / "in-00001-of-00002.gguf", tiny_gguf(tmp_path)
    for command in (
        ("merge", part, PART),
        ("edit", whole, "--set", "general.name=x", "-o", PART),
        ("dequantize", whole, "-o", PART),
        ("convert", tiny_llama(tmp_path / "more"), "-o", PART),
        ("quantize", whole, PART, "Q8_0"),
    ):
        run = forge(*command)
        assert (run.code, "choose out.gguf" in run.err) == (UsageError.exit_code, True), (command, run.err)
        assert ("--keep-split" in run.err) is False
    assert listing(tmp_path / "here") == []


def test_a_job_is_refused_when_it_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_llama(tmp_path)
    with pytest.raises(UsageError, match=r"choose out\.gguf"):
        plan_work(Request(source="Tiny", out=PART, types=("Q8_0",)), tasks=2)


def test_a_split_of_one_part_keeps_its_name(tmp_path: Path, forge: Forge) -> None:
    assert forge("split", tiny_gguf(tmp_path), "m").code == 0
    assert listing(tmp_path / "here") == ["m-00001-of-00001.gguf"]


def test_a_usual_name_with_similar_digits(tmp_path: Path) -> None:
    for name in ("out-1-of-2.gguf", "out-00001-of-00002.gguf.bak", "00001-of-00002.gguf"):
        convert(tiny_llama(tmp_path / name), tmp_path / name / "x.gguf", types="Q8_0")
        edit_gguf(tmp_path / name / "x.gguf", tmp_path / name / name, set={"general.name": "x"})
