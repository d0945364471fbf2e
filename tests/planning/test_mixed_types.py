"""Experts of one layer that are stored in different float types, as tools that merge models leave them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic import FAMILIES, Tensors, read_description, write_checkpoint

from gguf_forge.planning.making import convert


def as_other_types(types: dict[str, str]) -> Callable[[Tensors], None]:
    """Stores the tensors with these words in their names in these types."""

    def change(tensors: Tensors) -> None:
        for name, (_, shape) in list(tensors.items()):
            for word, dtype in types.items():
                if word in name:
                    tensors[name] = (dtype, shape)

    return change


# The digests are of llama.cpp's own converter and llama-quantize, of the same checkpoints.
@pytest.mark.parametrize(
    ("family", "types", "digests"),
    [
        (
            "mixtral",
            {"experts.1.w2": "F32", "experts.2.w1": "F32", "experts.3.w3": "F16"},
            {
                "auto": "17664e9873addc90b821179eec9720fdcc5a4a06421a8ef75e884d7c5742d7b3",
                "F16": "6727933b5a787c7053799c2b8633d5d53a545eb01235129df98c29c4b6414c78",
                "Q4_K_M": "13f493d190eee76016953f9c18ab62016eec1a30e583acd200dc291b76f24cee",
            },
        ),
        (
            "qwen3moe",
            {"experts.1.up_proj": "F32", "experts.0.down_proj": "F32"},
            {
                "auto": "555443c28c6d7bf97b226f3ca77258a8010865d7606bad5bc7fbb1aa28f4f135",
                "F16": "28732f1d93b66294094fb89c014c6a389198c16766964f94b349d2bbfe149fcd",
                "Q4_K_M": "dcc761c235fa2f0fc92853d79dcbed69151b20cc99d2ca067dd88d1cf3b2287c",
            },
        ),
    ],
)
def test_the_files_are_those_of_the_reference(
    family: str, types: dict[str, str], digests: dict[str, str], tmp_path: Path
) -> None:
    source = write_checkpoint(FAMILIES / family, tmp_path / "hf", change=as_other_types(types))
    pre_tokenizer = read_description(FAMILIES / family).pre_tokenizer
    written = convert(source, tmp_path / "{ftype}.gguf", types=list(digests), pre_tokenizer=pre_tokenizer)
    found = [hashlib.sha256(file.path.read_bytes()).hexdigest() for file in written]
    assert found == list(digests.values())
