from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge.checkpoint import Checkpoint
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.planning.model_plan import ModelPlan, plan_model


def plan(folder: Path) -> ModelPlan:
    return plan_model(Checkpoint.open(folder), pre_tokenizer=read_description(FAMILIES / "qwen3").pre_tokenizer)


def embedder(tmp_path: Path, modules: object, pooling: object) -> Path:
    folder = write_checkpoint(FAMILIES / "qwen3", tmp_path / "hf")
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


MODULES = [{"type": "sentence_transformers.models.Transformer", "path": ""}, {"type": "x.Pooling", "path": "1_Pooling"}]


@pytest.mark.parametrize(
    ("pooling", "wanted"),
    [
        ({"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}, 3),
        ({"pooling_mode_mean_tokens": True}, 1),
        ({"pooling_mode": "cls"}, 2),
    ],
)
def test_embedding_models_say_how_they_pool(tmp_path: Path, pooling: dict[str, object], wanted: int) -> None:
    metadata = plan(embedder(tmp_path, MODULES, pooling)).metadata
    assert metadata["qwen3.pooling_type"].data == wanted
    keys = list(metadata)
    assert keys.index("qwen3.pooling_type") == keys.index("general.file_type") + 1


def test_other_pooling_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="only mean, first-token and last-token"):
        plan(embedder(tmp_path, MODULES, {"pooling_mode_max_tokens": True}))


@pytest.mark.parametrize("path", ["../secrets", "/etc", "", None, 3])
def test_the_pooling_folder_lies_beside(tmp_path: Path, path: object) -> None:
    with pytest.raises(InputError, match="is not a folder beside it"):
        plan(embedder(tmp_path, [{"type": "Pooling", "path": path}], {}))


@pytest.mark.parametrize("modules", [{}, [1], "x"])
def test_modules_that_are_none(tmp_path: Path, modules: object) -> None:
    with pytest.raises(InputError, match="not a list of modules"):
        plan(embedder(tmp_path, modules, {}))


def test_rerankers_are_known_by_folder_or_card_and_need_both_answers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no token 'yes'"):
        plan(write_checkpoint(FAMILIES / "qwen3", tmp_path / "Qwen3-Reranker-0.6B"))
    folder = write_checkpoint(FAMILIES / "qwen3", tmp_path / "hf")
    (folder / "README.md").write_text("# Qwen3-Reranker-0.6B\n")
    with pytest.raises(InputError, match="has no token 'yes'"):
        plan(folder)
