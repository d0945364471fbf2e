"""Zeros in an importance matrix do not wipe out weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import tiny_llama
from command_line import Forge
from imatrices import write_gguf, write_legacy
from numpy.typing import NDArray

from gguf_forge import convert, dequantize
from gguf_forge.gguf_file.opened import open_gguf


def values(file: Path, name: str) -> NDArray[np.float32]:
    with open_gguf(file) as gguf:
        (tensor,) = (tensor for tensor in gguf.tensors if tensor.name == name)
        if tensor.type.is_float:
            return tensor.data().view(tensor.type.dtype).astype(np.float32).reshape(-1, tensor.shape[0])
        rows = tensor.data().reshape(-1, tensor.type.row_bytes(tensor.shape[0]))
        return dequantize(rows, tensor.type)


def error(made: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(made - wanted) / np.linalg.norm(wanted))


NAME = "blk.0.attn_q.weight"


@pytest.mark.parametrize("file_type", ["Q4_K_M", "Q6_K", "Q2_K", "Q4_0", "IQ4_XS", "IQ2_XS"])
def test_unseen_columns_are_kept(file_type: str, made: Callable[..., Path], forge: Forge) -> None:
    folder = made()
    paths = {}
    for matrix, more in (("good", ()), ("zeros", ()), ("reference", ("--as-reference",))):
        file = "zeros" if matrix == "reference" else matrix
        paths[matrix] = folder / f"{matrix}.gguf"
        matrix_file = folder / f"{file}-imatrix.gguf"
        run = forge(
            "quantize", folder / "base.gguf", paths[matrix], file_type, "--imatrix", matrix_file, "--json", *more
        )
        assert run.code == 0
        said = [line for line in run.json["files"][0]["warnings"] if "share a scale" in line]
        assert len(said) == (file == "zeros")
        assert all(f"{NAME} (256 columns)" in line for line in said)
    wanted = values(folder / "base.gguf", NAME)
    seen, unseen = slice(256, None), slice(None, 256)
    usual = error(values(paths["good"], NAME)[:, unseen], wanted[:, unseen])
    assert error(values(paths["zeros"], NAME)[:, unseen], wanted[:, unseen]) < 1.2 * usual
    if not file_type.startswith("IQ2"):
        assert not values(paths["reference"], NAME)[:, unseen].any()
    zeros, reference = values(paths["zeros"], NAME), values(paths["reference"], NAME)
    assert zeros[:, seen].tobytes() == reference[:, seen].tobytes()


def test_types_that_ignore_importance_say_nothing(made: Callable[..., Path], forge: Forge) -> None:
    folder = made()
    run = forge(
        "quantize", folder / "base.gguf", "o.gguf", "Q8_0", "--imatrix", folder / "zeros-imatrix.gguf", "--json"
    )
    assert not any("share a scale" in line for line in run.json["files"][0]["warnings"])


@pytest.mark.parametrize("write", [write_gguf, write_legacy])
def test_a_tensor_that_was_never_seen(write: Callable[..., Any], tmp_path: Path) -> None:
    """Its sums are zero although it was counted. A checkpoint's files are quantized with the same care."""
    model = tiny_llama(tmp_path)
    ones = np.ones((1, 256), np.float32)
    counts = np.full(1, 64, np.float32)
    with_zeros = {f"blk.{i}.{part}.weight": (ones, counts) for i in (0, 1) for part in ("attn_q", "ffn_down")}
    with_zeros[NAME] = (0 * ones, counts)
    write(tmp_path / "imatrix", with_zeros)
    (made,) = convert(model, tmp_path / "out.gguf", types="Q4_K_M", imatrix=str(tmp_path / "imatrix"))
    assert any(f"{NAME} (256 columns)" in line for line in made.file.warnings)
    (plain,) = convert(model, tmp_path / "plain.gguf", types="Q4_K_M")
    (floats,) = convert(model, tmp_path / "floats.gguf", types="F32")
    wanted = values(floats.path, NAME)
    assert error(values(made.path, NAME), wanted) < 1.2 * error(values(plain.path, NAME), wanted)


def test_imatrix_show_says_what_zeros_mean(made: Callable[..., Path], forge: Forge) -> None:
    folder = made()
    assert "1 tensors have columns of zeros." in " ".join(
        forge("imatrix", "show", folder / "zeros-imatrix.gguf").out.split()
    )
    assert "zeros." not in forge("imatrix", "show", folder / "good-imatrix.gguf").out


def test_single_zeros_change_nothing(made: Callable[..., Path], forge: Forge, tmp_path: Path) -> None:
    """The reference copes with them, so the bytes stay its own."""
    folder, counts = made(), np.full(1, 64, np.float32)
    with open_gguf(folder / "good-imatrix.gguf") as gguf:
        sums = {
            tensor.name.removesuffix(".in_sum2"): (
                tensor.data().view("<f4").reshape(1, -1).copy(),
                counts,
            )
            for tensor in gguf.tensors
            if tensor.name.endswith(".in_sum2")
        }
    for each, _ in sums.values():
        each[:, ::2] = 0
    write_gguf(tmp_path / "single.gguf", sums)
    given = ("quantize", folder / "base.gguf"), ("Q4_K_M", "--imatrix", tmp_path / "single.gguf")
    assert forge(*given[0], "a.gguf", *given[1]).code == 0
    assert forge(*given[0], "b.gguf", *given[1], "--as-reference").code == 0
    assert (tmp_path / "here" / "a.gguf").read_bytes() == (tmp_path / "here" / "b.gguf").read_bytes()


def test_verify_knows_both_ways(made: Callable[..., Path], forge: Forge) -> None:
    folder = made()
    matrix = ("--imatrix", folder / "zeros-imatrix.gguf")
    for name, more in (("ours", ()), ("theirs", ("--as-reference",))):
        assert forge("quantize", folder / "base.gguf", f"{name}.gguf", "Q4_K_M", *matrix, *more).code == 0
        checked = ("verify", f"{name}.gguf", "--source", folder / "base.gguf", *matrix)
        assert forge(*checked, *more).code == 0
        assert forge(*checked, *(() if more else ("--as-reference",))).code == 7
