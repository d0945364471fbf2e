"""Apertus: Llama with an activation function of its own, whose parameters are metadata."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.completeness import ATTENTION, DENSE
from gguf_forge.architectures.declaration import Drop
from gguf_forge.architectures.families.llama import llama, llama_vocabulary
from gguf_forge.architectures.metadata import f32
from gguf_forge.architectures.site import Site


def _of_all_layers(name: str) -> Callable[[Site], list[float]]:
    """A parameter of each layer's activation function."""
    return lambda site: [
        float(site.peek(f"model.layers.{layer}.mlp.act_fn.{name}").reshape(-1)[0]) for layer in range(site.block_count)
    ]


apertus = llama.derive(
    "apertus",
    hf=("ApertusForCausalLM",),
    early=tuple(f32(f"xielu.{name}", _of_all_layers(name)) for name in ("alpha_n", "alpha_p", "beta", "eps")),
    tokenizer=llama_vocabulary("apertus"),
    rules=(),
    # The graph rotates heads in the order of the checkpoint, so their rows are not permuted.
    operations={},
    drops=(Drop("model.layers.{i}.mlp.act_fn.*"),),
    layer_tensors=lambda site: (*ATTENTION, "attn_q_norm", "attn_k_norm", "ffn_norm", *DENSE),
)
