"""`--lora` with adapters of models that got other tokens: they bring embeddings, a head and a tokenizer.

The names of the tensors are those that PEFT 0.21 gives them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from adapters import PREFIX, Floats, factor, held_of, made_of, pairs_for, shape_of, with_tensors, write_adapter
from synthetic import as_dtype
from weights import Held, file_of

from gguf_forge import InputError, UnsupportedError, convert, open_gguf, plan
from gguf_forge.cli import main
from gguf_forge.planning.adapters import folder_of_tokenizer

Q, EMBED, HEAD = "model.layers.0.self_attn.q_proj", "model.embed_tokens", "lm_head"
# The family's vocabulary has 500 tokens, and its embeddings have 512 rows.
FEWER, MORE = 503, 520
_BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def add_tokens(model: Path, folder: Path, rows: int) -> None:
    """Writes the model's tokenizer with as many tokens more as there are rows."""
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["added_tokens"] += [
        {**tokenizer["added_tokens"][-1], "id": number, "content": f"<|new {number}|>"} for number in range(500, rows)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    for name in _BESIDE:
        if (model / name).is_file():
            shutil.copy(model / name, folder)


def stored(values: Floats, dtype: str) -> Held:
    return dtype, list(values.shape), as_dtype(values, dtype).tobytes()


def resized(model: Path, folder: Path, tensors: dict[str, Floats], dtype: str, **config: object) -> Path:
    """The checkpoint with other embeddings and the tokenizer that belongs to them."""
    held: dict[str, Held] = {
        f"{n}.weight": (dtype, list(x.shape), as_dtype(x, dtype).tobytes()) for n, x in tensors.items()
    }
    whole = with_tensors(model, folder, held)
    rows = len(tensors[EMBED])
    said = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps(said | {"vocab_size": rows} | config))
    add_tokens(model, whole, rows)
    return whole


def same_tensors(adapter: Path, model: Path, whole: Path, how: dict[str, object]) -> bool:
    return file_of(model, lora=[adapter], **how) == file_of(whole, **how)


def embeddings(model: Path, rows: int) -> tuple[Floats, Floats]:
    width = shape_of(model, f"{EMBED}.weight")[1]
    return factor(1, rows, width), factor(2, rows, width)


def as_whole(embed: Floats, head: Floats) -> dict[str, Floats]:
    return {f"{PREFIX}{EMBED}.weight": embed, f"{PREFIX}{HEAD}.weight": head}


def no_change(model: Path) -> dict[str, Floats]:
    """A pair that changes nothing, so that the embeddings alone are compared."""
    pair = pairs_for({Q: shape_of(model, f"{Q}.weight")})
    return {name: values * (0 if "lora_B" in name else 1) for name, values in pair.items()}


@pytest.mark.parametrize("rows", [FEWER, MORE])
def test_embeddings_and_a_head_that_were_trained(rows: int, tmp_path: Path) -> None:
    model, how = made_of("llama3-bpe", tmp_path)
    embed, head = embeddings(model, rows)
    tensors = no_change(model)
    for name, values in ((EMBED, embed), (HEAD, head)):  # PEFT stores them twice, and the former ones, too
        tensors |= {f"{PREFIX}{name}{inside}.weight": values for inside in ("", ".modules_to_save")}
        tensors[f"{PREFIX}{name}.original_module.weight"] = values * 3
    write_adapter(tmp_path / "a", tensors, modules_to_save=["embed_tokens", "lm_head"])
    add_tokens(model, tmp_path / "a", rows)
    whole = resized(model, tmp_path / "m", {EMBED: embed, HEAD: head}, "F32")
    assert same_tensors(tmp_path / "a", model, whole, how)
    (made,) = convert(model, tmp_path / "o.gguf", types="Q8_0", lora=[tmp_path / "a"], **how)
    with open_gguf(made.path) as file:
        assert len(file.metadata["tokenizer.ggml.tokens"]) == file.metadata["llama.vocab_size"] == rows
        assert file.metadata["tokenizer.ggml.tokens"][-1] == f"<|new {rows - 1}|>"


def test_copies_beside_other_changes_keep_the_models_type(tmp_path: Path) -> None:
    """A resized model whose embeddings nobody trained: PEFT stores them, as the base model lacks the new rows."""
    model, how = made_of("llama3-bpe", tmp_path)
    embed, head = embeddings(model, MORE)
    write_adapter(tmp_path / "a", no_change(model) | as_whole(embed, head))
    add_tokens(model, tmp_path / "a", MORE)
    dtype = held_of(model)[f"{EMBED}.weight"][0]
    assert dtype == "BF16"
    assert same_tensors(tmp_path / "a", model, resized(model, tmp_path / "m", {EMBED: embed, HEAD: head}, dtype), how)


def test_rows_of_new_tokens(tmp_path: Path) -> None:
    model, how = made_of("llama3-bpe", tmp_path)
    embed, head = embeddings(model, MORE)
    index = [MORE - 1, 5, 515]
    trained = factor(9, 3, embed.shape[1])
    tensors = {
        f"{PREFIX}{EMBED}.token_adapter.trainable_tokens_delta": trained,
        f"{PREFIX}{EMBED}.token_adapter.base_layer.weight": embed,
        f"{PREFIX}{HEAD}.weight": head,
    }
    write_adapter(tmp_path / "a", no_change(model) | tensors, trainable_token_indices={"embed_tokens": index})
    add_tokens(model, tmp_path / "a", MORE)
    changed = embed.copy()
    changed[index] = trained
    whole = resized(model, tmp_path / "m", {EMBED: changed, HEAD: head}, "BF16")
    assert same_tensors(tmp_path / "a", model, whole, how)


@pytest.mark.parametrize("form", ["copies", "rows", "trained as one"])
def test_a_head_that_stays_one_with_the_embeddings(form: str, tmp_path: Path) -> None:
    model, how = made_of("llama32-tied", tmp_path)
    embed, _ = embeddings(model, MORE)
    inside, config = "", dict[str, object]()
    tensors, wanted, dtype = no_change(model), embed, "BF16"
    if form == "rows":
        inside, config = ".token_adapter.base_layer", {"trainable_token_indices": [3, 510]}
        delta = factor(9, 2, embed.shape[1])
        tensors |= {f"{PREFIX}{name}.token_adapter.trainable_tokens_delta": delta for name in (EMBED, HEAD)}
        wanted = embed.copy()
        wanted[[3, 510]] = delta
    if form == "trained as one":
        dtype, config = "F32", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    tensors |= {f"{PREFIX}{name}{inside}.weight": embed for name in (EMBED, HEAD)}
    write_adapter(tmp_path / "a", tensors, **config)
    add_tokens(model, tmp_path / "a", MORE)
    assert same_tensors(tmp_path / "a", model, resized(model, tmp_path / "m", {EMBED: wanted}, dtype), how)


@pytest.mark.parametrize("rows", [512, MORE])
def test_embeddings_that_were_trained_apart_from_the_head(rows: int, tmp_path: Path) -> None:
    """As with PEFT's own merge, the head stays as it was, and is a tensor of its own."""
    model, how = made_of("llama32-tied", tmp_path)
    embed, head = embeddings(model, rows)
    tensors = {**no_change(model), f"{PREFIX}{EMBED}.weight": embed}
    if rows == MORE:
        tensors[f"{PREFIX}{HEAD}.weight"] = head
    write_adapter(tmp_path / "a", tensors, modules_to_save=["embed_tokens"])
    add_tokens(model, tmp_path / "a", rows)
    whole = resized(model, tmp_path / "m", {EMBED: embed}, "F32", tie_word_embeddings=False)
    old = (
        ("BF16", list(head.shape), as_dtype(head, "BF16").tobytes())
        if rows == MORE
        else held_of(model)[f"{EMBED}.weight"]
    )
    assert same_tensors(tmp_path / "a", model, with_tensors(whole, tmp_path / "n", {f"{HEAD}.weight": old}), how)


def test_a_family_whose_files_have_no_head_of_their_own(tmp_path: Path) -> None:
    model, how = made_of("gemma2", tmp_path)
    shape = shape_of(model, f"{EMBED}.weight")
    write_adapter(tmp_path / "a", {f"{PREFIX}{EMBED}.weight": factor(1, *shape)}, modules_to_save=["embed_tokens"])
    with pytest.raises(UnsupportedError, match="the embeddings apart from the model's head"):
        plan(model, lora=[tmp_path / "a"], **how)


def test_without_a_tokenizer(tmp_path: Path) -> None:
    model, how = made_of("llama3-bpe", tmp_path)
    embed, head = embeddings(model, MORE)
    write_adapter(tmp_path / "a", as_whole(embed, head))
    with pytest.raises(InputError, match=r"520 tokens, the model has 512, and .* has no tokenizer") as caught:
        plan(model, lora=[tmp_path / "a"], **how)
    assert caught.value.file == tmp_path / "a"
    assert "save the tokenizer that it was trained with into that folder" in str(caught.value.hint)


def test_embeddings_without_the_head(tmp_path: Path) -> None:
    model, how = made_of("llama3-bpe", tmp_path)
    write_adapter(tmp_path / "a", {f"{PREFIX}{EMBED}.weight": embeddings(model, MORE)[0]})
    add_tokens(model, tmp_path / "a", MORE)
    with pytest.raises(UnsupportedError, match=r"520 rows of model\.embed_tokens\.weight") as caught:
        plan(model, lora=[tmp_path / "a"], **how)
    assert "512 rows of lm_head.weight" in caught.value.problem


def test_a_change_of_rows_that_the_adapter_does_not_bring(tmp_path: Path) -> None:
    """PEFT's option save_embedding_layers=False leaves out the embeddings of the resized model."""
    model, how = made_of("llama3-bpe", tmp_path)
    write_adapter(tmp_path / "a", pairs_for({HEAD: (MORE, 256)}))
    with pytest.raises(UnsupportedError, match="trained with 520 tokens, and the model has 512") as caught:
        plan(model, lora=[tmp_path / "a"], **how)
    assert "save_embedding_layers=True" in str(caught.value.hint)


def test_the_tokenizer_of_an_adapter_that_fills_rows_of_the_model(tmp_path: Path) -> None:
    """A model with more rows than tokens need not be resized for new tokens."""
    model, how = made_of("llama3-bpe", tmp_path)
    embed, head = embeddings(model, 512)
    write_adapter(
        tmp_path / "a",
        no_change(model) | as_whole(embed, head),
        modules_to_save=["embed_tokens", "lm_head"],
    )
    add_tokens(model, tmp_path / "a", 510)
    (tmp_path / "a" / "chat_template.jinja").write_text("{{ messages }}")
    (made,) = convert(model, tmp_path / "o.gguf", types="F16", lora=[tmp_path / "a"], **how)
    with open_gguf(made.path) as file:
        assert file.metadata["tokenizer.ggml.tokens"][509] == "<|new 509|>"
        assert file.metadata["tokenizer.chat_template"] == "{{ messages }}"
    assert folder_of_tokenizer(model, [f"{tmp_path / 'a'}:1"]) == tmp_path / "a"
    (tmp_path / "a" / "tokenizer.json").write_text("[]")
    with pytest.raises(InputError) as caught:
        plan(model, lora=[tmp_path / "a"], **how)
    assert caught.value.file == tmp_path / "a" / "tokenizer.json"


def test_the_tokenizer_of_an_adapter_that_leaves_the_tokens_alone_does_not_count(tmp_path: Path) -> None:
    model, how = made_of("llama3-bpe", tmp_path)
    write_adapter(tmp_path / "a", no_change(model))
    add_tokens(model, tmp_path / "a", 510)
    assert file_of(model, lora=[tmp_path / "a"], **how) == file_of(model, **how)
    assert folder_of_tokenizer(model, [str(tmp_path / "a")]) == model


def test_verify_and_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, how = made_of("llama3-bpe", tmp_path)
    embed, head = embeddings(model, MORE)
    write_adapter(tmp_path / "a", as_whole(embed, head))
    add_tokens(model, tmp_path / "a", MORE)
    monkeypatch.chdir(tmp_path)
    options = ["--lora", "a", "--pre-tokenizer", str(how["pre_tokenizer"])]
    assert main(["convert", "model", "-o", "one.gguf", "-t", "Q8_0", *options]) == 0
    assert main(["verify", "one.gguf", "--source", "model", *options]) == 0
    assert main(["job", "plan", "model", "-o", "job.gguf", "-t", "Q8_0", "--tasks", "1", *options]) == 0
    assert main(["job", "work", "plan.json", "--task", "0"]) == 0
    assert main(["job", "finish", "plan.json"]) == 0
    assert Path("job.gguf").read_bytes() == Path("one.gguf").read_bytes()
    assert np.array_equal(open_gguf("one.gguf").metadata["tokenizer.ggml.tokens"][-1:], [f"<|new {MORE - 1}|>"])
