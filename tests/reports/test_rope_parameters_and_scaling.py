"""rope_scaling beside rope_parameters counts, as in transformers 5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reports import MadeInput
from synthetic import FAMILIES, read_description, write_checkpoint
from tokenizer_folders import edit
from vocabularies import converted, keys

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}


def rope_keys(folder: Path, architecture: str, **hints: Any) -> dict[str, Any]:
    """The rotary keys by the rest of their names."""
    found = keys(converted(folder, pre_tokenizer="qwen2", **hints))
    start = f"{architecture}.rope."
    return {key.removeprefix(start): value for key, value in found.items() if key.startswith(start)}


def test_yarn_arrives(made: MadeInput, caplog: pytest.LogCaptureFixture) -> None:
    folder = made()
    assert rope_keys(folder, "qwen2") == {
        "freq_base": 1e6,
        "scaling.type": "yarn",
        "scaling.factor": 4.0,
        "scaling.original_context_length": 128,
    }
    assert "rope_scaling (yarn) counts before rope_parameters (default)" in caplog.text
    caplog.clear()
    assert rope_keys(folder, "qwen2", as_reference=True) == {"freq_base": 1e6}
    assert "rope_scaling" not in caplog.text


def test_null_is_no_setting(made: MadeInput) -> None:
    folder = made()
    edit(folder / "config.json", lambda config: config.update(rope_parameters=None, rope_theta=5e5))
    assert rope_keys(folder, "qwen2") == {
        "freq_base": 5e5,
        "scaling.type": "yarn",
        "scaling.factor": 4.0,
        "scaling.original_context_length": 128,
    }


@pytest.mark.parametrize("scaling", [None, {}, {"type": "default"}, {"rope_type": "default", "rope_theta": 1e6}])
def test_what_says_the_same_is_not_spoken_of(
    scaling: object, made: MadeInput, caplog: pytest.LogCaptureFixture
) -> None:
    folder = made()
    edit(folder / "config.json", lambda config: config.update(rope_scaling=scaling))
    assert rope_keys(folder, "qwen2") == {"freq_base": 1e6}
    assert "rope_scaling" not in caplog.text


def test_another_kind_of_scaling_leaves_nothing_of_the_first(made: MadeInput) -> None:
    folder = made()
    first = {"rope_type": "llama3", "rope_theta": 1e6, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    linear = {"type": "linear", "factor": 2.0}
    edit(folder / "config.json", lambda config: config.update(rope_parameters=first, rope_scaling=linear))
    assert rope_keys(folder, "qwen2") == {"freq_base": 1e6, "scaling.type": "linear", "scaling.factor": 2.0}


def of_family(family: str, tmp_path: Path, change: dict[str, Any], part: str | None = None) -> Path:
    assert read_description(FAMILIES / family).pre_tokenizer in (None, "qwen2", "qwen35")
    folder = write_checkpoint(FAMILIES / family, tmp_path / "hf")

    def put(config: dict[str, Any]) -> None:
        (config[part] if part else config).update(change)

    edit(folder / "config.json", put)
    return folder


def test_a_family_with_settings_for_each_kind_of_layer(tmp_path: Path) -> None:
    settings = {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    change = {"rope_parameters": settings, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    folder = of_family("gemma3-text", tmp_path, change)
    found = keys(converted(folder))
    assert found["gemma3.rope.scaling.factor"] == 8.0
    assert found["gemma3.rope.freq_base"] == 1e6
    assert found["gemma3.rope.freq_base_swa"] == 1e4


def test_the_text_part_of_a_model_that_sees(tmp_path: Path) -> None:
    folder = write_checkpoint(FAMILIES / "qwen3vl", tmp_path / "hf")

    def put(config: dict[str, Any]) -> None:
        text = config["text_config"]
        sections = (text.get("rope_parameters") or text.get("rope_scaling"))["mrope_section"]
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": sections}
        text["rope_scaling"] = YARN

    edit(folder / "config.json", put)
    found = rope_keys(folder, "qwen3vl")
    assert (found["freq_base"], found["scaling.type"], found["scaling.factor"]) == (5e6, "yarn", 4.0)
    assert found["dimension_sections"][0] > 0
