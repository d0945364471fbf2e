"""Writes golden.json: hashes of what ggml (not this project) makes of every case. Run on x86-64, rarely.

Usage: python tests/kernels/make_golden.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from kernel_inputs import CASES, case
from kernel_oracles import Oracle, find_oracle
from test_exactness import COLUMNS, ROWS, TYPES, WEIGHTED, sha256, weights_named

from gguf_forge.tensor_types import tensor_type


def hashes(ggml: Oracle, name: str) -> dict[str, str]:
    kind, out = tensor_type(name), {}
    for case_name in CASES:
        x = case(case_name, ROWS, COLUMNS)
        for weights_name in WEIGHTED:
            key = f"{case_name}/{weights_name or 'plain'}"
            out[key] = sha256(ggml.quantize(x, kind, weights_named(weights_name)))[:16]
    heavy = case("heavy", ROWS, COLUMNS)
    values = heavy if name == "F32" else ggml.dequantize(ggml.quantize(heavy, kind), kind)
    out["dequantized heavy"] = sha256(np.ascontiguousarray(values))[:16]
    return out


def main() -> None:
    ggml, other = find_oracle("pywhispercpp"), find_oracle("xllamacpp")
    if ggml is None or other is None:
        raise SystemExit("this needs both oracles, on x86-64")
    outputs = {name: hashes(ggml, name) for name in TYPES}
    if outputs != {name: hashes(other, name) for name in TYPES}:
        raise SystemExit("the two oracles differ")
    inputs = {name: sha256(case(name, ROWS, COLUMNS)) for name in CASES}
    golden = {"inputs": inputs, "outputs": outputs}
    Path(__file__).with_name("golden.json").write_text(json.dumps(golden, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
