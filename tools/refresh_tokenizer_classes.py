"""Makes gguf_forge/tokenizer/transformers_classes.json from the tokenizer classes of transformers.

    python tools/refresh_tokenizer_classes.py

Run it with a Python that has the reference's transformers. The table has the arguments of each class's constructor
that decide about special tokens and about the text's normalizer, with their defaults, and the model types whose
tokenizer the class is. Only classes that add nothing else to a tokenizer.json are in it; a class that does needs code
of its own in gguf_forge/tokenizer/auto_tokenizer.py before it is named here.
"""

from __future__ import annotations

import inspect
import json
from typing import Any

import transformers
from reference_tree import ROOT
from transformers import AddedToken
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

TABLE = ROOT / "gguf_forge/tokenizer/transformers_classes.json"

CLASSES = (
    "BertTokenizerFast",
    "BloomTokenizerFast",
    "CLIPTokenizerFast",
    "CamembertTokenizerFast",
    "CodeGenTokenizerFast",
    "CodeLlamaTokenizerFast",
    "CohereTokenizerFast",
    "DistilBertTokenizerFast",
    "ElectraTokenizerFast",
    "GPT2TokenizerFast",
    "GPTNeoXTokenizerFast",
    "GemmaTokenizerFast",
    "LlamaTokenizerFast",
    "PreTrainedTokenizerFast",
    "Qwen2TokenizerFast",
    "RobertaTokenizerFast",
    "WhisperTokenizerFast",
    "XLMRobertaTokenizerFast",
)

ARGUMENTS = (
    *(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")),
    "additional_special_tokens",
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "do_lower_case",
    "tokenize_chinese_chars",
    "strip_accents",
)


def defaults(name: str) -> dict[str, Any]:
    """The arguments that matter, with their defaults."""
    given = inspect.signature(getattr(transformers, name).__init__).parameters
    return {key: plain(given[key].default) for key in ARGUMENTS if key in given}


def plain(value: Any) -> Any:
    return value.content if isinstance(value, AddedToken) else value


def model_types(name: str) -> list[str]:
    return sorted(model_type for model_type, (_, fast) in TOKENIZER_MAPPING_NAMES.items() if fast == name)


def main() -> None:
    classes = ",\n".join(f'  "{name}": {json.dumps(defaults(name), ensure_ascii=False)}' for name in CLASSES)
    types = ",\n".join(f'  "{name}": {json.dumps(found)}' for name in CLASSES if (found := model_types(name)))
    TABLE.write_text(f'{{\n "classes": {{\n{classes}\n }},\n "model_types": {{\n{types}\n }}\n}}\n', encoding="utf-8")
    print(f"{TABLE.relative_to(ROOT)}: {len(CLASSES)} classes")


if __name__ == "__main__":
    main()
