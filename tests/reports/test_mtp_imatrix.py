"""Tensors that need importance and have none: the way out is named, and there is an option for all of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import Forge, Run
from imatrices import write_gguf

from gguf_forge import UsageError
from gguf_forge.gguf_file.opened import open_gguf


@pytest.fixture
def quantized(made: Callable[..., Path], forge: Forge) -> Callable[..., Run]:
    folder = made()

    def run(*more: object, matrix: Path = folder / "imatrix.gguf", file_type: str = "IQ2_XS") -> Run:
        return forge("quantize", folder / "mtp.gguf", "out.gguf", file_type, "--imatrix", matrix, *more)

    return run


def types_of_layer_2() -> set[str]:
    with open_gguf("out.gguf") as gguf:
        return {
            tensor.type.name for tensor in gguf.tensors if tensor.name.startswith("blk.2.") and len(tensor.shape) > 1
        }


def test_the_hint_is_the_line_that_works(quantized: Callable[..., Run]) -> None:
    run = quantized()
    said = " ".join(run.err.split())
    assert run.code == UsageError.exit_code
    assert "7 of them in the layers that predict further tokens, which llama-imatrix does not run" in said
    (option,) = re.findall(r"--tensor-type '\S+'", said)
    assert option == r"--tensor-type '^blk\.2\.=q6_k'"
    assert quantized(*shlex.split(option)).code == 0
    assert types_of_layer_2() == {"Q6_K"}


@pytest.mark.parametrize("file_type", ["IQ2_XS", "IQ1_S", "IQ3_XXS", "Q2_K_S"])
def test_one_option_for_all_that_the_matrix_lacks(file_type: str, quantized: Callable[..., Run]) -> None:
    assert quantized(file_type=file_type).code == UsageError.exit_code
    assert quantized("--uncovered-type", "q6_k", file_type=file_type).code == 0
    assert "Q6_K" in types_of_layer_2()


def test_other_types_only_warn(quantized: Callable[..., Run]) -> None:
    run = quantized("--json", file_type="Q4_K_M")
    (warning,) = run.json["files"][0]["warnings"]
    assert "(8 of them in the layers that predict further tokens" in warning


def test_a_tensor_of_a_usual_layer(quantized: Callable[..., Run], tmp_path: Path) -> None:
    names = ("attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    entry = np.ones((1, 256), np.float32), np.ones(1, np.float32)
    write_gguf(tmp_path / "m.gguf", {f"blk.{i}.{name}.weight": entry for i in range(3) for name in names})
    run = quantized(matrix=tmp_path / "m.gguf")
    said = " ".join(run.err.split())
    assert run.code == UsageError.exit_code
    assert "--uncovered-type Q6_K" in said and "--tensor-type" not in said
    assert quantized("--uncovered-type", "Q6_K", matrix=tmp_path / "m.gguf").code == 0
