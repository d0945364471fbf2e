"""What BERT's kin read off their config: classes, positions, tasks, and what llama.cpp's graph takes for granted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.families.bert import bert, roberta
from gguf_forge.architectures.families.jina_bert import jina_bert_v3
from gguf_forge.architectures.families.nomic_bert import nomic_bert, nomic_bert_experts
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.gguf_file.values import Value
from gguf_forge.storage.local.folder import LocalFolder

NOMIC = {
    "n_positions": 8192,
    "activation_function": "swiglu",
    "causal": False,
    "prenorm": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
}


def site(**config: Any) -> Site:
    return Site(Config.of({"num_hidden_layers": 2, **config}), LocalFolder(Path()), block_count=2)


def keys(architecture: Architecture, **config: Any) -> dict[str, Value]:
    return dict(pair for line in architecture.metadata for pair in line(site(**config)))


@pytest.mark.parametrize(
    ("named", "labels"),
    [
        ({"0": "NEGATIVE", "1": "POSITIVE"}, ("NEGATIVE", "POSITIVE")),
        ({"10": "k", "9": "j", "0": "a"}, ("a", "j", "k")),
        ({"0": "LABEL_0"}, ("LABEL_0",)),
        ({"0": "LABEL_0", "1": "LABEL_1"}, None),
        ({}, None),
    ],
)
def test_classes_are_named_in_the_order_of_their_numbers(named: object, labels: tuple[str, ...] | None) -> None:
    found = keys(bert, id2label=named).get("classifier.output_labels")
    assert (found and found.data) == labels


@pytest.mark.parametrize("named", [["a", "b"], {"one": "a", "2": "b"}, {"0": 3}, "text"])
def test_classes_that_are_none_are_refused(named: object) -> None:
    with pytest.raises(InputError, match="id2label"):
        keys(bert, id2label=named)


def test_a_classifier_pools_as_its_config_says() -> None:
    assert keys(bert, classifier_pooling="mean")["classifier.pooling_type"].data == 1
    with pytest.raises(UnsupportedError, match="classifier_pooling 'max'"):
        keys(bert, classifier_pooling="max")


@pytest.mark.parametrize(("padding", "positions"), [(1, 512), (0, 513), (None, 514)])
def test_positions_begin_behind_the_padding(padding: int | None, positions: int) -> None:
    config = roberta.prepare(site(max_position_embeddings=514, pad_token_id=padding))
    assert config["max_position_embeddings"] == positions


def test_nomic_models_have_the_positions_that_they_were_trained_for() -> None:
    assert nomic_bert.prepare(site(**NOMIC))["n_positions"] == 2048
    biased = {**NOMIC, **dict.fromkeys(("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"), True)}
    second = {**biased, "n_positions": 2048, "activation_function": "gelu", "moe_every_n_layers": 2}
    assert nomic_bert_experts.prepare(site(**second))["n_positions"] == 512


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"prenorm": True}, "prenorm is True"),
        ({"activation_function": "gelu"}, "activation_function is 'gelu'"),
        ({"n_positions": 4096}, "n_positions 4096"),
        ({"max_trained_positions": 8192}, "n_positions 8192"),
    ],
)
def test_nomic_models_of_another_kind_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(UnsupportedError, match=problem):
        nomic_bert.prepare(site(**{**NOMIC, **change}))


@pytest.mark.parametrize("tasks", ["text", [3], ["../other"], ["a/b"], ["same", "Same"], [""]])
def test_tasks_that_no_file_can_be_called_after_are_refused(tasks: object) -> None:
    assert jina_bert_v3.adapters is not None
    with pytest.raises(InputError, match="lora_adaptations"):
        jina_bert_v3.adapters(site(lora_adaptations=tasks))


def test_a_task_without_its_prompt_is_refused() -> None:
    assert jina_bert_v3.adapters is not None
    config = {"lora_adaptations": ["one", "two"], "task_instructions": {"one": "First: "}}
    adapters = jina_bert_v3.adapters(site(**config))
    assert keys(adapters["lora-one-"], **config)["adapter.lora.prompt_prefix"].data == "First: "
    with pytest.raises(InputError, match="no prompt for two"):
        keys(adapters["lora-two-"], **config)
