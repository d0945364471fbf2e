"""What lies between a checkpoint's tensor and a file's, in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from gguf_forge.engine.batches import RowSource
from gguf_forge.tensors.arithmetic import Add
from gguf_forge.tensors.expression import TensorExpr, Unary
from gguf_forge.tensors.joined import Stack
from gguf_forge.tensors.row_maps import Reshape, Slice, Transpose, permute_rope
from gguf_forge.tensors.stored import Constant, Stored
from gguf_forge.toolbox.verify.transforms import steps_of, transforms_of
from gguf_forge.types.tensor_type import BF16, F16, F32, TENSOR_TYPES


def _tensor(*shape: int, kind: object = BF16) -> Stored:
    return Stored("t", None, 0, shape, kind)  # type: ignore[arg-type]


@dataclass(frozen=True)
class NegativeExp(Unary):
    pass


@pytest.mark.parametrize(
    ("expr", "words"),
    [
        (_tensor(4, 8), ()),
        (Reshape(_tensor(4, 8), (2, 2, 8)), ()),
        (permute_rope(_tensor(8, 8), 2), ("rows permuted for rotary embedding, 2 heads",)),
        (Add(_tensor(8), 1.0), ("plus 1",)),
        (Stack((Transpose(_tensor(4, 8)),) * 3), ("transposed", "3 tensors stacked")),
        (Slice(_tensor(8, 4), -2, 2, 6), ("rows 2 to 5 of 8",)),
        (Slice(_tensor(8, 4), -2, 7, 8), ("row 7 of 8",)),
        (Slice(_tensor(2, 8, 4), -3, 0, 1), ("index 0 of 2 of axis -3",)),
        (Slice(_tensor(8, 4), -1, 0, 4, 2), ("every second of its columns from 0",)),
        (Slice(_tensor(8, 4), -1, 0, 4, 3), ("every 3rd of its columns from 0",)),
        (Constant(np.zeros(4, np.float32)), ("computed from the config",)),
        (NegativeExp(_tensor(8)), ("negative exp",)),
    ],
)
def test_words(expr: TensorExpr, words: tuple[str, ...]) -> None:
    assert transforms_of(expr) == words


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        (RowSource(_tensor(4, 256), BF16), "Q4_K", ("packed to Q4_K",)),
        (RowSource(_tensor(4, 256), F16), "Q4_K", ("rounded to F16", "packed to Q4_K")),
        (RowSource(_tensor(4, 256), BF16, np.ones(256, np.float32)), "Q4_K", ("packed to Q4_K", "by importance")),
        (RowSource(_tensor(256), F32), "F32", ("as F32",)),
        (RowSource(_tensor(4, 256), BF16), "BF16", ()),
        (RowSource(Add(_tensor(256), 1.0), F32), "F32", ("plus 1", "as F32")),
        (RowSource(Add(_tensor(4, 256), 1.0), BF16), "Q8_0", ("plus 1", "rounded to BF16", "packed to Q8_0")),
        (RowSource(_tensor(4, 256, kind=TENSOR_TYPES["Q8_0"]), F32), "Q8_0", ()),
        (RowSource(_tensor(4, 256, kind=TENSOR_TYPES["Q8_0"]), F32), "Q4_0", ("unpacked and packed to Q4_0",)),
    ],
)
def test_steps(source: RowSource, kind: str, words: tuple[str, ...]) -> None:
    assert steps_of(source, TENSOR_TYPES[kind]) == words
