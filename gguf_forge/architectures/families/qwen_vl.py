"""The language models of Qwen's multimodal models: Qwen2-VL to Qwen3-VL, the omni models, and speech recognition."""

from __future__ import annotations

from gguf_forge.architectures.declaration import Rule
from gguf_forge.architectures.families.qwen import qwen2, qwen3, qwen3moe
from gguf_forge.architectures.metadata import DECODER, u32
from gguf_forge.architectures.operations import MLP_EXPERTS, chain, half, transpose
from gguf_forge.architectures.renames import WRAPPERS, starts
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tokenizer import bpe, chat_template, first_of, in_order, sentencepiece, token_by_text

# What the omni models and the speech recognizer put around everything that is not speech.
_THINKER = (starts("thinker."), *WRAPPERS)
_TURN_ENDS = token_by_text("<|im_end|>", "bos", "eos")
_CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def _deepstack_layers(site: Site) -> int:
    """How many layers of the vision encoder feed layers of the language model."""
    thinker = site.config.find("thinker_config")
    vision = (thinker if isinstance(thinker, dict) else site.config).get("vision_config") or {}
    indexes = vision.get("deepstack_visual_indexes", []) if isinstance(vision, dict) else None
    if not isinstance(indexes, list):
        raise InputError(f"deepstack_visual_indexes is {indexes!r:.40}, not a list", file="config.json")
    return len(indexes)


qwen2vl = qwen2.derive(
    "qwen2vl",
    hf=(
        "Qwen2VLModel",
        "Qwen2VLForConditionalGeneration",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen2_5OmniModel",
    ),
    metadata=DECODER,
    renames=_THINKER,
    prepare=lambda site: site.config,
)

qwen3vl = qwen3.derive(
    "qwen3vl",
    hf=("Qwen3VLForConditionalGeneration",),
    metadata=(*qwen3.metadata, u32("n_deepstack_layers", _deepstack_layers)),
    renames=_THINKER,
)

qwen3asr = qwen3.derive(
    "qwen3vl",
    hf=("Qwen3ASRForConditionalGeneration",),
    metadata=(*qwen3.metadata, u32("n_deepstack_layers", lambda site: 0)),
    renames=_THINKER,
    tokenizer=in_order(first_of(sentencepiece, bpe), chat_template(_CHATML), _TURN_ENDS),
)

_EXPERTS = "model.layers.{i}.mlp.experts."

qwen3vlmoe = qwen3moe.derive(
    "qwen3vlmoe",
    hf=("Qwen3VLMoeForConditionalGeneration",),
    metadata=(*qwen3moe.metadata, u32("n_deepstack_layers", _deepstack_layers)),
    renames=_THINKER,
    # stacked experts are stored with a row for each input, gate left of up
    rules=(
        *MLP_EXPERTS,
        Rule((_EXPERTS + "down_proj",), "blk.{i}.ffn_down_exps.weight", transpose),
        Rule((_EXPERTS + "gate_up_proj",), "blk.{i}.ffn_gate_exps.weight", chain(half(0, -1), transpose)),
        Rule((_EXPERTS + "gate_up_proj",), "blk.{i}.ffn_up_exps.weight", chain(half(1, -1), transpose)),
    ),
)

qwen3omni = qwen3vlmoe.derive(
    "qwen3vlmoe",
    hf=("Qwen3OmniMoeForConditionalGeneration",),
    metadata=(*qwen3moe.metadata, u32("n_deepstack_layers", lambda site: 0)),
    tokenizer=in_order(bpe, _TURN_ENDS),
)
