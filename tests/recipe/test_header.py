from __future__ import annotations

import numpy as np
import pytest

from gguf_forge.errors import InputError
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, Value, ValueType, array, string, u32
from gguf_forge.recipe import FileType, ImportanceMatrix, Options, parse_key_override, quantized_metadata
from gguf_forge.types.tensor_type import TENSOR_TYPES

BASE: Metadata = {
    "general.architecture": string("llama"),
    "general.file_type": u32(1),
    "split.no": Value(ValueType.UINT16, 0),
    "split.count": Value(ValueType.UINT16, 2),
    "split.tensors.count": Value(ValueType.INT32, 9),
    "general.quantization_version": u32(2),
    "tokenizer.ggml.model": string("gpt2"),
}


def test_keys_are_copied_and_the_own_ones_come_last() -> None:
    assert quantized_metadata([], BASE, Options(FileType.named("Q4_K_M"))) == {
        "general.architecture": string("llama"),
        "tokenizer.ggml.model": string("gpt2"),
        "general.quantization_version": u32(2),
        "general.file_type": u32(15),
    }
    assert list(BASE)[1] == "general.file_type"


def test_overrides_move_to_the_end_and_the_last_of_a_key_wins() -> None:
    texts = ("tokenizer.ggml.model=str:a", "general.file_type=int:7", "tokenizer.ggml.model=str:b")
    options = Options(FileType.named("Q4_K_M"), key_overrides=tuple(parse_key_override(text) for text in texts))
    found = list(quantized_metadata([], BASE, options).items())
    assert found[-2:] == [("general.file_type", u32(7)), ("tokenizer.ggml.model", string("b"))]


def test_strings_end_at_their_first_nul() -> None:
    tokens = array(ValueType.STRING, ("a\0b", b"\xff\0c", "\0", "d"))
    found = quantized_metadata([], {"tokens": tokens, "text": string("x\0y")}, Options(FileType.named("Q8_0")))
    assert found["tokens"].data == ("a", b"\xff", "", "d")
    assert found["text"].data == "x"


def test_a_copy_keeps_the_file_type_or_guesses_it() -> None:
    def copied(kinds: str, metadata: Metadata) -> Value:
        tensors = [TensorInfo(f"{i}", (256,), TENSOR_TYPES[kind]) for i, kind in enumerate(kinds.split())]
        return quantized_metadata(tensors, metadata, Options(FileType.named("COPY")))["general.file_type"]

    assert copied("F32", BASE) == u32(1)
    assert copied("F32 Q4_K Q4_K", {}) == u32(1024 | 15)
    assert copied("BF16 Q6_K Q6_K BF16", {}) == u32(1024 | 18)
    assert copied("F32", {}) == copied("MXFP4", {}) == copied("", {}) == u32(1024)
    assert copied("NVFP4", {}) == u32(1024 | 39)
    with pytest.raises(InputError, match=r"general\.file_type"):
        copied("F32", {"general.file_type": string("1")})


def test_provenance_of_an_importance_matrix_is_cut_at_127_bytes() -> None:
    importance = {"a": np.ones(1, np.float32), "b": np.ones(1, np.float32)}
    matrix = ImportanceMatrix("é" * 64, importance, ("wiki", "other"), 12)
    found = list(quantized_metadata([], BASE, Options(FileType.named("Q4_K_M"), imatrix=matrix)).items())
    assert found[-4:] == [
        ("quantize.imatrix.file", string("é".encode() * 63 + b"\xc3")),
        ("quantize.imatrix.dataset", string("wiki")),
        ("quantize.imatrix.entries_count", u32(2)),
        ("quantize.imatrix.chunks_count", u32(12)),
    ]
    unknown = ImportanceMatrix("m.dat", importance)
    keys = list(quantized_metadata([], BASE, Options(FileType.named("Q4_K_M"), imatrix=unknown)))
    assert keys[-2:] == ["quantize.imatrix.file", "quantize.imatrix.entries_count"]
    empty = Options(FileType.named("Q4_K_M"), imatrix=unknown.selected(exclude=["a", "b"]))
    assert "quantize.imatrix.file" not in quantized_metadata([], BASE, empty)
