"""`--base-model-id`: the base model of an adapter, found in the hub's cache by its name.

The expected digests in tests/adapters.json were made by reference/make_adapters.py; none comes from this project.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from adapters import adapter_of, pairs_for, write_adapter
from quantized import digest
from synthetic import FAMILIES

from gguf_forge import InputError, UsageError, convert

sys.path.insert(0, str(Path(__file__).parents[1] / "reference"))
from make_adapters import cached

RUNS = json.loads((Path(__file__).parents[1] / "adapters.json").read_text())
SHAPES = {"model.layers.0.self_attn.q_proj": (256, 256)}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["family"])
def test_the_file_is_the_one_of_the_reference(run: dict[str, Any], hub: Path, tmp_path: Path) -> None:
    cached(hub, run["base"], (FAMILIES / run["family"] / "config.json").read_text())
    adapter = adapter_of(run, tmp_path / "adapter")
    how = {"types": run.get("type"), "as_reference": run.get("as_reference", False)}
    (made,) = convert(adapter, tmp_path / "a.gguf", base_model_id=run["base"], **how)
    assert digest(made.path.read_bytes()) == [run["file"]["size"], run["file"]["sha256"]]


def test_it_comes_before_the_model_that_the_adapter_names(hub: Path, tmp_path: Path) -> None:
    cached(hub, "example/base", "{}")
    cached(hub, "acme/other", (FAMILIES / "qwen3" / "config.json").read_text())
    adapter = write_adapter(tmp_path / "adapter", pairs_for(SHAPES))
    (made,) = convert(adapter, tmp_path / "a.gguf", base_model_id="acme/other")
    assert made.file.metadata["general.architecture"].data == "qwen3"
    assert made.file.metadata["general.name"].data == "acme/other"


def test_what_is_not_in_the_cache_is_named_with_the_command_that_gets_it(hub: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", pairs_for(SHAPES))
    with pytest.raises(InputError, match=r"holds no config\.json of acme/none") as caught:
        convert(adapter, base_model_id="acme/none")
    assert "`hf download acme/none config.json`" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["../../etc", "a\0b", "/", ""])
def test_a_name_that_is_none(name: str, hub: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", pairs_for(SHAPES))
    with pytest.raises((InputError, UsageError)):
        convert(adapter, base_model_id=name)
