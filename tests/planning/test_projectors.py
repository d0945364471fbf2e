"""Files of projectors and draft models against llama.cpp's tools, pinned in tests/projectors and tests/drafts.

The expected digests were made by reference/make_projectors.py; none comes from this project.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from adapters import held_of, values_of
from projectors import PROJECTORS, descriptions, options, read, write
from synthetic import write_safetensors

from gguf_forge import Request, convert, open_gguf, plan
from gguf_forge.architectures.registry import by_class
from gguf_forge.planning.making import make
from gguf_forge.run_settings import RunSettings

# Names of classes that share a declaration with one that is described here or in the conformance corpus.
_SAME = (
    ("Glm4vMoeForConditionalGeneration", "Glm4vForConditionalGeneration"),
    ("GlmOcrForConditionalGeneration", "Glm4vForConditionalGeneration"),
    ("MiniMaxM3VLForConditionalGeneration", "MiniMaxM3SparseForConditionalGeneration"),
    ("Qwen2VLModel", "Qwen2VLForConditionalGeneration"),
    ("Qwen2_5_VLForConditionalGeneration", "Qwen2VLForConditionalGeneration"),
    ("Qwen3VLMoeForConditionalGeneration", "Qwen3VLForConditionalGeneration"),
    ("SmolVLMForConditionalGeneration", "Idefics3ForConditionalGeneration"),
)


@pytest.mark.parametrize("description", descriptions(), ids=lambda path: path.stem)
def test_every_file_is_the_one_of_the_reference(description: Path, tmp_path: Path) -> None:
    source, expected = write(description, tmp_path / "hf"), read(description)["expected"]
    how, made = options(description, tmp_path), {}
    for kind in expected:
        request = Request(source=source, types=(kind,), out=str(tmp_path / f"{kind}.gguf"), **how)
        (file,) = make(request, RunSettings())
        data = file.path.read_bytes()
        made[kind] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert made == expected


@pytest.mark.parametrize("description", sorted(PROJECTORS.glob("*.json")), ids=lambda path: path.stem)
def test_a_projector_is_a_part_and_needs_no_language_model(description: Path, tmp_path: Path) -> None:
    """The descriptions have nothing of the language model but what the encoders ask for."""
    source = write(description, tmp_path / "hf")
    (alone,), (part,) = (plan(source, types="F16", **how) for how in ({"mmproj": True}, {"parts": "mmproj"}))
    assert (part.metadata, part.tensors, part.part) == (alone.metadata, alone.tensors, "mmproj")


@pytest.mark.parametrize(
    "name", ["language_model.model.embed_tokens.weight", "model.language_model.embed_tokens.weight"]
)
def test_the_token_between_rows_is_found_under_every_name_of_the_embeddings(name: str, tmp_path: Path) -> None:
    """The reference finds it under one of the names, and writes a file without it for the others."""
    source = write(PROJECTORS / "pixtral.json", tmp_path / "hf")
    held = held_of(source)
    embeddings = held.pop("model.embed_tokens.weight")
    write_safetensors(source / "model.safetensors", {**held, name: embeddings})
    with open_gguf(convert(source, tmp_path / "right.gguf", types="F32", mmproj=True)[0].path) as gguf:
        assert np.array_equal(gguf["v.token_embd.img_break"].values(), values_of(embeddings)[7])
    with open_gguf(convert(source, tmp_path / "as.gguf", types="F32", mmproj=True, as_reference=True)[0].path) as gguf:
        assert "v.token_embd.img_break" not in {tensor.name for tensor in gguf.tensors}


@pytest.mark.parametrize(("name", "other"), _SAME)
def test_classes_of_one_kind_have_one_declaration(name: str, other: str) -> None:
    assert by_class()[name, "mmproj"] == by_class()[other, "mmproj"]
