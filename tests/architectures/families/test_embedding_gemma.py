"""EmbeddingGemma's dense modules: with the option in front of the other tensors, without it left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic import FAMILIES, tensor_bytes, write_checkpoint, write_safetensors

from gguf_forge import Request
from gguf_forge.planning.open_model import open_model
from gguf_forge.recipe import FILE_TYPES, Options

MODULES = {"2_Dense": ("dense_2", 512, 256), "3_Dense": ("dense_3", 256, 512)}


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    """A Gemma 3 without its head, and modules of sentence-transformers beside it."""

    def shorten(tensors: dict[str, tuple[str, list[int]]]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    folder = write_checkpoint(
        FAMILIES / "gemma3-text", tmp_path / "hf", change=shorten, config={"architectures": ["Gemma3TextModel"]}
    )
    for module, (_, rows, columns) in MODULES.items():
        (folder / module).mkdir()
        (folder / module / "config.json").write_text(json.dumps({"in_features": columns, "out_features": rows}))
        weights = {
            f"linear.{suffix}": ("F32", shape, tensor_bytes(module, "F32", shape))
            for suffix, shape in (("weight", [rows, columns]), ("bias", [rows]))
        }
        write_safetensors(folder / module / "model.safetensors", weights)
    listed = [{"path": module, "type": "sentence_transformers.models.Dense"} for module in MODULES]
    (folder / "modules.json").write_text(json.dumps(listed))
    return folder


@pytest.mark.parametrize("is_wanted", [True, False])
def test_dense_modules_come_first_where_they_are_wanted(embedder: Path, is_wanted: bool) -> None:
    request = Request(source=str(embedder), types=("F32",), sentence_transformers_dense_modules=is_wanted)
    with open_model(embedder) as model:
        content = model.content(request, Options(file_type=FILE_TYPES["F32"]), None)
    names = [tensor.info.name for tensor in content.tensors]
    dense = ["dense_2.weight", "dense_3.weight"] if is_wanted else []
    assert [name for name in names if name.startswith("dense")] == names[: len(dense)] == dense
    sizes = {key: value.data for key, value in content.metadata.items() if "_feat_" in key}
    wanted = {
        f"gemma-embedding.{name}_feat_{side}": size
        for name, rows, columns in MODULES.values()
        for side, size in (("in", columns), ("out", rows))
    }
    assert sizes == (wanted if is_wanted else {})
