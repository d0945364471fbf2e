"""A checkpoint of PLaMo of one layer, as wide as the published model: llama.cpp's converter takes no other width."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from synthetic import VOCABULARIES, write_safetensors

WIDTH, INNER, TOKENS = 5120, 64, 512
CONFIG = {
    "architectures": ["PlamoForCausalLM"],
    "model_type": "plamo",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_attention_heads": 40,
    "num_hidden_layers": 1,
    "num_key_value_heads": 40,
    "n_shared_head": 8,
    "rms_norm_eps": 1e-6,
    "vocab_size": TOKENS,
}
_LAYER = "model.layers.layers.0."
_SHAPES = {
    "lm_head.weight": [TOKENS, WIDTH],
    "model.embed_tokens.weight": [TOKENS, WIDTH],
    f"{_LAYER}mlp.down_proj.weight": [WIDTH, INNER],
    f"{_LAYER}mlp.gate_proj.weight": [INNER, WIDTH],
    f"{_LAYER}mlp.up_proj.weight": [INNER, WIDTH],
    f"{_LAYER}norm.weight": [WIDTH],
    f"{_LAYER}self_attn.k_proj.weight": [640, WIDTH],
    f"{_LAYER}self_attn.o_proj.weight": [WIDTH, WIDTH],
    f"{_LAYER}self_attn.q_proj.weight": [WIDTH, WIDTH],
    f"{_LAYER}self_attn.v_proj.weight": [640, WIDTH],
    "model.norm.weight": [WIDTH],
}
# Bits of bfloat16 from 0 to below 2. Their number is prime, so no two rows of a matrix are alike.
_BITS = np.arange(16381, dtype=np.uint16)


def write_checkpoint(folder: Path) -> Path:
    """Writes the checkpoint to `folder`, which is made."""
    shutil.copytree(VOCABULARIES / "llama2", folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tensors = {
        name: ("BF16", shape, np.resize(np.roll(_BITS, at), int(np.prod(shape))).tobytes())
        for at, (name, shape) in enumerate(_SHAPES.items())
    }
    write_safetensors(folder / "model.safetensors", tensors)
    return folder
