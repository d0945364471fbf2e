"""Facts that a tensor's name tells: its place in a file, its role in the type mixes, whether it may be quantized.

Source: llama.cpp's src/llama-quant.cpp and src/llama-model-loader.h.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from functools import lru_cache

from gguf_forge.gguf_file.tensor_info import TensorInfo


class Role(Enum):
    """What the type mixes distinguish. VALUE is any projection to values: v, fused qkv, MLA's kv_b."""

    OUTPUT = auto()
    EMBEDDING = auto()
    VALUE = auto()
    KEY = auto()
    QUERY = auto()
    ATTENTION_OUTPUT = auto()
    UP = auto()
    GATE = auto()
    DOWN = auto()
    OTHER = auto()


# Names whose facts are kept: all of a file, which is planned once for each file type.
_REMEMBERED = 1 << 16

_ROLE_OF_NAME = {
    "output.weight": Role.OUTPUT,
    "token_embd.weight": Role.EMBEDDING,
    "per_layer_token_embd.weight": Role.EMBEDDING,
}
# The parts are tried in this order. The first one that the name contains decides.
_ROLE_OF_PART = {
    "attn_qkv.weight": Role.VALUE,
    "attn_kv_b.weight": Role.VALUE,
    "attn_v.weight": Role.VALUE,
    "attn_k.weight": Role.KEY,
    "attn_q.weight": Role.QUERY,
    "attn_output.weight": Role.ATTENTION_OUTPUT,
    "ffn_up": Role.UP,
    "ffn_gate": Role.GATE,
    "ffn_down": Role.DOWN,
}

_SMALL_TIME_MIX = (
    *("first", "w0", "w1", "w2", "v0", "v1", "v2", "a0", "a1", "a2", "g1", "g2"),
    *("decay_w1", "decay_w2", "lerp_fused"),
)
_KEPT_NAMES = frozenset(("position_embd.weight", "token_types.weight"))
_KEPT_PARTS = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    *(f"time_mix_{part}.weight" for part in _SMALL_TIME_MIX),
    "attn_rel_b.weight",
    ".position_embd",
    "sam.pos_embd",
    "sam.neck.",
    "sam.net_",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
)
_KEPT_PARTS_OF_ARCHITECTURE = {
    "glm5-next": (
        "hc_",
        "indexer.attn_q_b",
        "indexer.attn_k",
        "indexer.proj",
        "indexer_compressor_gate",
        "indexer_compressor_ape",
        "ssm_f_a.weight",
        "ssm_f_b.weight",
        "ssm_g_a.weight",
        "ssm_g_b.weight",
        "ssm_beta.weight",
        "attn_kv_a_mqa.weight",
        "attn_k_b.weight",
        "attn_v_b.weight",
    ),
}


@lru_cache(_REMEMBERED)
def layer_of(name: str) -> int | None:
    """The layer that a name starts with, as in `blk.7.attn_q.weight`; None outside the layers."""
    found = re.match(r"blk\.([0-9]+)", name)
    return int(found[1]) if found else None


def file_order(info: TensorInfo) -> tuple[int, str]:
    """The sort key of llama-quantize's tensor order: outside the layers first, then layer by layer."""
    layer = layer_of(info.name)
    return (-1 if layer is None else layer, info.name)


@lru_cache(_REMEMBERED)
def role_of(name: str) -> Role:
    """The role of the tensor called `name`."""
    exact = _ROLE_OF_NAME.get(name)
    if exact is not None:
        return exact
    return next((role for part, role in _ROLE_OF_PART.items() if part in name), Role.OTHER)


def trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` as ggml writes it: dimensions of 1 at the end are not stored.

    Example:
        >>> trimmed((64, 1)), trimmed((1, 64)), trimmed((1,))
        ((64,), (1, 64), (1,))
    """
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def may_quantize(name: str, shape: tuple[int, ...], architecture: str) -> bool:
    """Whether this tensor may get the type of a mix. Vectors, norms, routers and other small tensors may not."""
    kept_parts = (*_KEPT_PARTS, *_KEPT_PARTS_OF_ARCHITECTURE.get(architecture, ()))
    return (
        len(trimmed(shape)) > 1
        and name.endswith("weight")
        and name not in _KEPT_NAMES
        and not any(part in name for part in kept_parts)
    )
