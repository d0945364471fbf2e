"""CogVLM's language model: a Llama with further attention and feed-forward matrices for the tokens of pictures."""

from __future__ import annotations

from gguf_forge.architectures.families.llama import llama, llama_vocabulary
from gguf_forge.architectures.parts import is_text

# Names that look like those of an encoder but belong to the language model.
_FOR_PICTURES = (".self_attn.vision_expert_", ".mlp.vision_mlp.")

cogvlm = llama.derive(
    "cogvlm",
    hf=("CogVLMForCausalLM",),
    tokenizer=llama_vocabulary("cogvlm"),
    takes=lambda name: is_text(name) or any(part in name for part in _FOR_PICTURES),
    rules=(),
    operations={},
    hf_names=(
        "model.layers.{i}.self_attn.language_expert_query_key_value",
        "model.layers.{i}.self_attn.language_expert_dense",
        *(f"model.layers.{{i}}.mlp.language_mlp.{name}_proj" for name in ("gate", "up", "down")),
    ),
    layer_tensors=lambda site: (
        *("attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"),
        *("vis_attn_qkv", "vis_attn_output", "vis_gate", "vis_up", "vis_down"),
    ),
)
