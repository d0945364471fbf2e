"""A file of llama.cpp's own tools is recognized where these are wrong and ours are others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synthetic import FAMILIES, write_checkpoint
from tokenizer_folders import edit

from gguf_forge import convert, edit_gguf, verify_gguf


@pytest.fixture(params=["scores", "template", "rope"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint of which the reference makes a wrong file."""
    family = "llama-hfvocab" if request.param == "scores" else "llama2-spm"
    folder = write_checkpoint(FAMILIES / family, tmp_path / "hf")
    if request.param == "template":
        (folder / "chat_template.jinja").write_text("{{ messages }}")

    def both_ropes(config: dict[str, Any]) -> None:
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
        config["rope_scaling"] = {"type": "linear", "factor": 2.0}

    if request.param == "rope":
        edit(folder / "config.json", both_ropes)
    return folder


@pytest.mark.parametrize("file_type", ["F16", "Q4_K_M"])
def test_both_files_are_right(file_type: str, folder: Path, tmp_path: Path) -> None:
    for as_reference in (False, True):
        (made,) = convert(folder, tmp_path / f"{as_reference}.gguf", types=file_type, as_reference=as_reference)
        found = verify_gguf(made.path, folder)
        assert found.ok
        assert any("--as-reference" in note for note in found.notes) == as_reference


def test_also_under_another_name(folder: Path, tmp_path: Path) -> None:
    (made,) = convert(folder, tmp_path / "m.gguf", types="F16", as_reference=True, model_name="Other")
    found = verify_gguf(made.path, folder)
    assert found.ok and "general.name" in {difference.key for difference in found.names}
    assert any("--as-reference" in note for note in found.notes)


def test_another_file_is_not(folder: Path, tmp_path: Path) -> None:
    (made,) = convert(folder, tmp_path / "m.gguf", types="F16", as_reference=True)
    edit_gguf(made.path, set={"llama.context_length": 7})
    found = verify_gguf(made.path, folder)
    assert not found.ok
    assert "llama.context_length" in {difference.key for difference in found.keys}
