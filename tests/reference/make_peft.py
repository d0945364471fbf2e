"""Merges adapters with PEFT's own `merge_and_unload`, for tests/checkpoint/test_merging.py.

Usage: python make_peft.py FOLDER. Needs torch, transformers, safetensors and peft. Each case becomes a folder with the
weights that change, before and after, and the adapters as PEFT saves them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

WIDTH, INNER, EXPERTS = 32, 24, 2


class Experts(nn.Module):
    """Stacked experts, with a row for each output or, transposed, for each input."""

    def __init__(self, *, transposed: bool) -> None:
        super().__init__()
        self.is_transposed = transposed
        shapes = {"gate_up_proj": (2 * INNER, WIDTH), "down_proj": (WIDTH, INNER)}
        for name, (rows, columns) in shapes.items():
            size = (EXPERTS, columns, rows) if transposed else (EXPERTS, rows, columns)
            setattr(self, name, nn.Parameter(torch.empty(size)))


class Model(nn.Module):
    """One layer of each kind that PEFT merges into."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(40, WIDTH)
        self.q_proj = nn.Linear(WIDTH, INNER)
        self.down_proj = nn.Linear(INNER, WIDTH, bias=False)
        self.c_attn = Conv1D(3 * INNER, WIDTH)
        self.patches = nn.Conv2d(3, 8, 4)
        self.experts = Experts(transposed=False)
        self.turned = Experts(transposed=True)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


Case = list[dict[str, Any]]
LINEAR = ["q_proj", "down_proj"]
CASES: dict[str, tuple[torch.dtype, Case]] = {
    "linear": (torch.bfloat16, [{"target_modules": LINEAR}]),
    "linear-f16": (torch.float16, [{"target_modules": LINEAR}]),
    "linear-f32": (torch.float32, [{"target_modules": LINEAR}]),
    "patterns": (
        torch.bfloat16,
        [
            {
                "target_modules": LINEAR,
                "rank_pattern": {"q_proj": 2},
                "alpha_pattern": {"down_.*": 5},
                "use_rslora": True,
            }
        ],
    ),
    "dora": (torch.bfloat16, [{"target_modules": [*LINEAR, "embed_tokens"], "use_dora": True}]),
    "bias": (torch.bfloat16, [{"target_modules": ["q_proj"], "lora_bias": True}]),
    "embeddings": (torch.bfloat16, [{"target_modules": ["embed_tokens"], "modules_to_save": ["norm"]}]),
    "transposed": (torch.bfloat16, [{"target_modules": ["c_attn"], "fan_in_fan_out": True}]),
    "transposed-dora": (torch.bfloat16, [{"target_modules": ["c_attn"], "fan_in_fan_out": True, "use_dora": True}]),
    "convolution": (torch.bfloat16, [{"target_modules": ["patches"]}]),
    "experts": (
        torch.bfloat16,
        [
            {
                "target_modules": [],
                "target_parameters": [
                    f"{module}.{name}" for module in ("experts", "turned") for name in ("gate_up_proj", "down_proj")
                ],
            }
        ],
    ),
    "dora-dora": (torch.float32, [{"target_modules": LINEAR, "use_dora": True}] * 2),
    "lora-dora": (torch.float32, [{"target_modules": LINEAR}, {"target_modules": LINEAR, "use_dora": True}]),
    "several": (torch.bfloat16, [{"target_modules": LINEAR}, {"target_modules": LINEAR, "r": 2}]),
}


def fill(model: nn.Module, deviation: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, deviation)


def make(name: str, dtype: torch.dtype, case: Case, folder: Path) -> None:
    torch.manual_seed(sum(name.encode()))
    model = Model()
    fill(model, 0.05)
    model = model.to(dtype)
    base = {key: values.clone() for key, values in model.state_dict().items()}
    peft: Any = None
    for number, config in enumerate(case):
        lora = LoraConfig(**{"r": 4, "lora_alpha": 8, "init_lora_weights": False, **config})
        adapter = "default" if number == 0 else f"a{number}"
        if peft is None:
            peft = get_peft_model(model, lora)
        else:
            peft.add_adapter(adapter, lora)
        for key, parameter in peft.named_parameters():
            if "lora_" in key:
                parameter.data = parameter.data.float()
        with torch.no_grad():
            for key, parameter in peft.named_parameters():
                if adapter in key and "magnitude" not in key:
                    parameter.normal_(0, 0.05)
                elif adapter in key:
                    parameter.mul_(1 + 0.1 * torch.rand_like(parameter))
        peft.save_pretrained(folder, selected_adapters=[adapter])
    for beside in folder.glob("README.md"):
        beside.unlink()
    (folder / "a0").mkdir()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / file).rename(folder / "a0" / file)
    names = ["default", *(f"a{number}" for number in range(1, len(case)))]
    merged = peft.merge_and_unload(adapter_names=names).state_dict()
    changed = [key for key, values in merged.items() if not torch.equal(values, base[key])]
    save_file({key: base[key] for key in changed}, folder / "base.safetensors")
    save_file({key: merged[key] for key in changed}, folder / "merged.safetensors")


def main(out: Path) -> None:
    for name, (dtype, case) in CASES.items():
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
        make(name, dtype, case, out / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
