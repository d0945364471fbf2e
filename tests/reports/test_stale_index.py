"""An index that belongs to other files than those that are here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from checkpoints import tiny_llama
from reports import MadeInput
from safetensors import deserialize
from synthetic import write_safetensors
from weights import Held, file_of, rewritten

from gguf_forge import InputError, plan

INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("kind", ["single", "resharded"])
def test_the_files_that_are_here_are_taken(made: MadeInput, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    stale = made().with_name(f"stale-index-{kind}")
    found = file_of(stale, pre_tokenizer="qwen2")
    assert any("hold all of its tensors" in message for message in caplog.messages)
    (stale / INDEX).unlink()
    assert found == file_of(stale, pre_tokenizer="qwen2")


def indexed(folder: Path, files: dict[str, str]) -> Path:
    """A copy of a small Llama whose tensors the index finds in these files: beginning of the name -> file."""
    model = tiny_llama(folder)
    names = [name for name, _ in deserialize((model / "model.safetensors").read_bytes())]
    weight_map = {name: next(file for start, file in files.items() if name.startswith(start)) for name in names}
    (model / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return model


def test_one_of_the_old_files_is_still_here(tmp_path: Path) -> None:
    """A file of the old set holds tensors twice: that is for the user to clear up."""
    model = indexed(tmp_path, {"lm_head": "model-00001-of-00002.safetensors", "": "model-00002-of-00002.safetensors"})
    held = {one: two for one, two in deserialize((model / "model.safetensors").read_bytes()) if one == "lm_head.weight"}
    write_safetensors(
        model / "model-00001-of-00002.safetensors",
        {name: (one["dtype"], one["shape"], bytes(one["data"])) for name, one in held.items()},
    )
    with pytest.raises(InputError, match="1 tensors are also in") as caught:
        plan(model)
    assert "two copies" in str(caught.value.hint)


def test_a_shard_that_is_really_missing(tmp_path: Path) -> None:
    model = indexed(tmp_path, {"lm_head": "model-00001-of-00002.safetensors", "": "model-00002-of-00002.safetensors"})

    def without_head(tensors: dict[str, Held]) -> dict[str, Held]:
        return {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"}

    partial = rewritten(model, tmp_path / "partial", without_head)
    shutil.copy(model / INDEX, partial)
    (partial / "model.safetensors").rename(partial / "model-00002-of-00002.safetensors")
    with pytest.raises(InputError, match=r"1 of 2 files of the model are missing: .*; 1 of 21 tensors") as caught:
        plan(partial)
    assert caught.value.hint == "download the files that are missing"


def test_other_tensors_than_the_index_names(tmp_path: Path) -> None:
    """MLX packs weights anew, and copies the index."""
    model = indexed(tmp_path, {"": "weights-1.safetensors"})

    def packed(tensors: dict[str, Held]) -> dict[str, Held]:
        return tensors | {"model.norm.scales": ("BF16", [1], b"\0\0")}

    anew = rewritten(model, tmp_path / "packed", packed)
    shutil.copy(model / INDEX, anew)
    with pytest.raises(InputError, match="are missing") as caught:
        plan(anew)
    assert f"if model.safetensors is the whole model, remove {INDEX}" in str(caught.value.hint)


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    model = indexed(tmp_path, {"": "model-1.safetensors"})
    (model / "model.safetensors").unlink()
    (model / "model-1.safetensors").symlink_to("../blobs/0123")
    with pytest.raises(InputError, match=r"missing \(broken links\)"):
        plan(model)
