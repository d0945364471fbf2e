"""Jina's embedding models that are related to BERT: version 2, and version 3 with an adapter for each task."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.families.bert import ENCODER_LAYER, ENCODER_SHAPES, bert, xlm_roberta_encoder
from gguf_forge.architectures.metadata import f32, text
from gguf_forge.architectures.operations import chain, member, transpose
from gguf_forge.architectures.parts import is_text
from gguf_forge.architectures.renames import Replacement, ends
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.tokenizer import (
    bpe,
    either,
    fixed_token_type_count,
    has_pre_tokenizer,
    has_tokenizer_class,
    in_order,
    whitespace,
    wordpiece,
)

jina_bert_v2 = bert.derive(
    "jina-bert-v2",
    hf=("JinaBertModel", "JinaBertForMaskedLM"),
    tokenizer=either(
        has_tokenizer_class("RobertaTokenizer"),
        in_order(either(has_pre_tokenizer("Whitespace"), whitespace, bpe), fixed_token_type_count(2)),
        wordpiece,
    ),
    rules=(),
    # gate and up in one, or each by itself
    shapes={role: sizes for role, sizes in ENCODER_SHAPES.items() if role != "ffn_up"},
    model_tensors=("token_embd", "token_types", "token_embd_norm"),
    layer_tensors=lambda site: ENCODER_LAYER,
)

_FILE_NAME = re.compile("[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_LAYER = "encoder.layers.{i}"
# The tensors that the adapters change.
_ADAPTED = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.token_type_embeddings": "token_types",
    f"{_LAYER}.mixer.Wqkv": "blk.{i}.attn_qkv",
    f"{_LAYER}.mixer.out_proj": "blk.{i}.attn_output",
    f"{_LAYER}.mlp.fc1": "blk.{i}.ffn_up",
    f"{_LAYER}.mlp.fc2": "blk.{i}.ffn_down",
}
_ADAPTER_NAMES = {
    f"{name}.weight.0.lora_{letter.upper()}": f"{target}.weight.lora_{letter}"
    for name, target in _ADAPTED.items()
    for letter in "ab"
} | {
    # The matrices of embeddings are transposed: a token is a row, while an input of a linear layer is a column.
    "embeddings.token_type_embeddings.weight.0.lora_A": "token_types.weight.lora_b",
    "embeddings.token_type_embeddings.weight.0.lora_B": "token_types.weight.lora_a",
}


def _is_of_an_adapter(name: str) -> bool:
    return name.endswith((".0.lora_A", ".0.lora_B"))


def _tasks(site: Site) -> list[str]:
    """The adapters' names, which become parts of file names."""
    listed = site.config.listed("lora_adaptations")
    tasks = [task for task in listed if isinstance(task, str) and _FILE_NAME.fullmatch(task)]
    if len({task.casefold() for task in tasks}) < len(listed):
        raise InputError("lora_adaptations is not a list of different names that files can have", file="config.json")
    return tasks


def _prompt(site: Site, task: str) -> object:
    """The prompt before a text for a task; None if config.json has none."""
    prompts = site.config.find("task_instructions")
    if not prompts:
        return None
    if not isinstance(prompts, dict) or task not in prompts:
        raise InputError(f"task_instructions has no prompt for {task}", file="config.json")
    return prompts[task]


def _adapter(number: int, tasks: list[str]) -> Architecture:
    task, mine = tasks[number], member(number, len(tasks))
    return jina_bert_v3.derive(
        "jina-bert-v3",
        metadata=(
            text("adapter.type", lambda site: "lora"),
            f32("adapter.lora.alpha", lambda site: site.config.number("lora_alpha", default=1.0)),
            text("adapter.lora.task_name", lambda site: task),
            text("adapter.lora.prompt_prefix", lambda site: _prompt(site, task)),
        ),
        tokenizer=None,
        takes=lambda name: _is_of_an_adapter(name) and "pooler." not in name,
        names=_ADAPTER_NAMES,
        operations={"token_embd.weight.lora_b": chain(mine, transpose), "*": mine},
        shapes={},
        model_tensors=(),
        layer_tensors=None,
        adapters=None,
    )


def _adapters(site: Site) -> Mapping[str, Architecture]:
    tasks = _tasks(site)
    return {f"lora-{task}-": _adapter(number, tasks) for number, task in enumerate(tasks)}


jina_bert_v3 = xlm_roberta_encoder.derive(
    "jina-bert-v3",
    hf=("XLMRobertaModel", "XLMRobertaForSequenceClassification"),
    when=lambda config: bool(config.find("lora_adaptations")),
    # torch stores a parametrized weight, such as one with an adapter, under these names.
    renames=(
        Replacement(".parametrizations.", ".", "inside", put_back=False),
        ends(".weight.original", ".weight", put_back=False),
        *xlm_roberta_encoder.renames,
    ),
    takes=lambda name: is_text(name) and not _is_of_an_adapter(name),
    rules=(),
    model_tensors=("token_embd", "token_embd_norm"),
    adapters=_adapters,
)
