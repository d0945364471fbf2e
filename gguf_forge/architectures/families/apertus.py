"""Apertus: Llama with an activation function of its own, whose parameters are metadata."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION, DENSE
from gguf_forge.architectures.declaration import Drop
from gguf_forge.architectures.families.llama import llama, llama_vocabulary
from gguf_forge.architectures.key_tensors import KeyTensor

_ACT = "model.layers.{i}.mlp.act_fn."
# The parameters of the activation function, and their shapes.
_PARAMETERS: dict[str, tuple[int, ...]] = {"alpha_n": (1,), "alpha_p": (1,), "beta": (), "eps": ()}

apertus = llama.derive(
    "apertus",
    hf=("ApertusForCausalLM",),
    early=tuple(KeyTensor(f"xielu.{name}", _ACT + name, shape) for name, shape in _PARAMETERS.items()),
    tokenizer=llama_vocabulary("apertus"),
    rules=(),
    # The graph rotates heads in the order of the checkpoint, so their rows are not permuted.
    operations={},
    drops=(Drop(f"{_ACT}*"),),
    layer_tensors=lambda site: (*ATTENTION, "attn_q_norm", "attn_k_norm", "ffn_norm", *DENSE),
)
