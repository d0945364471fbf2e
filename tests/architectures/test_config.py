from __future__ import annotations

import pytest

from gguf_forge.architectures.config import Config, rope_parameters
from gguf_forge.errors import InputError


def test_defaults_of_the_class_fill_what_is_missing() -> None:
    config = Config.of({"model_type": "mistral", "vocab_size": 7})
    assert config["vocab_size"] == 7
    assert config["num_key_value_heads"] == 8
    assert config["head_dim"] is None


def test_derived_defaults_follow_the_config_and_replace_null() -> None:
    config = Config.of({"model_type": "llama", "num_attention_heads": 8, "hidden_size": 512, "head_dim": None})
    assert config["num_key_value_heads"] == 8
    assert config["head_dim"] == 64
    assert Config.of({"model_type": "deepseek_v3", "qk_rope_head_dim": 32})["head_dim"] == 32


def test_an_explicit_null_replaces_a_constant_default() -> None:
    assert Config.of({"model_type": "mistral", "sliding_window": None})["sliding_window"] is None


def test_an_unknown_model_type_gets_no_defaults() -> None:
    assert dict(Config.of({"model_type": "new", "a": 1})) == {"model_type": "new", "a": 1, "rope_parameters": {}}


def test_the_text_part_is_lifted() -> None:
    config = Config.of(
        {"model_type": "llava", "hidden_size": 1, "text_config": {"model_type": "qwen2", "hidden_size": 2}}
    )
    assert config["hidden_size"] == 2
    assert config["num_attention_heads"] == 32


@pytest.mark.parametrize("part", ["text_config", "llm_config", "lm_config", "language_config", "lfm"])
def test_the_text_part_of_an_unknown_model_has_no_defaults(part: str) -> None:
    config = Config.of({"model_type": "outer", "hidden_size": 1, part: {"model_type": "qwen2", "hidden_size": 2}})
    assert config["hidden_size"] == 2
    assert config["text_config"]["hidden_size"] == 2
    assert "num_attention_heads" not in config


def test_a_thinker_has_a_text_part() -> None:
    config = Config.of({"model_type": "qwen2_5_omni", "thinker_config": {"text_config": {"hidden_size": 2}}})
    assert config["hidden_size"] == 2
    assert config["num_attention_heads"] == 28


def test_raw_configs_have_no_defaults() -> None:
    config = Config.raw({"model_type": "mamba2", "llm_config": {"d_model": 2}})
    assert config["d_model"] == 2
    assert "expand" not in config


def test_rope_parameters_are_gathered() -> None:
    found = rope_parameters(
        {"rope_theta": 5.0, "rope_scaling": {"type": "linear", "factor": 2}, "rope_local_base_freq": 1.0}
    )
    assert found["rope_theta"] == 5.0
    assert found["rope_type"] == "linear"
    assert found["sliding_attention"] == {"rope_theta": 1.0}
    given = {"full_attention": {"rope_theta": 1.0}, "sliding_attention": {"rope_theta": 2.0}}
    assert rope_parameters({"rope_parameters": given, "rope_theta": 9.0}) == given
    with pytest.raises(InputError, match="not an object"):
        rope_parameters({"rope_scaling": "linear"})


@pytest.mark.parametrize("value", ["12", None, -1, 0, 1.5, True, float("nan"), 10**9])
def test_layer_counts_that_are_none_are_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"num_hidden_layers is .*not a whole number from 1 to 10000"):
        Config.of({"num_hidden_layers": value}).block_count  # noqa: B018


def test_a_missing_number_is_named() -> None:
    with pytest.raises(InputError, match=r"num_local_experts / num_experts / n_routed_experts / .* is None"):
        Config.of({}).expert_count  # noqa: B018


@pytest.mark.parametrize("value", [5, "x", [], True])
def test_a_part_is_an_object(value: object) -> None:
    assert dict(Config({"inner": {"dim": 3}}).part("inner")) == {"dim": 3}
    assert dict(Config({"inner": None}).part("inner")) == dict(Config({}).part("inner")) == {}
    with pytest.raises(InputError, match=r"config\.json: inner is .*, not an object"):
        Config({"inner": value}).part("inner")


@pytest.mark.parametrize(
    ("entries", "message"), [({}, "inner is missing"), ({"inner": None}, "inner is None, not an object")]
)
def test_a_needed_part_is_there(entries: dict[str, object], message: str) -> None:
    assert dict(Config({"inner": {"dim": 3}}).needed_part("inner")) == {"dim": 3}
    with pytest.raises(InputError, match=message):
        Config(entries).needed_part("inner")
