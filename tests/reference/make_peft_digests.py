"""Merges adapters of real sizes with PEFT's own `merge_and_unload`, for tests/checkpoint/test_peft_digests.py.

Usage: python make_peft_digests.py > tests/checkpoint/peft_digests.json. Needs torch with MKL, and peft. PEFT multiplies
the factors with the machine's BLAS, so there are two digests for each case: of a processor that fuses multiplication
and addition, and of MKL's code for processors that do not.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import torch
from peft import LoraConfig, get_peft_model
from peft_weights import EXPERTS, KINDS, Case, Kind, cases
from torch import nn
from transformers.pytorch_utils import Conv1D

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
MODES = {"fused": "AVX2", "not fused": "COMPATIBLE"}


class Stack(nn.Module):
    def __init__(self, kind: Kind, *, transposed: bool) -> None:
        super().__init__()
        self.is_transposed = transposed
        self.num_experts = EXPERTS
        self.down_proj = nn.Parameter(torch.empty(kind.shape))


class Model(nn.Module):
    def __init__(self, name: str, kind: Kind) -> None:
        super().__init__()
        self.layer: nn.Module
        if name == "linear":
            self.layer = nn.Linear(kind.shape[1], kind.shape[0], bias=False)
        elif name == "transposed":
            self.layer = Conv1D(kind.shape[1], kind.shape[0])
        elif name == "convolution":
            self.layer = nn.Conv2d(kind.shape[1], kind.shape[0], kind.shape[2:], bias=False)
        elif name == "embedding":
            self.layer = nn.Embedding(*kind.shape)
        else:
            self.layer = Stack(kind, transposed=name == "turned")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def merged(case: Case) -> torch.Tensor:
    kind = KINDS[case.kind]
    model = Model(case.kind, kind)
    getattr(model.layer, kind.parameter).data = torch.from_numpy(case.weights())
    peft: Any = get_peft_model(model.to(DTYPES[case.dtype]), LoraConfig(**case.config))
    for part, values in zip("AB", case.factors(), strict=True):
        (factor,) = (each for name, each in peft.named_parameters() if "lora_" in name and f"_{part}." in name)
        assert factor.shape == values.shape
        factor.data = torch.from_numpy(values)
    result: torch.Tensor = getattr(peft.merge_and_unload().layer, kind.parameter).detach()
    return result


def digest(values: torch.Tensor) -> str:
    return hashlib.sha256(values.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def main() -> None:
    if code := os.environ.get("MKL_CBWR"):
        torch.backends.mkldnn.enabled = code == MODES["fused"]  # convolutions go past MKL otherwise
        json.dump({case.name: digest(merged(case)) for case in cases()}, sys.stdout)
        return
    found: dict[str, dict[str, str]] = {}
    for mode, code in MODES.items():
        environment = {**os.environ, "MKL_CBWR": code}
        run = subprocess.run([sys.executable, __file__], env=environment, stdout=subprocess.PIPE, check=True)
        for name, value in json.loads(run.stdout).items():
            found.setdefault(name, {})[mode] = value
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
