"""The language model of DeepSeek-OCR, which attends as Llama does and has the experts of DeepSeek V2."""

from __future__ import annotations

from gguf_forge.architectures.completeness import ATTENTION
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.families.deepseek import EXPERT_METADATA, deepseek2, dense_layers, feed_forward
from gguf_forge.architectures.metadata import DECODER, text, u32
from gguf_forge.architectures.operations import MLP_EXPERTS
from gguf_forge.architectures.parts import is_text
from gguf_forge.architectures.shapes import DECODER_SHAPES
from gguf_forge.architectures.site import Site

_TEMPLATE = "{% for m in messages %}{{m['content']}}{% endfor %}"


def _has_sam(config: Config) -> bool:
    """Whether the config describes DeepSeek-OCR's encoder. Its language model has the class name of DeepSeek V2."""
    vision = config.find("vision_config")
    width = vision.get("width") if isinstance(vision, dict) else None
    return isinstance(width, dict) and "sam_vit_b" in width


def _window(site: Site) -> object:
    return site.config.find("sliding_window_size") or site.config.find("sliding_window") or None


deepseek_ocr = deepseek2.derive(
    "deepseek2-ocr",
    hf=("DeepseekOCRForCausalLM", "DeepseekOCR2ForCausalLM", "UnlimitedOCRForCausalLM"),
    takes=lambda name: is_text(name) and "sam_model" not in name and "qwen2_model" not in name,
    # The checkpoints have no chat template.
    early=(text("tokenizer.chat_template", lambda site: _TEMPLATE),),
    metadata=(
        *DECODER,
        u32("leading_dense_block_count", dense_layers),
        u32("vocab_size", "vocab_size"),
        u32("attention.q_lora_rank", "q_lora_rank"),
        *EXPERT_METADATA,
        u32("attention.sliding_window", _window),
    ),
    rules=MLP_EXPERTS,
    shapes=DECODER_SHAPES,
    layer_tensors=lambda site: (*ATTENTION, "ffn_norm", *feed_forward(site)),
)

deepseek_ocr_inside = deepseek_ocr.derive("deepseek2-ocr", hf=("DeepseekV2ForCausalLM",), when=_has_sam)
