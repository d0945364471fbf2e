"""Which part of a model a file is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import FAMILIES, write_checkpoint

from gguf_forge import Options, Request, UnsupportedError, UsageError, convert, open_gguf, plan
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


def test_a_public_function_takes_every_field_of_a_request(tmp_path: Path) -> None:
    source = write_checkpoint(FAMILIES / "gemma3-vision", tmp_path / "hf")
    (file,) = plan(source, tmp_path / "out.gguf", types="F16", mmproj=True)
    (result,) = convert(source, tmp_path / "out.gguf", types="F16", mmproj=True)
    assert (result.path, result.path.stat().st_size) == (file.path, file.size)
    with open_gguf(result.path) as gguf:
        assert gguf.metadata["general.architecture"] == "clip"


def test_a_mix_is_said_once(tmp_path: Path) -> None:
    source = write_checkpoint(FAMILIES / "qwen2", tmp_path / "hf")
    with pytest.raises(
        UsageError, match=r"both options and leave_output_tensor, pure are given; leave one of them out"
    ):
        plan(source, options=Options(), pure=True, leave_output_tensor=True)
