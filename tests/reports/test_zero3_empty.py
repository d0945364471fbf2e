"""Weights that were saved without being gathered."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import tiny_llama
from reports import MadeInput
from weights import Held, rewritten

from gguf_forge import InputError, plan

EMPTY: Held = ("BF16", [0], b"")


def test_the_cause_is_named(made: MadeInput) -> None:
    with pytest.raises(InputError, match="15 of 26 tensors have no elements") as caught:
        plan(made(), pre_tokenizer="qwen2")
    for word in ("ZeRO-3", "zero_to_fp32.py", "stage3_gather_16bit_weights_on_model_save"):
        assert word in str(caught.value.hint)


def test_all_tensors(tmp_path: Path) -> None:
    """ZeRO-3 cuts vectors, too."""
    empty = rewritten(tiny_llama(tmp_path), tmp_path / "empty", lambda tensors: dict.fromkeys(tensors, EMPTY))
    with pytest.raises(InputError, match="21 of 21 tensors have no elements"):
        plan(empty)


def test_experts(tmp_path: Path) -> None:
    """Only one of many matrices was not gathered."""

    def one(tensors: dict[str, Held]) -> dict[str, Held]:
        return tensors | {"model.layers.1.mlp.down_proj.weight": EMPTY}

    with pytest.raises(InputError, match=r"1 of 21 tensors have no elements: model\.layers\.1\.mlp\.down_proj\.weight"):
        plan(rewritten(tiny_llama(tmp_path), tmp_path / "one", one))


def test_a_matrix_without_rows_is_told_from_it(tmp_path: Path) -> None:
    def one(tensors: dict[str, Held]) -> dict[str, Held]:
        return tensors | {"model.layers.1.mlp.down_proj.weight": ("BF16", [0, 256], b"")}

    with pytest.raises(InputError, match=r"shape \[0, 256\] holds nothing") as caught:
        plan(rewritten(tiny_llama(tmp_path), tmp_path / "one", one))
    assert caught.value.hint is None
