"""A LoRA adapter's folder is known for one, with a config.json beside the adapter or without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import tiny_llama
from reports import MadeInput
from safetensors import deserialize
from synthetic import write_safetensors
from weights import file_of

from gguf_forge import ForgeError, GgufFile, InputError, UnsupportedError, UsageError, convert, open_gguf, plan

FACTORS = {
    f"blk.{layer}.attn_{part}.weight.lora_{factor}" for layer in (0, 1) for part in ("q", "v") for factor in ("a", "b")
}


def base_of(made: MadeInput, folder: Path) -> Path:
    """A folder with the config.json of the report's base model."""
    base = folder / "base"
    base.mkdir()
    (made("config") / "config.json").rename(base / "config.json")
    return base


def opened(folder: Path, out: Path, **more: object) -> GgufFile:
    (written,) = convert(folder, out, types="F32", **more)
    return open_gguf(written.path)


def test_without_its_base_model(made: MadeInput) -> None:
    with pytest.raises(
        InputError, match="this is a LoRA adapter, and not a model; its base model example/small-base"
    ) as caught:
        plan(made())
    assert "--base" in str(caught.value.words.hint)
    assert "hf download example/small-base config.json" in str(caught.value.hint)


def test_with_its_base_model(made: MadeInput, tmp_path: Path) -> None:
    with opened(made(), tmp_path / "a.gguf", base_model=base_of(made, tmp_path)) as file:
        assert {tensor.name for tensor in file.tensors} == FACTORS
        assert file.metadata["general.type"] == "adapter"


def test_the_config_of_the_base_model_beside_it_is_enough(made: MadeInput, tmp_path: Path) -> None:
    with opened(made("config"), tmp_path / "a.gguf") as file:
        assert {tensor.name for tensor in file.tensors} == FACTORS


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("base_model.model.", "base_model.model._orig_mod."),
        (".lora_A.weight", ".lora_A.default.weight"),
        (".lora_B.weight", ".lora_B.default.weight"),
        ("base_model.model.", ""),
    ],
)
def test_names_that_save_pretrained_does_not_write(made: MadeInput, tmp_path: Path, old: str, new: str) -> None:
    folder = made("config")
    with opened(folder, tmp_path / "a.gguf") as file:
        before = {tensor.name: tensor.data().tobytes() for tensor in file.tensors}
    path = folder / "adapter_model.safetensors"
    held = deserialize(path.read_bytes())
    write_safetensors(
        path, {name.replace(old, new): (one["dtype"], one["shape"], bytes(one["data"])) for name, one in held}
    )
    with opened(folder, tmp_path / "b.gguf") as file:
        assert {tensor.name: tensor.data().tobytes() for tensor in file.tensors} == before


def test_a_merged_model_that_kept_the_config_of_its_adapter_is_a_model(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    plain = file_of(model)
    (model / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert file_of(model) == plain


def test_the_vocabulary_beside_an_adapter(made: MadeInput, tmp_path: Path) -> None:
    (written,) = convert(made("config"), tmp_path / "v.gguf", vocab_only=True, pre_tokenizer="qwen2")
    with open_gguf(written.path) as file:
        assert "tokenizer.ggml.tokens" in file.metadata


def test_an_adapter_in_a_pickle(made: MadeInput) -> None:
    folder = made("config")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(InputError, match="weights are missing") as caught:
        plan(folder)
    assert "pickle" in str(caught.value.hint)


def test_an_adapter_without_its_config(made: MadeInput) -> None:
    folder = made()
    (folder / "adapter_config.json").unlink()
    with pytest.raises(InputError, match=r"without its adapter_config\.json"):
        plan(folder)


def test_an_adapter_that_names_no_base_model(made: MadeInput) -> None:
    folder = made()
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(InputError, match="does not name its base model"):
        plan(folder)


def test_no_tensor_is_dropped_from_an_adapter(made: MadeInput) -> None:
    with pytest.raises(UsageError, match="drop_tensor= is for checkpoints"):
        plan(made("config"), drop_tensor=["q_proj"])


def test_a_base_that_is_no_model(made: MadeInput, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(ForgeError) as caught:
        plan(made(), base_model=tmp_path / "base")
    assert caught.value.hint == "the folder is empty"


def test_other_kinds_of_adapters_are_named(made: MadeInput) -> None:
    folder = made("config")
    (folder / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(UnsupportedError, match="IA3"):
        plan(folder)
