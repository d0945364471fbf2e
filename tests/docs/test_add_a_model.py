"""Follows docs/add-a-model.md to the letter, and compares what comes out with llama.cpp's files."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from families import assert_files_are_expected

from gguf_forge import architectures
from gguf_forge.architectures import config

PAGE = Path(__file__).parents[2] / "docs" / "add-a-model.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_page_adds_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (declaration,), (defaults,) = blocks("python"), blocks("json")
    module = ModuleType("gguf_forge.architectures.families.granite")
    exec(compile(declaration, str(PAGE), "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    line = next(block for block in blocks("text") if "ForCausalLM" in block)
    for hf, place in eval("{" + line + "}").items():
        monkeypatch.setitem(architectures.FAMILIES, hf, place)
    known = {**config._defaults(), **json.loads(defaults)}
    monkeypatch.setattr(config, "_defaults", lambda: known)
    assert_files_are_expected(Path(__file__).with_name("granite"), tmp_path)
