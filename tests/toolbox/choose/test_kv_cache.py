from __future__ import annotations

from typing import Any

import pytest

from gguf_forge.errors import InputError
from gguf_forge.gguf_file.values import Metadata, Value, ValueType, array, boolean, f32, string, u32
from gguf_forge.toolbox.choose.kv_cache import buffer_bytes, kv_cache_bytes, own_context

MIB = 1 << 20


def keys_of(architecture: str, **values: Any) -> Metadata:
    """The keys of a model; two underscores stand for a dot."""
    keys = {f"{architecture}.{name.replace('__', '.')}": _value(value) for name, value in values.items()}
    return {"general.architecture": string(architecture), **keys}


def _value(value: Any) -> Value:
    if isinstance(value, bool):
        return boolean(value)
    if isinstance(value, list):
        return array(ValueType.BOOL if isinstance(value[0], bool) else ValueType.INT32, value)
    return u32(value)


LLAMA3 = {"block_count": 32, "embedding_length": 4096, "attention__head_count": 32, "attention__head_count_kv": 8}
GEMMA3 = {
    "block_count": 12,
    "embedding_length": 1024,
    "attention__head_count": 4,
    "attention__head_count_kv": 1,
    "attention__key_length": 256,
    "attention__value_length": 256,
    "attention__sliding_window": 512,
}


def test_every_layer_keeps_the_whole_context() -> None:
    # llama.cpp reports 1,024 MiB for Llama 3 8B at 8,192 tokens
    assert kv_cache_bytes(keys_of("llama", **LLAMA3), 8192) == 1024 * MIB


def test_without_a_number_for_keys_all_heads_have_their_own() -> None:
    without = {key: number for key, number in LLAMA3.items() if key != "attention__head_count_kv"}
    assert kv_cache_bytes(keys_of("llama", **without), 8192) == 4096 * MIB


def test_layers_with_a_window_keep_the_window_and_a_batch() -> None:
    # two layers of twelve keep all 8,192 tokens, ten keep 512 + 512
    assert kv_cache_bytes(keys_of("gemma3", **GEMMA3), 8192) == 2 * (256 + 256) * (2 * 8192 + 10 * 1024)


def test_a_context_within_the_window_is_not_enlarged() -> None:
    assert kv_cache_bytes(keys_of("gemma3", **GEMMA3), 100) == 2 * 512 * 12 * 100


def test_a_pattern_in_the_file_outranks_that_of_the_architecture() -> None:
    pattern = [True] * 6 + [False] * 6
    keys = keys_of("gemma3", **GEMMA3, attention__sliding_window_pattern=pattern)
    assert kv_cache_bytes(keys, 8192) == 2 * 512 * (6 * 8192 + 6 * 1024)


def test_latent_attention_keeps_keys_alone() -> None:
    keys = keys_of(
        "deepseek2",
        block_count=61,
        embedding_length=7168,
        attention__head_count=128,
        attention__head_count_kv=1,
        attention__key_length=576,
        attention__value_length=512,
        attention__key_length_mla=192,
        attention__value_length_mla=128,
    )
    assert kv_cache_bytes(keys, 4096) == 61 * 576 * 2 * 4096


@pytest.mark.parametrize(
    "keys",
    [
        keys_of("jamba", **{**LLAMA3, "attention__head_count_kv": [0, 0, 0, 8] * 8}),
        keys_of("qwen35", **LLAMA3, full_attention_interval=4),
        keys_of("qwen3next", **LLAMA3),
        keys_of("qwen35", **LLAMA3, attention__recurrent_layers=[True, True, True, False] * 8),
    ],
    ids=["jamba", "qwen35", "qwen3next", "by-layer"],
)
def test_recurrent_layers_keep_nothing(keys: Metadata) -> None:
    assert kv_cache_bytes(keys, 8192) == 1024 * MIB // 4


def test_layers_that_share_those_of_others_keep_nothing() -> None:
    keys = keys_of("gemma4", **LLAMA3, attention__shared_kv_layers=16)
    assert kv_cache_bytes(keys, 8192) == 512 * MIB


def test_encoders_keep_nothing() -> None:
    assert kv_cache_bytes(keys_of("bert", **LLAMA3, attention__causal=False), 8192) == 0


def test_buffers_hold_the_logits_of_a_batch() -> None:
    # llama.cpp reports 258.50 MiB for Llama 3 8B, whose vocabulary has 128,256 tokens
    assert buffer_bytes(keys_of("llama", **LLAMA3), 128256, 8192) == 258.5 * MIB
    assert buffer_bytes(keys_of("llama", **LLAMA3), 128256, 256) == 258.5 * MIB / 2
    assert buffer_bytes(keys_of("bert", **LLAMA3, attention__causal=False), 128256, 8192) == 8 * MIB


def test_the_context_that_a_model_was_made_for() -> None:
    assert own_context(keys_of("llama", **LLAMA3, context_length=8192)) == 8192
    assert own_context(keys_of("llama", **LLAMA3)) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", u32(65_537)),
        ("block_count", string("x")),
        ("attention__head_count", f32(float("nan"))),
        ("attention__head_count_kv", array(ValueType.FLOAT32, [float("nan")] * 32)),
        ("attention__key_length", array(ValueType.STRING, ["x"] * 32)),
        ("attention__sliding_window", Value(ValueType.INT32, -5)),
        ("attention__sliding_window_pattern", f32(2.5)),
        ("context_length", string("128k")),
    ],
)
def test_keys_without_a_size_are_named(key: str, value: Value) -> None:
    name = f"llama.{key.replace('__', '.')}"
    metadata = {**keys_of("llama", **LLAMA3, attention__sliding_window=4), name: value}
    with pytest.raises(InputError, match=f"metadata key {name} is .*, not a whole number from 0 to"):
        kv_cache_bytes(metadata, own_context(metadata) or 100)


def test_recurrent_layers_may_be_told_in_a_list_only() -> None:
    metadata = keys_of("llama", **LLAMA3)
    assert kv_cache_bytes({**metadata, "llama.attention.recurrent_layers": f32(1.0)}, 9) == kv_cache_bytes(metadata, 9)
