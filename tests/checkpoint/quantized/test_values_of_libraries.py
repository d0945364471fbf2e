"""The weights of the corpus that llama.cpp's converter refuses: their values are those of the formats' own libraries.

Blocks that can be kept have these values, too, as gguf-py reads them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from corpus import CORPUS, Cases
from gguf import GGMLQuantizationType, dequantize

from gguf_forge.checkpoint import Checkpoint
from gguf_forge.checkpoint.logical import logical_tensors
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.exact_blocks import as_exact_blocks
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import RowRange

_VALUES = sorted(CORPUS.glob("quantized/*/expected/values.json"))
# The cases whose weights become blocks, and the type of these.
_KEPT = {
    "llama3-ct-int8-channel": "Q8_0",
    "llama3-eetq-int8": "Q8_0",
    "llama3-quanto-int8": "Q8_0",
    "mistral-gptq4-nogroup": "Q4_0",
    "qwen2-awq": "Q5_0",
    "qwen2-ct-groups": "Q4_0 Q8_0",
    "qwen2-ct-w8a8": "Q8_0",
    "qwen2-gptq3": "Q4_0",
    "qwen3-autoround": "Q4_0",
    "qwen3-ct-mxfp4": "MXFP4",
    "qwen3-mlx-4bit": "Q4_1",
    "qwen3-mlx-mxfp4": "MXFP4",
    "qwen3-torchao-int8": "Q8_0",
    "qwen3moe-mlx-4bit": "Q4_1",
}


@pytest.mark.parametrize("path", _VALUES, ids=lambda path: path.parents[1].name)
def test_values_are_those_of_the_library(path: Path, cases: Cases) -> None:
    case = path.parents[1]
    kept: set[str] = set()
    with Checkpoint.of(LocalFolder(cases.folder_of(case) / "hf")) as checkpoint:
        found = logical_tensors(checkpoint)
        for name, weight in json.loads(path.read_text())["weights"].items():
            if not weight["quantized"]:
                continue
            expr = weight_of(found, name)
            values = expr.rows(0, expr.n_rows)
            assert values.dtype == np.float32
            assert digest(values) == weight["sha256"]
            blocks = as_exact_blocks(expr)
            if blocks is None:
                continue
            kept.add(blocks.dtype.name)
            stored = np.ascontiguousarray(blocks.rows(0, blocks.n_rows)).view(np.uint8)
            unpacked = dequantize(stored, GGMLQuantizationType[blocks.dtype.name]).reshape(values.shape)
            if blocks.dtype.name == "MXFP4":  # its blocks have one zero, and the formats have two
                np.testing.assert_array_equal(unpacked, values)
            else:
                assert digest(unpacked) == weight["sha256"]
    assert kept == set(_KEPT.get(case.name, "").split())


def weight_of(found: Mapping[str, TensorExpr], name: str) -> TensorExpr:
    """A weight; of a stack, as MLX stores experts, one of its matrices."""
    if name in found:
        return found[name]
    before, number, after = re.split(r"\.experts\.(\d+)\.", name)
    stack = found[f"{before}.switch_mlp.{after}"]
    rows = stack.matrix_rows
    return RowRange(stack, int(number) * rows, (int(number) + 1) * rows)


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
