"""What a declaration does to a weight, done to a low-rank pair: the product of the new factors is the new weight."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.tensors.arithmetic import Add, Multiply
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import Stack
from gguf_forge.tensors.low_rank import LowRank, factors
from gguf_forge.tensors.row_maps import Reorder, Slice, Transpose, permute_rope, reshaped
from gguf_forge.tensors.stored import Constant


def whole(expr: TensorExpr) -> np.ndarray:
    return expr.rows(0, expr.n_rows).reshape(expr.shape)


OPERATIONS: dict[str, Callable[[TensorExpr], TensorExpr]] = {
    "none": lambda x: x,
    "permuted": lambda x: permute_rope(x, 2),
    "rows": lambda x: Slice(x, -2, 2, 7),
    "columns": lambda x: Slice(x, -1, 1, 6, 2),
    "reordered columns": lambda x: Reorder(x, -1, (2, 3), (1, 0)),
    "transposed": Transpose,
    "heads": lambda x: Slice(reshaped(x, (2, 4, 6)), -2, 0, 3),
    "times 3": lambda x: Multiply(x, 3.0),
    "transposed rows": lambda x: Slice(Transpose(x), -2, 0, 5),
    "stacked": lambda x: Stack((x, x)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_product_is_the_changed_weight(name: str) -> None:
    random = np.random.default_rng(3)
    a, b = (random.integers(-4, 4, shape).astype(np.float32) for shape in ((2, 6), (8, 2)))
    wanted = whole(OPERATIONS[name](Constant(b @ a)))
    changed = OPERATIONS[name](LowRank(Constant(a), Constant(b)))
    new_a, new_b = factors(changed)
    assert changed.shape == wanted.shape
    np.testing.assert_array_equal(whole(new_b) @ whole(new_a), wanted)


def test_what_mixes_has_no_factors() -> None:
    pair = LowRank(Constant(np.ones((2, 6), np.float32)), Constant(np.ones((8, 2), np.float32)))
    for expr in (Add(pair, 1.0), reshaped(pair, (4, 12)), Stack((Add(pair, 1.0),))):
        with pytest.raises(UnsupportedError, match="an adapter cannot be"):
            factors(expr)
    with pytest.raises(InputError, match="have no product"):
        LowRank(pair.a, Constant(np.ones((8, 3), np.float32)))
