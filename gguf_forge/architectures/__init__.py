"""Model families, by the class names that config.json gives."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module

from gguf_forge.architectures.declaration import Architecture
from gguf_forge.errors import InputError, UnsupportedError

# Class name -> (module, attribute). Only the module of the model at hand is imported; a test compares this
# table with what the modules declare.
FAMILIES: dict[str, tuple[str, str]] = {
    "DeepseekV2ForCausalLM": ("deepseek", "deepseek2"),
    "DeepseekV3ForCausalLM": ("deepseek", "deepseek2"),
    "Gemma2ForCausalLM": ("gemma", "gemma2"),
    "Gemma3ForCausalLM": ("gemma", "gemma3"),
    "GemmaForCausalLM": ("gemma", "gemma"),
    "GptOssForCausalLM": ("gpt_oss", "gpt_oss"),
    "LLaMAForCausalLM": ("llama", "llama"),
    "LlamaForCausalLM": ("llama", "llama"),
    "LlamaModel": ("llama", "llama_base"),
    "MistralForCausalLM": ("llama", "llama"),
    "MixtralForCausalLM": ("llama", "llama"),
    "Phi3ForCausalLM": ("phi", "phi3"),
    "PhiForCausalLM": ("phi", "phi2"),
    "Qwen2ForCausalLM": ("qwen", "qwen2"),
    "Qwen2Model": ("qwen", "qwen2_base"),
    "Qwen2MoeForCausalLM": ("qwen", "qwen2moe"),
    "Qwen3ForCausalLM": ("qwen", "qwen3"),
    "Qwen3Model": ("qwen", "qwen3"),
    "Qwen3MoeForCausalLM": ("qwen", "qwen3moe"),
}


def find_architecture(config: Mapping[str, object]) -> Architecture:
    """The declaration for a checkpoint's config.

    Args:
        config: The parsed config.json.

    Raises:
        InputError: config.json names no architecture.
        UnsupportedError: this version does not know the one it names.

    Example:
        >>> find_architecture({"architectures": ["MistralForCausalLM"]}).name
        'llama'
    """
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise InputError(
            "no architecture is named",
            file="config.json",
            hint='a checkpoint of a model says, for example, "architectures": ["LlamaForCausalLM"]',
        )
    if names[0] not in FAMILIES:
        close = get_close_matches(names[0], FAMILIES, n=3)
        raise UnsupportedError(
            f"{names[0]} is not supported yet",
            file="config.json",
            hint=("the nearest that are: " if close else "supported: ") + ", ".join(close or sorted(FAMILIES)),
        )
    module, attribute = FAMILIES[names[0]]
    found: Architecture = getattr(import_module(f"{__package__}.families.{module}"), attribute)
    return found
