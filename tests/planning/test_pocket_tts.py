"""The embeddings of Pocket TTS, which end in vectors that the model learned, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from synthetic import FAMILIES, Tensors, as_dtype, tensor_bytes, write_checkpoint

from gguf_forge import InputError, plan
from gguf_forge.planning.open_model import open_model

LATENT, MATRIX, VOICE = "flow_lm.bos_emb", "flow_lm.input_linear.weight", "flow_lm.bos_before_voice"
EMBEDDINGS = "flow_lm.conditioner.embed.weight"


def written(folder: Path, changes: Mapping[str, tuple[str, list[int]] | None]) -> Path:
    def change(tensors: Tensors) -> None:
        for name, value in changes.items():
            tensors.pop(name)
            if value is not None:
                tensors[name] = value

    return write_checkpoint(FAMILIES / "pocket-tts", folder / "hf", change=change)


def values(name: str, shape: list[int]) -> np.ndarray:
    return np.frombuffer(tensor_bytes(name, "F32", shape), np.float32).reshape(shape)


@pytest.mark.parametrize("table", ["F32", "F16"])
def test_the_last_row_is_the_latent_after_its_matrix(table: str, tmp_path: Path) -> None:
    """The sum of 32 products, rounded once, and once more where the embeddings are float16."""
    changes = {LATENT: ("F32", [32]), MATRIX: ("F32", [256, 32]), EMBEDDINGS: (table, [381, 256]), VOICE: None}
    with open_model(written(tmp_path, changes)) as model:
        (row,) = model.tensors()["token_embd.weight"].rows(381, 382)
    wide = values(MATRIX, [256, 32]).astype(np.float64) @ values(LATENT, [32]).astype(np.float64)
    assert np.array_equal(row, as_dtype(wide.astype(np.float32), table))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (LATENT, [3], r"has the shape \[256, 2\], not \[256, 3\]"),
        (MATRIX, [64, 2], r"has the shape \[64, 2\], not \[256, 2\]"),
        (VOICE, [1, 1, 64], "has 64 values, the embeddings have 256"),
        (LATENT, [1 << 20], "bytes; at most"),
        ("flow_lm.transformer.layers.1.self_attn.in_proj.weight", [767, 256], "not 3 equal parts"),
    ],
)
def test_shapes_that_do_not_fit(name: str, shape: list[int], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        plan(written(tmp_path, {name: ("BF16", shape)}), types="F32")


def test_the_matrix_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 of its"):
        plan(written(tmp_path, {MATRIX: None}), types="F32")


def test_a_vocabulary_with_more_pieces_than_embeddings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 380 pieces, and the model has embeddings of 99") as error:
        plan(written(tmp_path, {EMBEDDINGS: ("BF16", [100, 256])}), types="F32")
    assert "beside the model's own" in (error.value.hint or "")


def test_the_folder_lacks_the_vocabulary(tmp_path: Path) -> None:
    folder = written(tmp_path, {})
    (folder / "tokenizer.model").unlink()
    with pytest.raises(InputError, match="is missing") as error:
        plan(folder, types="F32")
    assert "download it" in (error.value.hint or "")


def test_learned_tokens_are_the_last_of_the_vocabulary(tmp_path: Path) -> None:
    (file,) = plan(written(tmp_path, {}), vocab_only=True)
    assert list(file.metadata["tokenizer.ggml.tokens"].data)[380:] == [
        b"<|pad|>",
        b"<|bos_before_voice|>",
        b"<|audio_bos|>",
    ]
