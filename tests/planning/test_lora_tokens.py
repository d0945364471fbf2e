"""`--lora` with adapters of embeddings and heads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from adapters import (
    PREFIX,
    Floats,
    factor,
    held_of,
    made_of,
    merged,
    pairs_for,
    plus,
    product,
    shape_of,
    with_tensors,
    write_adapter,
)
from checkpoints import tiny_llama
from weights import file_of

from gguf_forge import InputError, UnsupportedError, plan

Q, EMBED, HEAD = "model.layers.0.self_attn.q_proj", "model.embed_tokens", "lm_head"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path)


def test_embeddings(tmp_path: Path) -> None:
    model, how = made_of("llama3-bpe", tmp_path)
    rows, columns = shape_of(model, f"{EMBED}.weight")
    a, b = factor(1, 4, rows), factor(2, columns, 4)
    held = {f"{PREFIX}{EMBED}.lora_embedding_A": a, f"{PREFIX}{EMBED}.lora_embedding_B": b}
    write_adapter(tmp_path / "a", held)
    whole = merged(model, tmp_path / "m", {f"{EMBED}.weight": lambda w: w + (product(b, a) * np.float32(2)).T})
    assert file_of(model, lora=[tmp_path / "a"], **how) == file_of(whole, **how)


def test_rows_of_embeddings_alone(model: Path, tmp_path: Path) -> None:
    rows, columns = shape_of(model, f"{EMBED}.weight")
    index = [rows - 1, 3, 700]
    trained = factor(3, 3, columns)
    held = {**pairs_for({Q: (256, 256)}), f"{PREFIX}{EMBED}.token_adapter.trainable_tokens_delta": trained}
    write_adapter(tmp_path / "a", held, trainable_token_indices={"embed_tokens": index})
    b, a = (held[f"{PREFIX}{Q}.lora_{x}.weight"] for x in "BA")

    def with_rows(weight: Floats) -> Floats:
        changed = weight.copy()
        changed[index] = trained
        return changed

    whole = merged(model, tmp_path / "m", {f"{Q}.weight": plus(2.0, b, a), f"{EMBED}.weight": with_rows})
    assert file_of(model, lora=[tmp_path / "a"]) == file_of(whole)


@pytest.mark.parametrize(
    ("index", "words"),
    [([1, 99_999_999, 2], "names token 99,999,999, and the model has 831"), ([1, 1, 2], "names token 1 twice")],
)
def test_rows_that_the_model_does_not_have_are_named(model: Path, tmp_path: Path, index: list[int], words: str) -> None:
    held = {f"{PREFIX}{EMBED}.token_adapter.trainable_tokens_delta": factor(3, 3, 256)}
    write_adapter(tmp_path / "a", held, trainable_token_indices=index)
    with pytest.raises(InputError, match=f"trainable_token_indices {words}") as caught:
        plan(model, lora=[tmp_path / "a"])
    assert caught.value.file == tmp_path / "a" / "adapter_config.json"


@pytest.mark.parametrize("index", [None, [1, 2], [1, 1, 2], [1, 2, 10**6], [1, 2, -1], {"lm_head": [1, 2, 3]}, "123"])
def test_rows_that_are_none(model: Path, tmp_path: Path, index: object) -> None:
    held = {f"{PREFIX}{EMBED}.token_adapter.trainable_tokens_delta": factor(3, 3, 256)}
    write_adapter(tmp_path / "a", held, trainable_token_indices=index)
    with pytest.raises(InputError):
        plan(model, lora=[tmp_path / "a"])


def test_a_copy_of_the_embeddings_that_an_adapter_brings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, how = made_of("llama32-tied", tmp_path)
    rows, columns = shape_of(model, f"{EMBED}.weight")
    a, b, copy = factor(1, 4, rows), factor(2, columns, 4), factor(3, rows, columns)
    held = {f"{PREFIX}{EMBED}.lora_embedding_A": a, f"{PREFIX}{EMBED}.lora_embedding_B": b}
    write_adapter(tmp_path / "a", {**held, f"{PREFIX}{EMBED}.base_layer.weight": copy})
    whole = merged(model, tmp_path / "m", {f"{EMBED}.weight": lambda w: copy + (product(b, a) * np.float32(2)).T})
    assert file_of(model, lora=[tmp_path / "a"], **how) == file_of(whole, **how)
    assert "with them the head" in caplog.text


def test_the_head_of_a_model_whose_head_is_one_with_the_embeddings(tmp_path: Path, caplog: object) -> None:
    model, how = made_of("llama32-tied", tmp_path)
    shape = shape_of(model, f"{EMBED}.weight")
    pair = pairs_for({HEAD: shape})
    write_adapter(tmp_path / "a", pair)
    b, a = (pair[f"{PREFIX}{HEAD}.lora_{x}.weight"] for x in "BA")

    held = {f"{HEAD}.weight": held_of(model)[f"{EMBED}.weight"]}
    untied = with_tensors(model, tmp_path / "u", held)
    config = json.loads((untied / "config.json").read_text())
    (untied / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    whole = merged(untied, tmp_path / "m", {f"{HEAD}.weight": plus(2.0, b, a)})
    assert file_of(model, lora=[tmp_path / "a"], **how) == file_of(whole, **how)


def test_a_head_that_no_file_of_the_family_has(tmp_path: Path) -> None:
    model, how = made_of("gemma2", tmp_path)
    shapes = {HEAD: shape_of(model, f"{EMBED}.weight"), Q: shape_of(model, f"{Q}.weight")}
    write_adapter(tmp_path / "a", pairs_for(shapes))
    with pytest.raises(UnsupportedError, match="have no head of its own"):
        plan(model, lora=[tmp_path / "a"], **how)
