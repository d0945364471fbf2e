"""`--parts` on the command line: what is said, shown and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Forge
from projectors import write_with_all_parts
from synthetic import FAMILIES, read_description, write_checkpoint

HINTS = ("--pre-tokenizer", read_description(FAMILIES / "qwen35").pre_tokenizer)
SAID = "--parts all makes a file of each"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_with_all_parts(tmp_path / "hf")


def test_a_plain_conversion_says_in_a_line_which_parts_there_are(forge: Forge, source: Path) -> None:
    run = forge("convert", source, *HINTS)
    (line,) = [line for line in run.err.splitlines() if SAID in line]
    assert "more parts, mmproj (encoders of pictures or sound) and mtp (layers that predict further tokens):" in line


@pytest.mark.parametrize("options", [("--parts", "main"), ("--mmproj",), ("--mtp",), ("--vocab-only",)])
def test_who_asked_for_a_part_is_not_told_of_others(forge: Forge, source: Path, options: tuple[str, ...]) -> None:
    assert SAID not in forge("convert", source, *HINTS, *options).err


def test_what_is_left_out_on_purpose_is_not_named(forge: Forge, source: Path) -> None:
    said = forge("convert", source, *HINTS, "--no-mtp").err
    assert "more parts, mmproj (encoders of pictures or sound): --parts" in said


def test_a_model_of_one_part_says_nothing(forge: Forge, tmp_path: Path) -> None:
    source = write_checkpoint(FAMILIES / "qwen2", tmp_path / "hf")
    pre = read_description(FAMILIES / "qwen2").pre_tokenizer
    assert SAID not in forge("convert", source, *(("--pre-tokenizer", pre) if pre else ())).err


def test_a_plan_shows_what_belongs_to_which_part(forge: Forge, source: Path) -> None:
    options = ("--parts", "all", "-t", "main:Q4_K_M,Q8_0", "-t", "mmproj:Q8_0", *HINTS)
    shown = forge("plan", source, *options, "--summary").out
    rows = [line.split()[:2] for line in shown.splitlines() if ".gguf" in line]
    assert rows == [
        *(["main", "Q4_K_M"], ["main", "Q8_0"], ["mmproj", "Q8_0"], ["mtp", "Q4_K_M"], ["mtp", "Q8_0"]),
    ]
    files = json.loads(forge("plan", source, *options, "--json").out)["files"]
    of_part = {(file["part"], file["type"]): {tensor["name"] for tensor in file["tensors"]} for file in files}
    assert "token_embd.weight" in of_part["main", "Q8_0"] & of_part["mtp", "Q8_0"]
    assert "v.patch_embd.weight" in of_part["mmproj", "Q8_0"]
    assert [file["part"] for file in files] == ["main", "main", "mmproj", "mtp", "mtp"]


def test_a_note_on_types_names_the_file(forge: Forge, source: Path) -> None:
    shown = " ".join(forge("convert", source, *HINTS, "--parts", "all", "-t", "Q4_K_M").out.split())
    assert "fallback: Hf-250K-Q4_K_M.gguf: 32 of 56 tensors" in shown
    assert "fallback: mtp-Hf-Q4_K_M.gguf: 9 of 18 tensors" in shown


def test_a_part_that_is_not_there_is_an_error_that_names_those_that_are(forge: Forge, source: Path) -> None:
    run = forge("convert", source, *HINTS, "--parts", "main,eagle")
    assert run.code == 2
    assert "the model has no part eagle" in run.err
    assert "it has main, mmproj, mtp" in run.err
