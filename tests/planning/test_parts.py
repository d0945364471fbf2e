"""Which part of a model a file is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import FAMILIES, write_checkpoint

from gguf_forge import Request, UnsupportedError, UsageError
from gguf_forge.planning.making import planned
from gguf_forge.request import PartChoices


def test_a_model_without_encoders_has_no_projector(tmp_path: Path) -> None:
    source = write_checkpoint(FAMILIES / "qwen2", tmp_path / "hf")
    with (
        pytest.raises(UnsupportedError, match="no projector is known for Qwen2ForCausalLM"),
        planned(Request(source=source, mmproj=True)),
    ):
        pass


def test_a_projector_has_no_vocabulary(tmp_path: Path) -> None:
    source = write_checkpoint(FAMILIES / "qwen2", tmp_path / "hf")
    with (
        pytest.raises(UsageError, match="a projector has no vocabulary"),
        planned(Request(source=source, mmproj=True, vocab_only=True)),
    ):
        pass


def test_the_part_is_text_if_nothing_is_said() -> None:
    assert (PartChoices().part, PartChoices(mmproj=True).part) == ("text", "mmproj")
