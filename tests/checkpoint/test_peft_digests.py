"""How far weights are from those of PEFT's own merge, for modules of real sizes.

PEFT's steps are redone here in NumPy, and the digests of what PEFT itself made say that they are these. So each
difference has a known cause: a processor that does not round products before it adds them, and PEFT's rounding of the
change of embeddings and stacks to the type of the weights before it adds it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import PREFIX, write_adapter
from ml_dtypes import bfloat16, finfo
from peft_weights import DTYPES, EXPERTS, KINDS, RANKS, Case, Floats
from synthetic import as_dtype, write_safetensors

from gguf_forge.checkpoint.adapter import Adapter
from gguf_forge.checkpoint.as_stored import as_stored
from gguf_forge.checkpoint.merging import ScaledAdapter, merged
from gguf_forge.checkpoint.safetensors_file import read_safetensors_header
from gguf_forge.storage.local.folder import LocalFolder

DIGESTS = json.loads((Path(__file__).parent / "peft_digests.json").read_text())
NUMPY = {"F32": np.float32, "F16": np.float16, "BF16": bfloat16}


def product(b: Floats, a: Floats, *, fused: bool) -> Floats:
    """B times A, rank after rank. Fused: a product is not rounded before it is added; float64 holds it exactly."""
    total = np.zeros((b.shape[0], a.shape[1]), np.float32)
    for rank in range(a.shape[0]):
        if fused:
            exact = np.multiply.outer(b[:, rank].astype(np.float64), a[rank].astype(np.float64))
            total = (total + exact).astype(np.float32)
        else:
            total = total + np.multiply.outer(b[:, rank], a[rank])
    return total


def in_form(case: Case, per_matrix: Any) -> Any:
    """The change of a module's weight, put together of what `per_matrix` makes of two factors."""
    kind = KINDS[case.kind]
    a, b = case.factors()
    if kind.is_stack:
        of_a, of_b = a.reshape(EXPERTS, case.rank, -1), b.reshape(b.shape[0], case.rank, EXPERTS)
        stack = np.stack([per_matrix(of_b[..., expert], of_a[expert]) for expert in range(EXPERTS)])
        return stack.swapaxes(1, 2) if case.kind == "turned" else stack
    change = per_matrix(b.reshape(b.shape[0], -1), a.reshape(a.shape[0], -1))
    return (change.T if case.kind in ("transposed", "embedding") else change).reshape(kind.shape)


def is_cast(kind: str) -> bool:
    """Whether PEFT rounds the change to the type of the weights before it adds it."""
    return KINDS[kind].is_stack or KINDS[kind].is_embedding


def of_peft(case: Case, *, fused: bool) -> Any:
    """PEFT's result, by its steps."""
    dtype = NUMPY[case.dtype]
    weights = case.weights().astype(dtype)
    change = in_form(case, lambda b, a: product(b, a, fused=fused)) * np.float32(2)
    if is_cast(case.kind):
        change = change.astype(dtype).astype(np.float32)
    return (weights.astype(np.float32) + change).astype(dtype)


def of_forge(case: Case, folder: Path) -> Any:
    kind = KINDS[case.kind]
    name = f"layer.{kind.parameter}"
    folder.mkdir()
    write_safetensors(
        folder / "base.safetensors",
        {name: (case.dtype, list(kind.shape), as_dtype(case.weights(), case.dtype).tobytes())},
    )
    factors = dict(zip((f"{PREFIX}layer.{end}" for end in kind.ends), case.factors(), strict=True))
    adapter = Adapter.open(LocalFolder(write_adapter(folder / "adapter", factors, **case.config)))
    with adapter, LocalFolder(folder).open("base.safetensors") as file:
        base = {name: as_stored(tensor) for name, tensor in read_safetensors_header(file).items()}
        expr = merged(base, [ScaledAdapter(adapter)])[name]
        return expr.rows(0, expr.n_rows).reshape(kind.shape)


def ulp(dtype: str, at: Any) -> Any:
    """The distance of neighbouring numbers of a type, where numbers are as large as `at`."""
    kind = finfo(NUMPY[dtype])
    _, exponents = np.frexp(np.maximum(at, float(kind.smallest_normal)))
    return np.ldexp(float(kind.eps), exponents - 1)


def deviation(x: Any) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def test_ulp() -> None:
    assert ulp("BF16", np.array([1.0, 1.5, 2.0])).tolist() == [2**-7, 2**-7, 2**-6]
    assert ulp("F16", np.array([0.0, 2.0**-14, 2.0**-13])).tolist() == [2**-24, 2**-24, 2**-23]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_no_weight_is_more_than_one_ulp_from_that_of_peft(
    kind: str, dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts, size = {"fused": 0, "not fused": 0}, 0
    for case in (Case(kind, dtype, rank) for rank in RANKS):
        ours = of_forge(case, tmp_path / case.name)
        base, change = case.weights(), 2 * in_form(case, np.matmul)
        for mode, digest in DIGESTS[case.name].items():
            theirs = of_peft(case, fused=mode == "fused")
            assert hashlib.sha256(np.ascontiguousarray(theirs).tobytes()).hexdigest() == digest
            away = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
            largest = np.max(np.abs([base, change, ours.astype(np.float32), theirs.astype(np.float32)]), axis=0)
            if (dtype, mode) == ("F32", "fused"):  # F32 holds the rounding of each product
                terms = 2 * in_form(case, lambda b, a: np.abs(b) @ np.abs(a))
                assert (away / ulp(dtype, np.abs(base) + terms)).max() <= 3
                exact = base + 2 * in_form(case, lambda b, a: b.astype(np.float64) @ a)
                assert deviation(ours - exact) <= 1.1 * deviation(theirs - exact)
            else:
                assert (away / ulp(dtype, largest)).max() <= 1
            counts[mode] += np.count_nonzero(away)
        size += ours.size
    if dtype == "F32" or not is_cast(kind):
        assert counts["not fused"] == 0
    with capsys.disabled():
        print(f"\n{kind}, {dtype}: {counts['fused']:,} of {size:,} weights differ from PEFT's, ", end="")
        print(f"and {counts['not fused']:,} if its processor rounds products before it adds them")
