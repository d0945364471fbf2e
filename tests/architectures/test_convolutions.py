"""Convolutions over time are as long as the config says, because llama.cpp loads them with that length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import plan
from gguf_forge.errors import InputError

LENGTHS = {
    "kimi-linear": ("linear_attn_config", "short_conv_kernel_size"),
    "bailingmoe3": ("short_conv_kernel_size",),
    "bamba": ("mamba_d_conv",),
    "jamba": ("mamba_d_conv",),
    "lfm2-moe": ("conv_L_cache",),
    "nemotron-h-moe": ("conv_kernel",),
    "qwen35": ("linear_conv_kernel_dim",),
}


def changed(family: str, folder: Path, length: int | None) -> Path:
    """A checkpoint whose config says another length, or none."""
    source = write_checkpoint(FAMILIES / family, folder)
    config = json.loads((source / "config.json").read_text())
    place: dict[str, Any] = config
    for key in LENGTHS[family][:-1]:
        place = place[key]
    del place[LENGTHS[family][-1]]
    if length is not None:
        place[LENGTHS[family][-1]] = length
    (source / "config.json").write_text(json.dumps(config))
    return source


@pytest.mark.parametrize("family", LENGTHS)
def test_other_lengths_are_refused(family: str, tmp_path: Path) -> None:
    source = changed(family, tmp_path / "hf", 7)
    with pytest.raises(InputError, match=r"conv.*\.weight has kernels of [34], the config says 7") as refused:
        plan(source, types="F16", pre_tokenizer=read_description(FAMILIES / family).pre_tokenizer)
    assert refused.value.hint == "are config.json and the weights of the same model?"


def test_a_missing_length_is_refused(tmp_path: Path) -> None:
    source = changed("kimi-linear", tmp_path / "hf", None)
    with pytest.raises(InputError, match="has kernels of 4, the config has none"):
        plan(source, types="F16", pre_tokenizer=read_description(FAMILIES / "kimi-linear").pre_tokenizer)
