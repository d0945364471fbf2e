"""Writes golden.json: hashes of what ggml (not this project) makes of every case. Run on x86-64, rarely.

Usage: python tests/kernels/make_golden.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from kernel_inputs import CASES, case
from kernel_oracles import Oracle, find_oracle, oracle_names
from test_exactness import COLUMNS, ROWS, TYPES, importance_named, importance_names, sha256

from gguf_forge.types.tensor_type import TensorType


def hashes(ggml: Oracle, name: str) -> dict[str, str]:
    kind, out = TensorType.named(name), {}
    for case_name in CASES:
        x = case(case_name, ROWS, COLUMNS)
        for importance_name in importance_names(kind):
            packed = ggml.try_quantize(x, kind, importance_named(importance_name))
            if packed is not None:
                out[f"{case_name}/{importance_name or 'plain'}"] = sha256(packed)[:16]
    heavy, importance = case("heavy", ROWS, COLUMNS), importance_named(importance_names(kind)[0])
    values = heavy if name == "F32" else ggml.dequantize(ggml.quantize(heavy, kind, importance), kind)
    out["dequantized heavy"] = sha256(np.ascontiguousarray(values))[:16]
    return out


def main() -> None:
    outputs = {}
    for name in TYPES:
        answers = [hashes(ggml, name) for ggml in map(find_oracle, oracle_names(TensorType.named(name))) if ggml]
        if len(answers) < len(oracle_names(TensorType.named(name))):
            raise SystemExit("this needs both oracles, on x86-64")
        if any(answer != answers[0] for answer in answers):
            raise SystemExit(f"the oracles differ on {name}")
        outputs[name] = answers[0]
    inputs = {name: sha256(case(name, ROWS, COLUMNS)) for name in CASES}
    golden = {"inputs": inputs, "outputs": outputs}
    Path(__file__).with_name("golden.json").write_text(json.dumps(golden, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
