"""Damaged files of real models: an error or a reader that works, and never anything else.

`tests/fuzz/fuzz_gguf.py` does the same for as long as one likes. What it finds becomes a case of test_reader.py.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest
from gguf_mutations import fields_of, mutated, open_and_use
from hypothesis import given
from hypothesis import strategies as st
from raw_gguf import RawTensor, raw_gguf
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import ForgeError, convert

Seed = tuple[bytes, list[tuple[int, int]]]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@cache
def seed_file(family: str, scratch: Path) -> Seed:
    """A small quantized file of a family, cut to what its header and a little data need."""
    checkpoint = write_checkpoint(FAMILIES / family, scratch / family)
    path = scratch / f"{family}.gguf"
    convert(checkpoint, path, types="Q4_0", pre_tokenizer=read_description(FAMILIES / family).pre_tokenizer)
    return path.read_bytes(), fields_of(path)


@pytest.mark.parametrize("family", ["llama2-spm", "mixtral", "qwen2"])
@given(seed=st.integers(0, 2**32))
def test_damaged_files_of_models(scratch: Path, family: str, seed: int) -> None:
    raw, fields = seed_file(family, scratch)
    path = scratch / "damaged.gguf"
    path.write_bytes(mutated(raw, fields, random.Random(seed)))
    try:
        open_and_use(path)
    except ForgeError as error:
        assert error.file == path


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: raw_gguf([], [RawTensor()]) + tail))
def test_any_bytes(scratch: Path, raw: bytes) -> None:
    path = scratch / "any.gguf"
    path.write_bytes(raw)
    try:
        open_and_use(path)
    except ForgeError as error:
        assert error.file == path


@given(st.binary(max_size=200), st.integers(0, 3), st.integers(0, 3), st.sampled_from(["<", ">"]))
def test_any_bytes_behind_a_header(scratch: Path, tail: bytes, n_keys: int, n_tensors: int, order: str) -> None:
    path = scratch / "behind.gguf"
    path.write_bytes(raw_gguf([], [], tail, n_keys=n_keys, n_tensors=n_tensors, order=order))
    try:
        open_and_use(path)
    except ForgeError as error:
        assert error.file == path
