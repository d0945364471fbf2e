from __future__ import annotations

import json

import numpy as np
import pytest
from corpus import manifests

from gguf_forge.gguf_file.key_types import problem_of, problems, standard_types
from gguf_forge.gguf_file.values import Value, ValueType, array, f32, string, u32


def test_types_of_keys() -> None:
    assert standard_types("qwen3.block_count", "qwen3") == {ValueType.UINT32}
    assert standard_types("llama.block_count", "qwen3") == frozenset()
    assert standard_types("general.base_model.12.name", "llama") == {ValueType.STRING}
    assert standard_types("llama.attention.head_count", "llama") == {ValueType.UINT32, ValueType.ARRAY}
    assert standard_types("my.own", "my") == frozenset()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tokenizer.ggml.tokens", array(ValueType.STRING, ["a"])),
        ("tokenizer.ggml.scores", array(ValueType.FLOAT32, [0.0, -1000.0])),
        ("llama.rope.freq_base", f32(1e4)),
        ("my.own", f32(float("nan"))),
    ],
)
def test_what_readers_take(key: str, value: Value) -> None:
    assert problem_of(key, value, "llama") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tokenizer.ggml.tokens", array(ValueType.INT32, [1])),
        ("tokenizer.ggml.scores", array(ValueType.FLOAT32, [0.0, float("inf")])),
        ("llama.rope.freq_base", Value(ValueType.FLOAT32, np.float32("nan"))),
        ("llama.rope.freq_base", Value(ValueType.FLOAT64, 1e4)),
        ("general.name", u32(1)),
    ],
)
def test_what_no_reader_takes(key: str, value: Value) -> None:
    assert problem_of(key, value, "llama") is not None


def test_problems_of_a_file() -> None:
    metadata = {"general.name": u32(1), "my.own": u32(1), "llama.block_count": string("x")}
    assert [problem.split()[0] for problem in problems(metadata, "llama")] == ["general.name", "llama.block_count"]


def test_the_files_of_the_reference_have_these_types() -> None:
    found: dict[str, set[str]] = {}
    for path in manifests():
        keys = {key["key"]: key for key in json.loads(path.read_text()).get("kv", ())}
        architecture = keys["general.architecture"]["value"] if keys else ""
        for key, stored in keys.items():
            kind = ValueType[stored["type"]]
            element = ValueType[stored["elem_type"]] if kind is ValueType.ARRAY else None
            value = Value(kind, () if element is not None else stored["value"], element)
            if problem_of(key, value, architecture) is not None:
                found.setdefault(key, set()).add(path.parent.parent.name)
    assert found == {}
