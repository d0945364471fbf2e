"""Which tensors the converter keeps in F32, whatever float type the file has.

Source: llama.cpp's conversion/base.py (prepare_tensors) and gguf-py's constants.
"""

from __future__ import annotations

import re

_TEMPLATES = (
    "position_embd",
    "token_types",
    "v.position_embd",
    "a.position_embd",
    "posnet.{bid}.norm1",
    "posnet.{bid}.norm2",
    *(
        f"blk.{{bid}}.{part}"
        for part in (
            "ffn_gate_inp",
            "ffn_gate_inp_shexp",
            "ssm_conv1d",
            "ssm_conv1d_q",
            "ssm_conv1d_k",
            "ssm_conv1d_v",
            "shortconv.conv",
            "time_mix_first",
            "time_mix_w1",
            "time_mix_w2",
            "time_mix_decay_w1",
            "time_mix_decay_w2",
            "time_mix_lerp_fused",
            "altup_correct_coef",
            "altup_predict_coef",
            "indexer.proj",
        )
    ),
)
_KEPT = re.compile("|".join(re.escape(t).replace(r"\{bid\}", "[0-9]+") for t in _TEMPLATES))
_TYPED_SUFFIXES = (".weight", ".lora_a", ".lora_b")


def stays_f32(name: str, n_dims: int) -> bool:
    """Whether this tensor is F32 in a file of any float type.

    Args:
        name: Its GGUF name.
        n_dims: Its number of dimensions in the checkpoint's layout, where dimensions of 1 count.

    Example:
        >>> stays_f32("blk.0.ffn_gate_inp.weight", 2), stays_f32("blk.0.attn_q.weight", 2)
        (True, False)
    """
    return (
        n_dims <= 1
        or name.endswith("_norm.weight")
        or not name.endswith(_TYPED_SUFFIXES)
        or _KEPT.fullmatch(name.removesuffix(".weight")) is not None
    )
