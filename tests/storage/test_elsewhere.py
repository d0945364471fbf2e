"""A model that lies on no disk becomes a file that lies on none."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from memory import ROOT, MemoryFolder, MemorySource, MemoryStore
from synthetic import read_description, write_checkpoint

from gguf_forge.checkpoint import Checkpoint
from gguf_forge.engine.forge import forge
from gguf_forge.errors import InputError, RefusedError
from gguf_forge.planning.file_plan import FilePlan
from gguf_forge.planning.from_checkpoint import plan_file
from gguf_forge.planning.model_plan import plan_model
from gguf_forge.planning.place import OutputPlace
from gguf_forge.recipe import FileType, Options
from gguf_forge.run_settings import RunSettings

FAMILIES = Path(__file__).resolve().parents[1] / "families"
OUT = ROOT / "out.gguf"


@pytest.fixture
def folder(family: str, tmp_path: Path) -> MemoryFolder:
    return MemoryFolder.copy_of(write_checkpoint(FAMILIES / family, tmp_path / "hf"))


def planned(checkpoint: Checkpoint, family: str, file_type: str) -> FilePlan:
    plan = plan_model(checkpoint, pre_tokenizer=read_description(FAMILIES / family).pre_tokenizer)
    return plan_file(plan, Options(file_type=FileType.named(file_type)), OutputPlace(OUT))


# BERT's folder has another one inside, which tells how an embedding is pooled.
@pytest.mark.parametrize(("family", "file_type"), [("llama3-bpe", "Q4_K_M"), ("mixtral", "F16"), ("bert", "F16")])
def test_the_file_is_that_of_a_disk(folder: MemoryFolder, family: str, file_type: str) -> None:
    store = MemoryStore()
    with Checkpoint.of(folder) as checkpoint:
        forge(planned(checkpoint, family, file_type).shards, RunSettings(), publish=store.publish)
    made = store.files.pop(OUT)
    assert store.files == {}
    expected = json.loads((FAMILIES / family / "expected.json").read_text())[file_type]
    assert {"size": len(made), "sha256": sha256(made).hexdigest()} == expected


@pytest.mark.parametrize("family", ["llama3-bpe"])
def test_a_run_that_fails_publishes_nothing(folder: MemoryFolder, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(source: MemorySource) -> None:
        raise InputError("the file changed while it was read", file=source.path)

    store = MemoryStore()
    monkeypatch.setattr(MemorySource, "check_unchanged", changed)
    with Checkpoint.of(folder) as checkpoint, pytest.raises(InputError, match="changed while it was read"):
        forge(planned(checkpoint, family, "F16").shards, RunSettings(), publish=store.publish)
    assert store.files == {}


@pytest.mark.parametrize("family", ["llama3-bpe"])
def test_a_file_that_exists_is_replaced_only_if_that_is_allowed(folder: MemoryFolder, family: str) -> None:
    store = MemoryStore({OUT: b"mine"})
    with Checkpoint.of(folder) as checkpoint:
        shards = planned(checkpoint, family, "F16").shards
        with pytest.raises(RefusedError, match="already exists"):
            forge(shards, RunSettings(), publish=store.publish)
        assert store.files == {OUT: b"mine"}
        forge(shards, RunSettings(overwrite=True), publish=store.publish)
    assert store.files[OUT].startswith(b"GGUF")


@pytest.mark.parametrize("family", ["llama3-bpe"])
def test_a_missing_file_is_called_by_the_name_of_its_folder(folder: MemoryFolder, family: str) -> None:
    del folder.files["config.json"]
    with pytest.raises(InputError) as error:
        Checkpoint.of(folder)
    assert error.value.file == ROOT / "hf" / "config.json"
