"""Files of any part of a model are recognized, and compared with that part of their source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpus import CORPUS, Cases
from projectors import PROJECTORS, write, write_with_all_parts
from synthetic import FAMILIES, read_description

from gguf_forge import convert, report, verify_gguf
from gguf_forge.gguf_file.opened import open_gguf

PRE = read_description(FAMILIES / "qwen35").pre_tokenizer


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_with_all_parts(tmp_path_factory.mktemp("parts") / "hf")


ALONE: dict[str, dict[str, Any]] = {
    "whole": {},
    "main": {"no_mtp": True},
    "mmproj": {"mmproj": True},
    "mtp": {"mtp": True},
}


@pytest.mark.parametrize("file_type", ["F16", "Q8_0"])
@pytest.mark.parametrize("part", ALONE)
def test_a_file_is_compared_with_its_own_part(source: Path, tmp_path: Path, part: str, file_type: str) -> None:
    (made,) = convert(source, tmp_path / "m.gguf", types=file_type, pre_tokenizer=PRE, **ALONE[part])
    found = verify_gguf(made.path, source, pre_tokenizer=PRE)
    assert found.ok, found.sentences
    assert len(found.tensors) == len(made.file.tensors)
    page = report(made.path, source=source)
    assert (page.missing, len(page.tensors)) == ((), len(made.file.tensors))


@pytest.mark.parametrize("part", ALONE)
def test_a_changed_byte_of_a_part_is_found(source: Path, tmp_path: Path, part: str) -> None:
    (made,) = convert(source, tmp_path / "m.gguf", types="F16", pre_tokenizer=PRE, **ALONE[part])
    with open_gguf(made.path) as gguf:
        largest = max(gguf.tensors, key=lambda tensor: tensor.nbytes)
        name, at = largest.name, largest.expression().stored_runs(0, 1)[0].offset  # type: ignore[index]
    with made.path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    found = verify_gguf(made.path, source, pre_tokenizer=PRE)
    assert found.first is not None
    assert found.first.info.name == name


def test_a_projector_of_a_model_whose_text_is_not_known_is_compared(tmp_path: Path) -> None:
    source = write(PROJECTORS / "intern-s1.json", tmp_path / "hf")
    (made,) = convert(source, tmp_path / "m.gguf", types="Q8_0", mmproj=True)
    assert verify_gguf(made.path, source).ok
    assert report(made.path, source=source).missing == ()


@pytest.mark.skipif(not CORPUS.is_dir(), reason="there is no corpus beside the checkout")
@pytest.mark.parametrize("file_type", ["F32", "F16", "BF16"])
def test_an_adapter_of_the_checkpoint_is_compared_with_itself(cases: Cases, tmp_path: Path, file_type: str) -> None:
    (case,) = CORPUS.glob("*/jina-v3")
    _, (source, *more) = cases.arguments(case / "expected" / "f16.json", tmp_path)
    pre = more[more.index("--pre-tokenizer") + 1] if more else None
    types = ["main:F16", *(f"lora-retrieval.{task}:{file_type}" for task in ("query", "passage"))]
    made = convert(source, tmp_path / "m.gguf", types=types, parts="all", pre_tokenizer=pre)
    assert [result.file.part for result in made] == ["main", "lora-retrieval.query", "lora-retrieval.passage"]
    for result in made:
        found = verify_gguf(result.path, source, pre_tokenizer=pre)
        assert found.ok, (result.file.part, found.sentences, found.keys)
        assert not any("another type" in said for said in found.notes)
        assert report(result.path, source=source).missing == ()
