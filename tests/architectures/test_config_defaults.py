"""Defaults of config classes, against what the classes of transformers themselves made of the same configs.

tools/refresh_config_defaults.py makes config_cases.json, and compares many more configs of every class.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from gguf_forge.architectures.config_defaults import with_defaults

CASES = json.loads(Path(__file__).with_name("config_cases.json").read_text())


def shown(values: Any, expected: Any) -> Any:
    """The values with the keys that the expectation has, in parts as at the top."""
    if isinstance(values, dict) and isinstance(expected, dict):
        return {key: shown(values[key], entry) for key, entry in expected.items() if key in values}
    return values


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["config"]["model_type"])
def test_values_are_those_of_the_class(case: dict[str, Any]) -> None:
    assert shown(with_defaults(case["config"]), case["expected"]) == case["expected"]


def test_the_cases_cover_many_classes() -> None:
    assert len({case["config"]["model_type"] for case in CASES}) > 150


def test_a_default_is_not_changed_by_what_was_made_of_it() -> None:
    first = with_defaults({"model_type": "gpt_oss"})
    first["rope_scaling"]["factor"] = "changed"
    assert with_defaults({"model_type": "gpt_oss"})["rope_scaling"]["factor"] == 32.0


def test_a_value_gets_the_name_that_counts() -> None:
    values = with_defaults({"model_type": "gpt2", "hidden_size": 64, "num_hidden_layers": 3})
    assert (values["n_embd"], values["n_layer"], values["n_head"]) == (64, 3, 12)
    assert "hidden_size" not in values


def test_layer_types_follow_the_layers() -> None:
    assert with_defaults({"model_type": "gemma2", "num_hidden_layers": 3})["layer_types"] == [
        "sliding_attention",
        "full_attention",
        "sliding_attention",
    ]


def test_a_window_counts_where_it_is_used() -> None:
    assert with_defaults({"model_type": "qwen2", "sliding_window": 64})["sliding_window"] is None
    used = with_defaults({"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": True})
    assert used["sliding_window"] == 64


def test_a_missing_part_has_its_defaults() -> None:
    values = with_defaults({"model_type": "llava"})
    assert values["vision_config"]["hidden_size"] == 1024
    assert values["text_config"]["hidden_size"] == 4096


def test_a_given_part_has_the_defaults_of_its_type() -> None:
    values = with_defaults({"model_type": "llava", "text_config": {"model_type": "qwen2", "hidden_size": 64}})
    assert (values["text_config"]["hidden_size"], values["text_config"]["vocab_size"]) == (64, 151936)


def test_a_missing_part_may_be_made_of_the_values_beside_it() -> None:
    values = with_defaults({"model_type": "qwen2_5_vl", "hidden_size": 64})
    assert values["text_config"]["hidden_size"] == 64
    assert values["text_config"]["model_type"] == "qwen2_5_vl_text"


def test_mistral_with_layer_types_is_ministral() -> None:
    values = with_defaults({"model_type": "mistral", "num_hidden_layers": 1, "layer_types": ["full_attention"]})
    assert values["model_type"] == "ministral"


def test_counted_labels_get_names() -> None:
    assert with_defaults({"model_type": "bert", "num_labels": 2})["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"}
    assert "id2label" not in with_defaults({"model_type": "bert"})
    assert "id2label" not in with_defaults({"model_type": "bert", "num_labels": 10**12})


def test_a_model_type_without_defaults_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        with_defaults({"model_type": "unheard of"})
    assert caplog.messages == ["no defaults are known for model_type 'unheard of': config.json is used as it is"]


@pytest.mark.parametrize(
    "refused",
    [
        {"model_type": "gemma3_text", "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"model_type": "qwen2", "num_hidden_layers": 10**12},
        {"model_type": "qwen2", "num_hidden_layers": "many"},
        {"model_type": "llama", "num_attention_heads": 0},
        {"model_type": "llama", "rope_scaling": "linear"},
        {"model_type": "llava", "text_config": {"model_type": "unheard of"}},
        {"model_type": "llava", "text_config": {"model_type": []}},
    ],
    ids=str,
)
def test_a_config_that_its_class_refuses_is_used_as_it_is(
    refused: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert with_defaults(refused) == refused
    assert "config.json is used as it is" in caplog.text


def test_parts_inside_parts_inside_parts_are_refused_without_a_crash() -> None:
    config: dict[str, Any] = {"model_type": "llava"}
    for _ in range(2000):
        config = {"model_type": "llava", "text_config": config}
    assert with_defaults(config).keys() == config.keys()
