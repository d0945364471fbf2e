"""Mistral 3, Ministral 3 and Mistral 4, with and without an encoder of pictures."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.families.deepseek import deepseek2
from gguf_forge.architectures.families.llama import llama, llama_vocabulary
from gguf_forge.architectures.metadata import Lines, f32
from gguf_forge.architectures.site import Site
from gguf_forge.errors import UnsupportedError


def _of_yarn(name: str) -> Callable[[Site], float]:
    return lambda site: site.config.rope_number(name)


def _long_positions(site: Site) -> Lines:
    """The keys that scale Ministral 3's attention to distant tokens."""
    if site.config.find("model_type") != "ministral3":
        return
    kind = site.config.rope.get("rope_type")
    if kind != "yarn":
        raise UnsupportedError(f"rope_type of a Ministral 3 is {kind!r:.40}, not yarn", file="config.json")
    yield from f32("rope.scaling.yarn_log_multiplier", _of_yarn("mscale_all_dim"))(site)
    yield from f32("attention.temperature_scale", _of_yarn("llama_4_scaling_beta"))(site)


mistral3 = llama.derive(
    "mistral3",
    hf=("Ministral3ForCausalLM", "Mistral3ForConditionalGeneration"),
    metadata=(*llama.metadata, _long_positions),
    tokenizer=llama_vocabulary("mistral3"),
    rules=(),
)

mistral4 = deepseek2.derive(
    "mistral4",
    hf=("Mistral3ForConditionalGeneration",),
    when=lambda config: config.find("model_type") == "mistral4",
    # the experts are stored stacked
    names={
        "model.layers.{i}.mlp.experts.down_proj": "blk.{i}.ffn_down_exps.weight",
        "model.layers.{i}.mlp.experts.gate_up_proj": "blk.{i}.ffn_gate_up_exps.weight",
    },
    drop_extra_layers=False,
)
