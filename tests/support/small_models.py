"""Headers and tensors of small made-up models."""

from __future__ import annotations

from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, string, u32
from gguf_forge.types.tensor_type import F32

PARTS = ("attn_k", "attn_norm", "attn_output", "attn_q", "attn_v", "ffn_down", "ffn_gate", "ffn_up")


def header(layers: int = 4, architecture: str = "llama", **numbers: int) -> Metadata:
    keys = {"block_count": layers, "attention.head_count": 8, **numbers}
    named = {f"{architecture}.{key.replace('__', '.')}": u32(n) for key, n in keys.items()}
    return {"general.architecture": string(architecture), **named}


def model(layers: int = 4, row: int = 256, *extra: str) -> list[TensorInfo]:
    names = [
        "token_embd",
        "output_norm",
        *extra,
        *(f"blk.{i}.{part}" for i in range(layers) for part in PARTS),
    ]
    return [TensorInfo(f"{n}.weight", (row,) if n.endswith("norm") else (row, 8), F32) for n in names]
