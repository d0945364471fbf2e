"""The value head of reinforcement learning is no part of the language model."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import tiny_llama
from reports import MadeInput
from weights import Held, file_of, rewritten

from gguf_forge import UnsupportedError, plan


def with_more(model: Path, folder: Path, *names: str, prefix: str = "") -> Path:
    def change(tensors: dict[str, Held]) -> dict[str, Held]:
        return {prefix + name: tensor for name, tensor in tensors.items()} | {
            name: ("BF16", [1, 1], b"\0\0") for name in names
        }

    return rewritten(model, folder, change)


def test_it_is_left_out(made: MadeInput, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def without(tensors: dict[str, Held]) -> dict[str, Held]:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("v_head")}

    folder = made()
    plain = rewritten(folder, tmp_path / "plain", without)
    assert file_of(folder, pre_tokenizer="qwen2") == file_of(plain, pre_tokenizer="qwen2")
    assert any("value head" in message and "v_head.summary.bias" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["value_head.weight"], ""),  # OpenRLHF
        (["ilql_heads.q_heads.0.weight"], ""),  # trlX
        (["v_head.summary.weight"], "pretrained_model."),  # TRL, saved by hand
        (["module.v_head.summary.weight"], "module.pretrained_model."),
    ],
)
def test_other_trainers(tmp_path: Path, names: list[str], prefix: str) -> None:
    model = tiny_llama(tmp_path)
    assert file_of(with_more(model, tmp_path / "trained", *names, prefix=prefix)) == file_of(model)


def test_a_pattern_for_it_is_no_error(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    trained = with_more(model, tmp_path / "trained", "v_head.summary.weight")
    assert file_of(trained, drop_tensor=["^v_head"]) == file_of(model)


def test_what_nobody_can_know_is_named_with_the_option_that_leaves_it_out(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    trained = with_more(model, tmp_path / "trained", "critic.0.weight", "critic.0.bias")
    with pytest.raises(UnsupportedError, match="critic") as caught:
        plan(trained)
    pattern = r"^critic\."
    assert f"--drop-tensor '{pattern}'" in str(caught.value.words.hint)
    assert file_of(trained, drop_tensor=[pattern]) == file_of(model)
