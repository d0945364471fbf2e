from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import Forge
from imatrices import made_up, write_gguf, write_legacy
from synthetic import FAMILIES, write_checkpoint

from gguf_forge.checkpoint import Checkpoint
from gguf_forge.planning.model_plan import plan_infos


@pytest.fixture
def mixtral(tmp_path: Path) -> Path:
    return write_checkpoint(FAMILIES / "mixtral", tmp_path / "hf")


@pytest.fixture
def matrix(mixtral: Path, tmp_path: Path) -> Path:
    """A matrix without the entry of one tensor, with one of a tensor that is not there, and one that does not fit."""
    infos, _ = plan_infos(Checkpoint.open(mixtral))
    entries = made_up(infos)
    entries["blk.7.attn_q.weight"] = entries.pop("blk.0.attn_q.weight")
    entries["blk.0.attn_k.weight"] = tuple(
        part[:, :8] if part.ndim > 1 else part for part in entries["blk.0.attn_k.weight"]
    )  # type: ignore[assignment]
    write_gguf(tmp_path / "m.gguf", entries)
    return tmp_path / "m.gguf"


def test_show_lists_every_tensor(forge: Forge, matrix: Path) -> None:
    run = forge("imatrix", "show", matrix)
    assert run.code == 0
    assert "chunks    12" in run.out
    (line,) = [line for line in run.out.splitlines() if line.startswith("blk.1.ffn_up_exps.weight")]
    columns, half, *counts = line.split()[1:]
    assert (columns, counts) == ("256", ["0", "4", "1", "0", "to", "3072"])
    assert half.endswith("%") and 0 < float(half[:-1]) < 50


def test_show_tells_how_few_columns_hold_half_of_the_importance(forge: Forge, tmp_path: Path) -> None:
    values = np.ones((1, 256), np.float32)
    values[0, :5] = 100
    write_gguf(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": (values, np.float32([[1]]))})
    (row,) = forge("imatrix", "show", tmp_path / "m.gguf", "--json").json["tensors"]
    assert row["half_columns"] == 4  # 400 of 751
    assert " 1.6% " in forge("imatrix", "show", tmp_path / "m.gguf").out


def test_show_explains_its_columns(forge: Forge, matrix: Path) -> None:
    assert (
        "zero: columns that no text activated; unused: experts that no text reached"
        in forge("imatrix", "show", matrix).out
    )


def test_without_a_command_it_says_how_to_get_a_matrix(forge: Forge) -> None:
    run = forge("imatrix")
    assert (run.code, run.err) == (0, "")
    assert "llama-imatrix -m model-BF16.gguf -f calibration.txt -o imatrix.gguf" in run.out
    assert "gguf-forge convert MODEL -t IQ3_S --imatrix imatrix.gguf" in run.out


def test_show_as_json(forge: Forge, matrix: Path) -> None:
    found = forge("imatrix", "show", matrix, "--json").json
    assert found["datasets"] == ["calibration.txt"]
    assert {"name", "columns", "experts", "unused_experts"} <= found["tensors"][0].keys()
    assert "missing" not in found


def test_show_tells_what_a_model_misses(forge: Forge, matrix: Path, mixtral: Path) -> None:
    found = forge("imatrix", "show", matrix, mixtral, "--json").json
    assert found["missing"] == ["token_embd.weight", "blk.0.attn_q.weight"]
    assert found["misfits"] == ["blk.0.attn_k.weight"]
    assert found["unknown"] == ["blk.7.attn_q.weight"]
    text = " ".join(forge("imatrix", "show", matrix, mixtral).out.split())
    assert "2 tensors that can be quantized, but that the matrix does not cover: token_embd.weight, blk.0" in text
    assert "1 tensor of the matrix that the model lacks: blk.7.attn_q.weight" in text


def test_a_gguf_file_is_a_model_too(forge: Forge, matrix: Path, mixtral: Path, tmp_path: Path) -> None:
    assert forge("convert", mixtral, "-o", tmp_path / "f16.gguf", "-t", "F16", "--quiet").code == 0
    of_file = forge("imatrix", "show", matrix, tmp_path / "f16.gguf", "--json").json
    of_folder = forge("imatrix", "show", matrix, mixtral, "--json").json
    assert {**of_file, "missing": sorted(of_file["missing"])} == {**of_folder, "missing": sorted(of_folder["missing"])}


def test_converting_with_a_matrix_that_does_not_fit_is_refused(
    forge: Forge, matrix: Path, mixtral: Path, tmp_path: Path
) -> None:
    run = forge("convert", mixtral, "-o", tmp_path / "out.gguf", "--imatrix", matrix)
    assert run.code == 4
    assert "blk.0.attn_k.weight" in run.err
    left_out = ["--exclude-weights", "attn_k"]
    assert forge("convert", mixtral, "-o", tmp_path / "out.gguf", "--imatrix", matrix, *left_out, "--quiet").code == 0


def test_choosing_weights_needs_a_matrix(forge: Forge, mixtral: Path) -> None:
    run = forge("convert", mixtral, "--include-weights", "attn")
    assert run.code == 2
    assert "give one with --imatrix" in run.err


def test_q2_k_s_works_with_a_matrix_only(forge: Forge, mixtral: Path, tmp_path: Path) -> None:
    infos, _ = plan_infos(Checkpoint.open(mixtral))
    write_legacy(tmp_path / "m.dat", {name: entry for name, entry in made_up(infos).items() if len(entry[1]) == 1})
    run = forge("convert", mixtral, "-o", tmp_path / "out.gguf", "-t", "Q2_K_S")
    assert run.code == 2
    assert "needs an importance matrix" in run.err
    partly = forge("convert", mixtral, "-o", tmp_path / "out.gguf", "-t", "Q2_K_S", "--imatrix", tmp_path / "m.dat")
    assert partly.code == 2
    assert "blk.0.ffn_down_exps.weight" in partly.err
    write_gguf(tmp_path / "m.gguf", made_up(infos))
    whole = forge("convert", mixtral, "-o", tmp_path / "out.gguf", "-t", "Q2_K_S", "--imatrix", tmp_path / "m.gguf")
    assert whole.code == 0
