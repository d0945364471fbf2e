"""`--lora` with adapters that are not merged, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from adapters import (
    PREFIX,
    adapter_for,
    factor,
    held_of,
    pairs_for,
    values_of,
    with_tensors,
    write_adapter,
)
from checkpoints import tiny_llama

from gguf_forge import InputError, RefusedError, UnsupportedError, UsageError, convert, plan
from gguf_forge.cli import main

Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path)


def test_an_adapter_of_another_model(model: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", pairs_for({Q: (256, 128)}))
    with pytest.raises(
        InputError, match=r"made for another model: it changes a tensor of shape \(256, 128\)"
    ) as caught:
        plan(model, lora=[tmp_path / "a"])
    assert caught.value.hint == "give the model that it was trained on: example/base"
    write_adapter(tmp_path / "b", pairs_for({"model.layers.7.self_attn.q_proj": (256, 256)}))
    with pytest.raises(InputError, match=r"layers\.7\.self_attn\.q_proj"):
        plan(model, lora=[tmp_path / "b"])


@pytest.mark.parametrize("text", ["a:x", "a:nan", "a:inf", "a:1e30", "a:"])
def test_a_factor_that_is_none(model: Path, tmp_path: Path, text: str) -> None:
    adapter_for(model, tmp_path / "a", Q)
    with pytest.raises(UsageError, match="is not a number"):
        plan(model, lora=[f"{tmp_path}/{text}"])


def test_what_is_no_adapter(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        plan(model, lora=[tmp_path / "missing"])
    with pytest.raises(UsageError, match="holds no LoRA adapter; lora= takes the folder that PEFT wrote") as caught:
        plan(model, lora=[model])
    assert "this is a model's folder" in str(caught.value.hint)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no LoRA adapter") as caught:
        plan(model, lora=[tmp_path / "empty"])
    assert caught.value.hint == "give the folder that holds adapter_config.json"
    for text in ("", ":0.5"):
        with pytest.raises(UsageError, match="lora= names no folder"):
            plan(model, lora=[text])
    (file,) = convert(model, tmp_path / "m.gguf", types="F16")
    with pytest.raises(UsageError, match="this is a GGUF file"):
        plan(model, lora=[file.path])
    with pytest.raises(UsageError, match="lora=: not for a GGUF file"):
        plan(file.path, types="Q8_0", lora=[model])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "another base"),
        ({"use_qalora": True}, "use_qalora"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
    ],
)
def test_what_is_no_sum(model: Path, tmp_path: Path, config: dict[str, object], words: str) -> None:
    adapter_for(model, tmp_path / "a", Q, **config)
    with pytest.raises(UnsupportedError, match=words):
        plan(model, lora=[tmp_path / "a"])


@pytest.mark.parametrize(
    ("named", "is_warned"),
    [
        ("acme/other", True),
        ("acme/Tiny-Instruct", True),
        ("/home/me/tiny/", False),
        ("unsloth/Tiny-unsloth-bnb-4bit", False),
        ("acme/Of-Config", False),
        ("acme/of-card", False),
        (None, False),
    ],
)
def test_another_name_of_the_base_model_is_a_warning(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], named: str | None, is_warned: bool
) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"_name_or_path": "acme/of-config"}))
    (model / "README.md").write_text("---\nbase_model: [acme/Of-Card]\n---\n")
    adapter_for(model, tmp_path / "a", Q, base_model_name_or_path=named)
    assert main(["plan", str(model), "--lora", str(tmp_path / "a"), "--summary"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert (f"the adapter says that its base model is {named}" in said) == is_warned


def test_no_vocabulary_has_an_adapter(model: Path, tmp_path: Path) -> None:
    adapter_for(model, tmp_path / "a", Q)
    with pytest.raises(UsageError, match="changes no vocabulary"):
        plan(model, lora=[tmp_path / "a"], vocab_only=True)


@pytest.mark.parametrize("dtype", ["I8", "I32"])
@pytest.mark.parametrize("name", [f"{Q}.lora_A.weight", f"{Q}.lora_B.weight", "model.norm.weight"])
def test_integers_are_no_weights(model: Path, tmp_path: Path, dtype: str, name: str) -> None:
    tensors = {**pairs_for({Q: (256, 256)}), f"{PREFIX}model.norm.weight": factor(1, 256)}
    folder = write_adapter(tmp_path / "a", tensors)
    values = np.ones(tensors[PREFIX + name].shape, {"I8": np.int8, "I32": np.int32}[dtype])
    held = {PREFIX + name: (dtype, list(values.shape), values.tobytes())}
    other = with_tensors(folder, tmp_path / "b", held)
    with pytest.raises(InputError, match=f"the tensor has the type {dtype}, in which no adapter is read") as caught:
        plan(model, lora=[other])
    assert caught.value.tensor == PREFIX + name


@pytest.mark.parametrize(
    ("config", "bad", "file_type", "words", "hint"),
    [
        ({}, np.nan, "F16", "infinite or not a number", ""),
        ({}, np.nan, "Q8_0", "infinite or not a number", ""),
        ({"lora_alpha": 1e38}, 0, "F16", "too large for F16", "; or choose BF16 or F32"),
    ],
)
def test_an_adapter_that_breaks_weights_is_blamed(
    model: Path, tmp_path: Path, config: dict[str, object], bad: float, file_type: str, words: str, hint: str
) -> None:
    tensors = pairs_for({Q: (256, 256)})
    tensors[f"{PREFIX}{Q}.lora_A.weight"][1, 3] = bad
    write_adapter(tmp_path / "a", tensors, **config)
    with pytest.raises(InputError, match=words) as caught:
        convert(model, tmp_path / "o.gguf", types=file_type, lora=[tmp_path / "a"])
    assert caught.value.hint == f"get an intact copy of the adapter, or give it a smaller factor{hint}"
    assert caught.value.file == tmp_path / "a" / "adapter_model.safetensors"


@pytest.mark.parametrize("name", ["model.norm.weight", "lm_head.weight"])
def test_a_whole_module_that_is_no_number_is_blamed_on_the_adapter(model: Path, tmp_path: Path, name: str) -> None:
    whole = values_of(held_of(model)[name]).copy()
    whole.reshape(-1)[3] = np.nan
    good, bad = pairs_for({Q: (256, 256)}), {f"{PREFIX}{name}": whole}
    folders = [write_adapter(tmp_path / each, tensors) for each, tensors in (("good", good), ("bad", bad))]
    with pytest.raises(InputError, match="infinite or not a number") as caught:
        convert(model, tmp_path / "o.gguf", types="F16", lora=folders)
    assert caught.value.file == tmp_path / "bad" / "adapter_model.safetensors"
    assert str(caught.value.hint).startswith("get an intact copy of the adapter")


def test_a_broken_pattern_is_shown_as_it_is_written(model: Path, tmp_path: Path) -> None:
    adapter_for(model, tmp_path / "a", Q, alpha_pattern={"(q_proj": 4})
    with pytest.raises(
        InputError, match=r"^alpha_pattern: pattern '\(q_proj' lacks a '\)'|adapter_config.*alpha_pattern: p"
    ):
        plan(model, lora=[tmp_path / "a"])


def test_factors_that_do_not_go_together(model: Path, tmp_path: Path) -> None:
    tensors = pairs_for({Q: (256, 256)})
    tensors[f"{PREFIX}{Q}.lora_A.weight"] = factor(1, 5, 256)
    write_adapter(tmp_path / "a", tensors)
    with pytest.raises(InputError, match="do not fit"):
        plan(model, lora=[tmp_path / "a"])


def test_an_output_that_is_the_adapter_is_refused(model: Path, tmp_path: Path) -> None:
    adapter_for(model, tmp_path / "a", Q)
    with pytest.raises(RefusedError):
        convert(model, tmp_path / "a" / "adapter_model.safetensors", types="F16", lora=[tmp_path / "a"], overwrite=True)
