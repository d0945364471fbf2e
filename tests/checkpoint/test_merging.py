"""Adapters merged into tensors, beside PEFT's own `merge_and_unload`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ml_dtypes import bfloat16, finfo

from gguf_forge.checkpoint.adapter import Adapter
from gguf_forge.checkpoint.as_stored import as_stored
from gguf_forge.checkpoint.merging import ScaledAdapter, merged
from gguf_forge.checkpoint.safetensors_file import read_safetensors_header
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.expression import TensorExpr

PEFT = Path(__file__).parent / "peft"
CASES = sorted(folder.name for folder in PEFT.iterdir())


def tensors_of(folder: Path, name: str) -> dict[str, TensorExpr]:
    header = read_safetensors_header(LocalFolder(folder).open(name))
    return {name: as_stored(tensor) for name, tensor in header.items()}


def values_of(expr: TensorExpr) -> np.ndarray:
    return expr.rows(0, expr.n_rows)


def ulps(one: np.ndarray, other: np.ndarray, *magnitudes: np.ndarray) -> np.ndarray:
    """How far numbers are apart, in steps that their type has at the largest of the magnitudes."""
    kind = finfo(one.dtype)
    largest = np.max([np.abs(x.astype(np.float64)) for x in (one, other, *magnitudes)], axis=0)
    _, exponents = np.frexp(np.maximum(largest, float(kind.smallest_normal)))
    return np.abs(one.astype(np.float64) - other.astype(np.float64)) / np.ldexp(float(kind.eps), exponents - 1)


def test_ulps() -> None:
    one, other = (np.array([1.0, -1.0, 0.0, 2.0], np.float32) + np.array(x, np.float32) for x in (0, [2**-23, 0, 0, 0]))
    assert ulps(one, other).tolist() == [1, 0, 0, 0]
    assert ulps(one, other, np.full(4, 8, np.float32)).tolist() == [1 / 8, 0, 0, 0]
    assert ulps(np.array([1], bfloat16), np.array([1.0078125], bfloat16)).tolist() == [1]


# Where PEFT's steps are others than ours, and a weight that comes out small may be some of its own ulps away. There an
# ulp is that of the largest number in the sum, and these many are allowed.
OTHER_STEPS = {
    "embeddings": 1,  # PEFT rounds the change to the type of the weights before it adds it
    "experts": 1,  # the same
    "linear-f32": 4,  # PEFT sums the four ranks in the order of a BLAS
    "dora-dora": 32,  # the same, twice; and PEFT takes the first adapter out again, which leaves a rest in the weights
    "lora-dora": 32,
}

# Cases of float32, where rounding after each adapter changes nothing. DoRA has to know the weights without the others.
MEASURED_WITHOUT_OTHERS = ("dora-dora", "lora-dora")


@pytest.mark.parametrize("case", CASES)
def test_no_weight_is_more_than_one_ulp_from_that_of_peft(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = PEFT / case
    adapters = [Adapter.open(LocalFolder(each)) for each in sorted(folder.glob("a*"))]
    base = tensors_of(folder, "base.safetensors")
    made = base
    if case in MEASURED_WITHOUT_OTHERS:
        made = merged(base, list(map(ScaledAdapter, adapters)))
    else:
        for each in adapters:  # PEFT rounds after each of them
            made = merged(made, [ScaledAdapter(each)])
    wanted = tensors_of(folder, "merged.safetensors")
    assert made.keys() == wanted.keys()
    different, count = 0, 0
    for name, expr in wanted.items():
        before, ours, theirs = (values_of(each) for each in (base[name], made[name], expr))
        assert ours.shape == theirs.shape
        ours = ours.astype(theirs.dtype)
        magnitudes = (before, ours.astype(np.float32) - before.astype(np.float32)) if case in OTHER_STEPS else ()
        assert ulps(ours, theirs, *magnitudes).max() <= OTHER_STEPS.get(case, 1), name
        different, count = different + np.count_nonzero(ours != theirs), count + ours.size
    with capsys.disabled():
        print(f"\n{case}: {different} of {count:,} weights differ from PEFT's")
