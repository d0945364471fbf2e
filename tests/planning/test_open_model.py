"""One place tells a folder from a GGUF file, and both can do the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import tiny_llama

from gguf_forge import InputError, UsageError, convert, plan
from gguf_forge.planning.from_checkpoint import CheckpointModel
from gguf_forge.planning.from_gguf import GgufModel
from gguf_forge.planning.open_model import open_model, open_origin


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    folder = tiny_llama(tmp_path)
    return folder, convert(folder, tmp_path / "base.gguf", types="BF16")[0].path


def test_a_folder_and_a_file_are_told_apart(sources: tuple[Path, Path]) -> None:
    kinds = []
    for source in sources:
        with open_model(source) as model:
            kinds.append(type(model))
            assert model.name == source.name
    assert kinds == [CheckpointModel, GgufModel]


def test_the_name_of_a_file_that_is_not_there_is_not_taken_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.gguf"):
        open_model(tmp_path / "no.gguf")
    with pytest.raises(InputError, match="there is no such folder"):
        open_model(tmp_path / "no")
    with pytest.raises(InputError, match="there is no such file or folder"):
        open_origin(tmp_path / "no")


def test_both_kinds_have_the_same_tensors(sources: tuple[Path, Path]) -> None:
    found = []
    for source in sources:
        with open_model(source) as model:
            infos, architecture = model.infos()
            rows = {name: expr.rows(0, 1).astype("f4").tobytes() for name, expr in model.tensors().items()}
            found.append((architecture, {info.name: info.shape for info in infos}, rows))
            assert sum(len(file.tensors) for file in model.sources) == len(infos)
    assert found[0] == found[1]


def test_a_file_becomes_the_same_by_way_of_either_source(sources: tuple[Path, Path], tmp_path: Path) -> None:
    made = [convert(source, tmp_path / f"{n}.gguf", types="Q4_K_M")[0].path for n, source in enumerate(sources)]
    assert made[0].read_bytes() == made[1].read_bytes()


def test_hints_are_refused_for_a_gguf_file_and_a_missing_type_is_the_usual_one(sources: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="model_name=, vocab_only=True: not for a GGUF file"):
        plan(sources[1], types="Q8_0", model_name="x", vocab_only=True)
    assert plan(sources[1])[0].file_type.name == plan(sources[0])[0].file_type.name == "Q4_K_M"
