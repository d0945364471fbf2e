"""Writes tests/planning/peft_names.json: what PEFT's `save_pretrained` calls the tensors of adapters of real classes.

Usage: python make_peft_names.py. Needs torch, transformers 4.57.6 and peft 0.21.2.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

TESTS = Path(__file__).parents[1]
GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_embd": 64,
    "n_head": 2,
    "n_layer": 1,
    "n_ctx": 64,
    "vocab_size": 96,
    "layer_norm_epsilon": 1e-5,
}
LLAMA = {
    "target_modules": ["q_proj", "k_proj", "down_proj", "embed_tokens", "lm_head"],
    "rank_pattern": {"k_proj": 3, "layers.1.mlp.down_proj": 8},
    "modules_to_save": ["input_layernorm"],
}
EXPERTS = {
    "target_modules": ["q_proj"],
    "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
}
CASES: dict[str, tuple[str | dict[str, Any], dict[str, Any]]] = {
    "llama": ("llama3-bpe", LLAMA),
    "gptoss": ("gptoss-bf16", EXPERTS),
    "gpt2": (GPT2, {"target_modules": ["c_attn", "mlp.c_proj"], "fan_in_fan_out": True}),
}


def main() -> None:
    GptOssExperts.is_transposed = True  # transformers 5 says so itself
    found = {}
    for name, (base, settings) in CASES.items():
        with tempfile.TemporaryDirectory() as scratch:
            if isinstance(base, dict):
                (Path(scratch) / "config.json").write_text(json.dumps(base))
            config = AutoConfig.from_pretrained(TESTS / "families" / base if isinstance(base, str) else scratch)
            model = get_peft_model(
                AutoModelForCausalLM.from_config(config),
                LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **settings),
            )
            model.save_pretrained(f"{scratch}/a", save_embedding_layers=False)
            with safe_open(f"{scratch}/a/adapter_model.safetensors", "np") as file:
                shapes = {key: file.get_slice(key).get_shape() for key in sorted(file.keys())}
        found[name] = {"base": base, "config": {"r": 4, "lora_alpha": 8, **settings}, "shapes": shapes}
    (TESTS / "planning" / "peft_names.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
