"""Checkpoints of Pocket TTS, which have no config.json: what shapes of tensors say, and shapes that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import FAMILIES, Tensors, write_checkpoint

from gguf_forge.checkpoint import Checkpoint
from gguf_forge.checkpoint.pocket_tts_form import config_of_shapes
from gguf_forge.errors import InputError, UsageError
from gguf_forge.storage.local.folder import LocalFolder

EMBEDDINGS, NORM = "flow_lm.conditioner.embed.weight", "flow_lm.transformer.layers.0.norm1.weight"
MIMI = "mimi.encoder_transformer.transformer.layers.0.linear1.weight"


def written(folder: Path, **shapes: list[int] | None) -> Path:
    """The family's checkpoint with other shapes; None for a tensor that is left out."""

    def change(tensors: Tensors) -> None:
        for name, shape in shapes.items():
            tensors.pop(name)
            if shape is not None:
                tensors[name] = ("BF16", shape)

    return write_checkpoint(FAMILIES / "pocket-tts", folder / "hf", change=change)


def test_shapes_say_what_a_config_would(tmp_path: Path) -> None:
    found = config_of_shapes(LocalFolder(written(tmp_path))) or {}
    assert found["architectures"] == ["PocketTTSModel"]
    assert (found["num_hidden_layers"], found["hidden_size"], found["num_attention_heads"]) == (2, 256, 4)
    assert found["vocab_size"] == 381 + 2
    assert found["audio_config"] == {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 1,
    }


def test_a_model_without_the_vector_before_a_voice_has_a_token_less(tmp_path: Path) -> None:
    found = config_of_shapes(LocalFolder(written(tmp_path, **{"flow_lm.bos_before_voice": None}))) or {}
    assert found["vocab_size"] == 381 + 1
    assert found["learned_tokens"] == ["<|pad|>", "<|audio_bos|>"]


def test_other_folders_are_left_to_their_config(tmp_path: Path) -> None:
    assert config_of_shapes(LocalFolder(tmp_path)) is None
    folder = written(tmp_path)
    (folder / "config.json").write_text("{}")
    assert config_of_shapes(LocalFolder(folder)) is None
    other = write_checkpoint(FAMILIES / "qwen2", tmp_path / "qwen2")
    (other / "config.json").unlink()
    assert config_of_shapes(LocalFolder(other)) is None


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (EMBEDDINGS, None, "is missing"),
        (EMBEDDINGS, [256], r"has the shape \[256\], not 2 sizes"),
        (MIMI, None, "is missing"),
        (MIMI, [0, 64], r"has the shape \[0, 64\]"),
        (NORM, [100], "the width 100, which is not heads of 64"),
    ],
)
def test_shapes_that_cannot_be(name: str, shape: list[int] | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as error:
        Checkpoint.open(written(tmp_path, **{name: shape}))
    assert error.value.tensor == name


def test_the_repository_is_not_the_model_of_a_language(tmp_path: Path) -> None:
    written(tmp_path).rename((tmp_path / "languages").mkdir() or tmp_path / "languages" / "english")
    with pytest.raises(UsageError, match="a model for each language") as error:
        Checkpoint.open(tmp_path)
    assert "english" in (error.value.hint or "")
