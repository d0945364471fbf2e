"""A matrix that does not cover the model is not ignored in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_llama
from command_line import Forge, Run, listing
from imatrices import write_gguf

from gguf_forge import InputError, convert, plan
from gguf_forge.gguf_file.opened import open_gguf


@pytest.fixture
def quantized(made: Callable[..., Path], forge: Forge) -> Callable[..., Run]:
    folder = made()

    def run(matrix: str, file_type: str = "Q4_K_M", *more: str) -> Run:
        return forge(
            "quantize", folder / "base.gguf", "out.gguf", file_type, "--imatrix", folder / matrix, *more, "--json"
        )

    return run


def test_what_the_matrix_lacks_is_counted_and_named(quantized: Callable[..., Run]) -> None:
    (warning,) = quantized("partial-imatrix.gguf").json["files"][0]["warnings"]
    assert warning.startswith("7 of 14 quantized tensors have no importance in the matrix: blk.1.attn_k.weight, ")
    assert "token_embd" not in warning and " output.weight" not in warning


def test_a_matrix_that_covers_nothing_is_refused(quantized: Callable[..., Run], tmp_path: Path) -> None:
    run = quantized("other-imatrix.gguf")
    assert run.code == InputError.exit_code
    assert "none of its 14 entries belongs to a tensor that is quantized: it has layers.0.attn_k.weight" in run.err
    assert listing(tmp_path / "here") == []
    assert "it would be refused: " in quantized("other-imatrix.gguf", "Q4_K_M", "--dry-run").out


def test_as_reference_ignores_it_and_records_it(quantized: Callable[..., Run]) -> None:
    run = quantized("other-imatrix.gguf", "Q4_K_M", "--as-reference")
    assert run.code == 0
    assert any(
        "14 of 14 entries of the importance matrix belong to no tensor" in line
        for line in run.json["files"][0]["warnings"]
    )
    with open_gguf("out.gguf") as gguf:
        assert gguf.metadata["quantize.imatrix.entries_count"] == 14


def test_nothing_is_recorded_where_nothing_is_quantized(quantized: Callable[..., Run]) -> None:
    run = quantized("partial-imatrix.gguf", "COPY")
    assert run.json["files"][0]["warnings"] == ["no tensor is quantized, so the importance matrix is not used"]
    with open_gguf("out.gguf") as gguf:
        assert not any(key.startswith("quantize.imatrix") for key in gguf.metadata)


def test_what_the_user_leaves_out_is_not_missing(quantized: Callable[..., Run]) -> None:
    (warning,) = quantized("partial-imatrix.gguf", "Q4_K_M", "--exclude-weights", "blk.0.attn").json["files"][0][
        "warnings"
    ]
    assert warning.startswith("7 of")
    run = quantized("partial-imatrix.gguf", "Q4_K_M", "--overwrite", "--include-weights", "blk.7")
    (warning,) = run.json["files"][0]["warnings"]
    assert "leave nothing of the importance matrix" in warning


@pytest.mark.parametrize("name", ["layers.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight"])
def test_a_checkpoint_and_a_matrix_with_other_names(name: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", {name: (np.ones((1, 256), np.float32), np.ones(1, np.float32))})
    with pytest.raises(InputError, match="none of its 1 entries belongs to a tensor that is quantized"):
        convert(tiny_llama(tmp_path), tmp_path / "out.gguf", types="Q4_K_M", imatrix=str(tmp_path / "m.gguf"))


def test_a_matrix_of_a_deeper_model(tmp_path: Path) -> None:
    names = [f"blk.{i}.attn_q.weight" for i in range(4)]
    write_gguf(tmp_path / "m.gguf", {name: (np.ones((1, 256), np.float32), np.ones(1, np.float32)) for name in names})
    (file,) = plan(tiny_llama(tmp_path), tmp_path / "out.gguf", types="Q4_K_M", imatrix=str(tmp_path / "m.gguf"))
    assert (
        "2 of 4 entries of the importance matrix belong to no tensor of this model: blk.2.attn_q.weight"
        in file.warnings[1]
    )
