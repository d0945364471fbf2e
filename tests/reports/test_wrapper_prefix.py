"""Names of tensors that wrappers left their own names in: the file is that of the model without them."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import tiny_llama
from reports import MadeInput
from weights import Held, file_of, rewritten

from gguf_forge import UnsupportedError, plan
from gguf_forge.checkpoint import Checkpoint


def renamed(model: Path, folder: Path, rename: dict[str, str]) -> Path:
    def change(tensors: dict[str, Held]) -> dict[str, Held]:
        for old, new in rename.items():
            tensors = {name.replace(old, new, 1): tensor for name, tensor in tensors.items()}
        return tensors

    return rewritten(model, folder, change)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model.", "model."])
def test_the_prefix_of_all_names_is_taken_off(
    made: MadeInput, tmp_path: Path, caplog: pytest.LogCaptureFixture, prefix: str
) -> None:
    wrapped = made(prefix)
    plain = renamed(wrapped, tmp_path / "plain", {prefix: ""})
    assert file_of(wrapped, pre_tokenizer="qwen2") == file_of(plain, pre_tokenizer="qwen2")
    assert [message for message in caplog.messages if repr(prefix.strip(".")) in message or repr(prefix) in message]


@pytest.mark.parametrize(
    "rename",
    [
        {"model.layers.": "model.layers._checkpoint_wrapped_module."},
        {"self_attn.": "self_attn._fsdp_wrapped_module.", "mlp.": "mlp._orig_mod."},
        {"model.": "module._orig_mod.model.", "lm_head.": "module._orig_mod.lm_head."},
        {"q_proj.": "q_proj.base_layer."},
        {"model.layers.1.": "_forward_module.model.layers.1."},
    ],
    ids=lambda rename: next(iter(rename.values())),
)
def test_wrappers_inside_of_names_and_around_one_another(tmp_path: Path, rename: dict[str, str]) -> None:
    model = tiny_llama(tmp_path)
    assert file_of(renamed(model, tmp_path / "wrapped", rename)) == file_of(model)


def test_the_head_beside_a_model_in_a_model(tmp_path: Path) -> None:
    """A LightningModule with the attribute `model` puts this before the head, too."""
    model = tiny_llama(tmp_path)
    wrapped = rewritten(
        model, tmp_path / "wrapped", lambda tensors: {f"model.{name}": tensor for name, tensor in tensors.items()}
    )
    assert file_of(wrapped) == file_of(model)


def test_names_that_would_fall_together_stay(tmp_path: Path) -> None:
    def double(tensors: dict[str, Held]) -> dict[str, Held]:
        return tensors | {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}

    model = tiny_llama(tmp_path)
    with pytest.raises(UnsupportedError, match="not known for the"):
        plan(rewritten(model, tmp_path / "twice", double))


def test_an_adapter_that_is_not_merged_is_no_wrapper(tmp_path: Path) -> None:
    def with_adapter(tensors: dict[str, Held]) -> dict[str, Held]:
        name = "model.layers.0.self_attn.q_proj"
        tensors[f"{name}.base_layer.weight"] = tensors.pop(f"{name}.weight")
        for factor in ("lora_A", "lora_B"):
            tensors[f"{name}.{factor}.default.weight"] = ("BF16", [1, 1], b"\0\0")
        return tensors

    with pytest.raises(UnsupportedError, match="not known for the") as caught:
        plan(rewritten(tiny_llama(tmp_path), tmp_path / "adapted", with_adapter))
    assert "merge_and_unload" in str(caught.value.hint)


def test_layers_that_peft_trained_as_a_whole(tmp_path: Path) -> None:
    def trained(tensors: dict[str, Held]) -> dict[str, Held]:
        head = tensors.pop("lm_head.weight")
        return tensors | {
            "lm_head.original_module.weight": (head[0], head[1], bytes(len(head[2]))),
            "lm_head.modules_to_save.default.weight": head,
        }

    model = tiny_llama(tmp_path)
    assert file_of(rewritten(model, tmp_path / "trained", trained)) == file_of(model)


def test_buffers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Old checkpoints hold tables of rotary embeddings, newer ones scales of an FP8 cache."""

    def with_buffers(tensors: dict[str, Held]) -> dict[str, Held]:
        layer = "model.layers.1.self_attn."
        tables = {f"{layer}rotary_emb.{name}_cached": ("BF16", [1, 1, 4, 4], bytes(32)) for name in ("cos", "sin")}
        scales = {f"{layer}k_proj.k_scale": ("F32", [1], bytes(4)), f"{layer}v_scale": ("F32", [], bytes(4))}
        return tensors | tables | scales

    model = tiny_llama(tmp_path)
    caplog.set_level("INFO")
    assert file_of(rewritten(model, tmp_path / "old", with_buffers)) == file_of(model)
    assert any("makes itself" in message for message in caplog.messages)


def test_only_some_wrappers_around_one_another_are_looked_for(tmp_path: Path) -> None:
    def deep(tensors: dict[str, Held]) -> dict[str, Held]:
        return {"module." * 50 + name: tensor for name, tensor in tensors.items()}

    with Checkpoint.open(rewritten(tiny_llama(tmp_path), tmp_path / "deep", deep)) as checkpoint:
        assert all(name.startswith("module." * 40) for name in checkpoint.tensors)
