"""Mistral's own parameters: how long positions are told, and which GGUF architecture they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gguf_forge.architectures.families.mistral_form import mistral_form, mistral_moe_form
from gguf_forge.architectures.registry import find_architecture
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder


def keys_of(**params: Any) -> dict[str, Any]:
    site = Site(mistral_form.read_config(params), LocalFolder(Path()))
    return {key: value.data for key, value in mistral_form.metadata[-1](site)}


@pytest.mark.parametrize(("apply_scale", "multiplier"), [(True, 0.0), (False, 1.0)])
def test_yarn(apply_scale: bool, multiplier: float) -> None:
    yarn = {"factor": 16, "beta": 32, "alpha": 1, "apply_scale": apply_scale, "original_max_position_embeddings": 512}
    assert keys_of(yarn=yarn, llama_4_scaling={"beta": 0.5}) == {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 16,
        "rope.scaling.yarn_beta_fast": 32,
        "rope.scaling.yarn_beta_slow": 1,
        "rope.scaling.yarn_log_multiplier": multiplier,
        "rope.scaling.original_context_length": 512,
        "attention.temperature_scale": 0.5,
    }


def test_no_long_positions() -> None:
    assert keys_of() == {}
    with pytest.raises(InputError, match=r"params\.json: yarn is 5, not an object"):
        keys_of(yarn=5)


@pytest.mark.parametrize(
    ("params", "name"),
    [({}, "llama"), ({"llama_4_scaling": {}}, "mistral3"), ({"llama_4_scaling": {}, "moe": {}}, "deepseek2")],
)
def test_the_parameters_tell_the_architecture(params: dict[str, Any], name: str) -> None:
    assert find_architecture({"architectures": ["params.json"], **params}).name == name


def test_parameters_of_experts_under_the_keys_of_deepseek() -> None:
    config = mistral_moe_form.read_config({"dim": 8, "n_heads": 2, "moe": {"num_experts": 4, "routed_scale": 2.5}})
    prepared = mistral_moe_form.prepare(Site(config, LocalFolder(Path())))
    wanted = {"hidden_size": 8, "num_attention_heads": 2, "n_routed_experts": 4, "routed_scaling_factor": 2.5}
    assert wanted.items() <= dict(prepared).items()
    assert prepared["max_position_embeddings"] == 128_000
