"""The epsilon of ModernBERT's norms, without which llama.cpp does not load a file."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from synthetic import FAMILIES, write_checkpoint

from gguf_forge import plan

KEY = "modern-bert.attention.layer_norm_epsilon"


@pytest.mark.parametrize(
    ("config", "value"),
    [({"norm_eps": 1e-3}, "0.001"), ({"norm_eps": None}, "1e-05"), ({"layer_norm_eps": 1e-6}, None)],
)
def test_a_missing_epsilon_is_told_with_what_adds_it(
    config: dict[str, float | None], value: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_checkpoint(FAMILIES / "modernbert", tmp_path / "hf", config=config)
    with caplog.at_level(logging.WARNING):
        (planned,) = plan(source, types="F16", pre_tokenizer="modern-bert")
    told = [record.getMessage() for record in caplog.records if "layer_norm_eps" in record.getMessage()]
    problem = "config.json has no layer_norm_eps, and llama.cpp does not load the file without it"
    assert told == ([f'{problem}: add "layer_norm_eps": {value} to config.json'] if value else [])
    assert (KEY in planned.metadata) == (value is None)
