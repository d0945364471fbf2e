"""What the config says of the tensors' shapes: a checkpoint that disagrees with its config would load nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from gguf_forge.architectures.config import Config

# A size along one axis; None for a size that the config does not tell.
Size: TypeAlias = Callable[[Config], int] | None


def hidden(config: Config) -> int:
    return config.integer("hidden_size", "n_embd", "dim")


def inner(config: Config) -> int:
    return config.integer("intermediate_size", "n_inner", "hidden_dim")


def heads(config: Config) -> int:
    return config.integer("num_attention_heads", "n_head", "n_heads")


def key_heads(config: Config) -> int:
    found = config.find("num_key_value_heads", "n_kv_heads", "n_head_kv")
    return heads(config) if found is None else config.integer("num_key_value_heads", "n_kv_heads", "n_head_kv")


def queries(config: Config) -> int:
    return heads(config) * config.head_dim


def keys(config: Config) -> int:
    return key_heads(config) * config.head_dim


def n_expert(config: Config) -> int:
    return config.expert_count


# GGUF role of a weight -> its shape, outermost axis first, as nearly every decoder has it.
DECODER_SHAPES: Mapping[str, tuple[Size, ...]] = {
    "token_embd": (None, hidden),
    "output": (None, hidden),
    "output_norm": (hidden,),
    "attn_norm": (hidden,),
    "attn_q": (queries, hidden),
    "attn_k": (keys, hidden),
    "attn_v": (keys, hidden),
    "attn_output": (hidden, queries),
    "ffn_gate": (inner, hidden),
    "ffn_up": (inner, hidden),
    "ffn_down": (hidden, inner),
    "ffn_gate_inp": (n_expert, hidden),
    "ffn_gate_exps": (n_expert, None, hidden),
    "ffn_up_exps": (n_expert, None, hidden),
    "ffn_down_exps": (n_expert, hidden, None),
}


def disagreement(shape: tuple[int, ...], sizes: tuple[Size, ...], config: Config) -> str | None:
    """What is wrong with a tensor's shape, for a message; None if it is what the config says.

    Example:
        >>> disagreement((8, 4), (None, hidden), Config.of({"hidden_size": 5}))
        'is 8 x 4, the config says any x 5'
    """
    wanted = [size and size(config) for size in sizes]
    if len(shape) == len(wanted) and all(want in (None, have) for have, want in zip(shape, wanted, strict=True)):
        return None
    said = " x ".join("any" if want is None else str(want) for want in wanted)
    return f"is {' x '.join(map(str, shape))}, the config says {said}"
