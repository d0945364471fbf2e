"""CogVLM's language model: a Llama with further attention and feed-forward matrices for the tokens of pictures."""

from __future__ import annotations

from gguf_forge.architectures.declaration import Drop
from gguf_forge.architectures.families.llama import llama, llama_vocabulary
from gguf_forge.architectures.parts import is_text
from gguf_forge.architectures.site import Site

# Names that look like those of an encoder but belong to the language model.
_FOR_PICTURES = (".self_attn.vision_expert_", ".mlp.vision_mlp.")
_OF_PICTURES = (
    "self_attn.vision_expert_query_key_value.weight",
    "self_attn.vision_expert_dense.weight",
    "mlp.vision_mlp.*",
)


def _is_as_reference(site: Site) -> bool:
    return "as_reference" in site.choices


cogvlm = llama.derive(
    "cogvlm",
    hf=("CogVLMForCausalLM",),
    tokenizer=llama_vocabulary("cogvlm"),
    takes=lambda name: is_text(name) or any(part in name for part in _FOR_PICTURES),
    rules=(),
    operations={},
    # The reference leaves out what is for pictures.
    drops=tuple(Drop(f"model.layers.{{i}}.{name}", _is_as_reference) for name in _OF_PICTURES),
    layer_tensors=lambda site: (
        *("attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"),
        *(() if _is_as_reference(site) else ("vis_attn_qkv", "vis_attn_output", "vis_gate", "vis_up", "vis_down")),
    ),
)
