"""The tables of names, against facts of gguf-py that were read by eye.

tools/refresh_names.py compares the whole table with gguf-py's own maps when it makes it.
"""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files

import pytest

from gguf_forge.architectures.tensor_names import known_names, roles_of

TABLE = json.loads((files("gguf_forge.architectures") / "tensor_names.json").read_text(encoding="utf-8"))
ARCHITECTURES = list(TABLE["architectures"])


def test_the_table_has_the_architectures_of_the_reference() -> None:
    assert len(ARCHITECTURES) == 153
    assert {"llama", "t5", "t5encoder", "falcon-h1", "gemma4", "clip", "qwen4exp", "kimi-k3"} <= set(ARCHITECTURES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_has_names_with_balanced_holes(architecture: str) -> None:
    names = known_names(architecture)
    assert names
    for source, target in names.items():
        assert Counter(source)["{"] <= 1, "a name has at most a layer"
        assert "{i}" in source or "{i}" not in target, "a layer of the GGUF name comes from the checkpoint's name"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_tensor_may_already_have_its_gguf_name(architecture: str) -> None:
    names = known_names(architecture)
    assert all(names[target] == target for target in names.values())


def test_an_unknown_architecture_has_no_names() -> None:
    assert known_names("no such architecture") == {}
    assert roles_of("no such architecture") == frozenset()


@pytest.mark.parametrize(
    ("architecture", "source", "target"),
    [
        ("llama", "model.embed_tokens", "token_embd"),
        ("llama", "model.layers.{i}.post_attention_layernorm", "blk.{i}.ffn_norm"),
        ("gpt2", "transformer.h.{i}.mlp.c_proj", "blk.{i}.ffn_down"),
        ("t5", "encoder.block.{i}.layer.0.SelfAttention.q", "enc.blk.{i}.attn_q"),
        ("bert", "encoder.layer.{i}.attention.output.LayerNorm", "blk.{i}.attn_output_norm"),
        ("clip", "multi_modal_projector.linear_{i}", "mm.{i}"),
        # Two tables of gguf-py name this tensor.
        ("clip", "multi_modal_projector.mm_input_projection", "mm.input_projection"),
        ("clip", "model.embed_vision.embedding_projection", "mm.input_projection"),
    ],
)
def test_names_of_checkpoints(architecture: str, source: str, target: str) -> None:
    assert known_names(architecture)[source] == target


def test_an_architecture_can_replace_the_names_of_a_tensor() -> None:
    arctic = known_names("arctic")
    assert arctic["model.layers.{i}.residual_layernorm"] == "blk.{i}.ffn_norm"
    assert arctic["model.layers.{i}.post_attention_layernorm"] == "blk.{i}.ffn_norm_exps"
    assert "transformer.h.{i}.ln_2" not in arctic
    assert "model.layers.{i}.residual_layernorm" not in known_names("llama")


def test_roles_include_those_of_tensors_that_no_checkpoint_names() -> None:
    assert {"attn_q", "ffn_gate_exps", "token_embd", "rope_freqs"} <= roles_of("llama")
    assert "ssm_g" in roles_of("kimi-k3")
