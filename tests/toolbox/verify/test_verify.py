"""Files beside what they were made of."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from checkpoints import NARROW, tiny_llama
from gguf import GGUFReader
from gguf.scripts import gguf_convert_endian
from raw_gguf import RawTensor, raw_gguf, u32_key, write
from synthetic import FAMILIES, read_description, write_checkpoint
from weights import changed

from gguf_forge import (
    InputError,
    Options,
    UsageError,
    convert,
    edit_gguf,
    open_gguf,
    quantize,
    quantize_gguf,
    split_gguf,
    verify_gguf,
)
from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.values import string, u32
from gguf_forge.recipe import parse_tensor_type
from gguf_forge.recipe.importance.matrix import ImportanceMatrix
from gguf_forge.toolbox.verify.verdict import Verdict
from gguf_forge.types.blocks import field_at
from gguf_forge.types.tensor_type import TENSOR_TYPES, TensorType

_KINDS = ("Q4_K_M", "Q8_0", "Q5_1", "Q2_K", "IQ4_XS", "Q6_K", "BF16", "F16")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose norms are not all one; tests only read it."""
    folder = tmp_path_factory.mktemp("source")
    norms = np.random.default_rng(0)

    def change(name: str, values: np.ndarray) -> np.ndarray:
        return values + 0.1 * norms.standard_normal(values.shape) if "norm" in name else values

    return changed(tiny_llama(folder), folder / "Model", change)


@pytest.fixture(scope="module")
def _made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("made")
    return cache(lambda kind: convert(source, folder / f"{kind}.gguf", types=kind)[0].path)


@pytest.fixture
def made(_made: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the file of a type, which a test may damage."""
    return lambda kind: Path(shutil.copy(_made(kind), tmp_path))


@pytest.mark.parametrize("kind", _KINDS)
def test_what_was_converted_is_identical(kind: str, made: Callable[[str], Path], source: Path) -> None:
    found = verify_gguf(made(kind), source)
    assert found.ok and found.verdict is Verdict.IDENTICAL
    assert len(found.tensors) == found.n_tensors == 21
    assert (found.notes, found.keys, found.order, found.problems, found.first) == ((), (), None, (), None)


@pytest.mark.parametrize("kind", ["Q4_K_M", "F16"])
def test_what_was_quantized_is_identical(kind: str, made: Callable[[str], Path], tmp_path: Path) -> None:
    base = made("BF16")
    [result] = quantize_gguf(base, tmp_path / "out.gguf", types=kind)
    assert verify_gguf(result.path, base).ok


@pytest.mark.parametrize(
    ("family", "kinds", "words"),
    [
        ("mixtral", ("Q4_0", "BF16"), {"tensors stacked", "rows permuted for rotary embedding"}),
        ("gemma", ("Q8_0",), {"plus 1"}),
        ("gptoss-mxfp4", ("auto", "F16"), {"MXFP4 bits moved"}),
        ("phi3", ("Q4_0",), set()),
        ("deepseek2-lite", ("Q5_0",), {"tensors stacked", "transposed"}),
        ("llama3-bpe", ("Q4_K_M",), {"computed from the config"}),
    ],
)
def test_families(family: str, kinds: tuple[str, ...], words: set[str], tmp_path: Path) -> None:
    description = FAMILIES / family
    folder = write_checkpoint(description, tmp_path / "hf")
    tokenizer = read_description(description).pre_tokenizer
    for kind in kinds:
        [result] = convert(folder, tmp_path / f"{kind}.gguf", types=kind, pre_tokenizer=tokenizer)
        found = verify_gguf(result.path, folder, pre_tokenizer=tokenizer)
        assert found.ok, found
        steps = " ".join(step for check in found.tensors for step in check.steps)
        assert {word for word in words if word in steps} == words


def test_every_flipped_bit_is_named(source: Path, made: Callable[[str], Path]) -> None:
    rng = Random(11)
    for kind in _KINDS:
        path = made(kind)
        with open_gguf(path) as gguf:
            tensors = {tensor.name: (tensor.info, tensor.offset) for tensor in gguf.tensors}
        for _ in range(4):
            info, offset = tensors[rng.choice(list(tensors))]
            at = rng.randrange(info.nbytes)
            flip(path, offset + at, bit := rng.randrange(8))
            found = verify_gguf(path, source)
            assert not found.ok and found.first is not None
            [wrong] = [check for check in found.tensors if check.verdict is not Verdict.IDENTICAL]
            assert (wrong.info, found.first) == (info, wrong)
            difference = wrong.differences
            assert difference is not None and difference.first is not None
            place = difference.first
            row, byte = divmod(at, info.type.row_bytes(info.n_per_row))
            block, within = divmod(byte, info.type.block_bytes)
            assert (place.row, place.block, place.offset) == (row, block, at)
            assert place.field == field_at(info.type, within)
            assert place.found ^ place.expected == 1 << bit
            assert (difference.blocks, difference.bytes) == (1, 1)
            flip(path, offset + at, bit)


def flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def test_damage_is_called_damage(source: Path, made: Callable[[str], Path]) -> None:
    path = made("Q4_K_M")
    with open_gguf(path) as gguf:
        tensor = next(t for t in gguf.tensors if t.name == "blk.1.attn_output.weight")
    flip(path, tensor.offset + 144 * 7 + 40, 6)
    found = verify_gguf(path, source)
    assert found.verdict is Verdict.DAMAGED
    assert "1 tensor" in found.sentences[0] and "20 tensors" in found.sentences[1]


def _matrix(path: Path, seed: int, columns: int = 256) -> ImportanceMatrix:
    rng = np.random.default_rng(seed)
    with open_gguf(path) as gguf:
        names = [t.name for t in gguf.tensors if len(t.shape) > 1 and t.name.startswith("blk")]
    importance = {name: rng.random(columns, np.float32) + np.float32(0.05) for name in names}
    return ImportanceMatrix(f"calibration-{seed}.gguf", importance, ("data.txt",), 7, dict.fromkeys(names, (1,)))


@pytest.fixture
def matrix(made: Callable[[str], Path]) -> ImportanceMatrix:
    return _matrix(made("BF16"), 1)


def test_an_importance_matrix_is_asked_for(source: Path, matrix: ImportanceMatrix, tmp_path: Path) -> None:
    [result] = convert(source, tmp_path / "m.gguf", types="Q4_K_M", options=Options(imatrix=matrix))
    with pytest.raises(UsageError, match=r"calibration-1\.gguf, 14 entries.*imatrix="):
        verify_gguf(result.path, source)
    # under another path now, which does not matter
    elsewhere = replace(matrix, file="/somewhere/else.gguf")
    assert verify_gguf(result.path, source, options=Options(imatrix=elsewhere)).ok


def test_a_type_that_needs_a_matrix(source: Path, matrix: ImportanceMatrix, tmp_path: Path) -> None:
    [result] = convert(source, tmp_path / "m.gguf", types="IQ2_XS", options=Options(imatrix=matrix))
    assert verify_gguf(result.path, source, options=Options(imatrix=matrix)).ok
    bare = rewritten(result.path, tmp_path / "bare.gguf", lambda keys: [keys.pop(k) for k in list(keys) if "imat" in k])
    with pytest.raises(UsageError, match="IQ2_XS, which is made with an importance matrix; give it with imatrix="):
        verify_gguf(bare, source)


def test_another_matrix_is_another_recipe(source: Path, matrix: ImportanceMatrix, tmp_path: Path) -> None:
    [result] = convert(source, tmp_path / "m.gguf", types="Q4_K_M", options=Options(imatrix=matrix))
    other = _matrix(result.path, 2)
    found = verify_gguf(result.path, source, options=Options(imatrix=other))
    assert found.verdict is Verdict.RECIPE
    assert "another importance matrix" in found.sentences[0]


def test_a_file_made_without_the_matrix(source: Path, matrix: ImportanceMatrix, made: Callable[[str], Path]) -> None:
    found = verify_gguf(made("Q4_K_M"), source, options=Options(imatrix=matrix))
    assert found.verdict is Verdict.RECIPE
    assert any("14 tensors came out the same without the importance matrix" in text for text in found.sentences)
    assert {key.key for key in found.keys} >= {"quantize.imatrix.file", "quantize.imatrix.entries_count"}


@pytest.fixture
def tiny_values(source: Path, tmp_path: Path) -> Path:
    """Values that F16 can't hold, bf16 can."""

    def change(name: str, values: np.ndarray) -> np.ndarray:
        small = np.random.default_rng(len(name)).random(values.shape) < 0.02
        return np.where(small, values * 1e-5, values)

    return changed(source, tmp_path / "tiny" / "Model", change)


def test_a_file_made_by_way_of_another_base(tiny_values: Path, tmp_path: Path) -> None:
    base = convert(tiny_values, tmp_path / "base.gguf", types="F16")[0].path
    [result] = quantize_gguf(base, tmp_path / "m.gguf", types="Q4_K_M")
    found = verify_gguf(result.path, tiny_values)
    assert found.verdict is Verdict.RECIPE and not found.ok
    assert any("by way of F16 instead of BF16" in text for text in found.sentences)
    assert verify_gguf(result.path, tiny_values, base_type="F16").ok
    assert verify_gguf(result.path, base).ok


@pytest.mark.parametrize(
    ("between", "kind"), [("Q8_0", "Q4_K_M"), ("Q8_0", "Q4_0"), ("Q6_K", "Q4_K_S"), ("Q4_0", "Q8_0"), ("Q8_0", "BF16")]
)
def test_a_requantized_file(between: str, kind: str, source: Path, made: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "again.gguf"
    [result] = quantize_gguf(made(between), out, types=kind, options=Options(allow_requantize=True))
    found = verify_gguf(result.path, source, only_tensors=True)
    assert found.verdict is Verdict.RECIPE and not found.ok
    assert any(text.endswith(f"when requantized from {between}.") for text in found.sentences), found.sentences


@pytest.mark.parametrize("kind", ["Q4_K_M", "Q4_0"])
def test_a_requantized_file_of_another_base(kind: str, source: Path, tmp_path: Path) -> None:
    """The whole chain is found: F16, which rounds the small weights, then Q8_0, then the type of the file."""

    def change(name: str, values: np.ndarray) -> np.ndarray:
        return values * 3e-4 if "up_proj" in name else values

    small = changed(source, tmp_path / "small" / "Model", change)
    base = convert(small, tmp_path / "base.gguf", types="F16")[0].path
    between = quantize_gguf(base, tmp_path / "q8.gguf", types="Q8_0")[0].path
    [result] = quantize_gguf(between, tmp_path / "m.gguf", types=kind, options=Options(allow_requantize=True))
    found = verify_gguf(result.path, small)
    assert found.verdict is Verdict.RECIPE
    assert any(
        text.endswith("when requantized from Q8_0, by way of F16 instead of BF16.") for text in found.sentences
    ), found.sentences


def test_a_requantized_file_with_an_importance_matrix(
    source: Path, matrix: ImportanceMatrix, made: Callable[[str], Path], tmp_path: Path
) -> None:
    options = Options(allow_requantize=True, imatrix=matrix)
    [result] = quantize_gguf(made("Q8_0"), tmp_path / "again.gguf", types="Q4_K_M", options=options)
    found = verify_gguf(result.path, source, options=Options(imatrix=matrix))
    assert found.verdict is Verdict.RECIPE
    assert any("when requantized from Q8_0" in text for text in found.sentences)


def test_fine_tunes_and_other_models(source: Path, made: Callable[[str], Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(3)

    def tuned(name: str, values: np.ndarray) -> np.ndarray:
        return values * (1 + 0.02 * rng.standard_normal(values.shape))

    fine_tune = changed(source, tmp_path / "tuned" / "Model", tuned)
    found = verify_gguf(made("Q4_K_M"), fine_tune)
    assert found.verdict is Verdict.RELATED and "fine-tune" in found.sentences[0]
    other = changed(source, tmp_path / "other" / "Model", lambda name, values: rng.permutation(values))
    found = verify_gguf(made("Q4_K_M"), other)
    assert found.verdict is Verdict.OTHER and "another model" in found.sentences[0]


def _retouched(path: Path, folder: Path, share: float) -> Path:
    """A file with some blocks as a quantizer of a slightly other arithmetic makes them."""
    base = convert(folder, path.with_name("base.gguf"), types="BF16", overwrite=True)[0].path
    rng = np.random.default_rng(5)
    with open_gguf(path) as gguf, open_gguf(base) as original, path.open("r+b") as file:
        weights = {tensor.name: tensor.expression() for tensor in original.tensors}
        for tensor in gguf.tensors:
            if tensor.type.is_float:
                continue
            n_rows = tensor.info.n_rows
            values = weights[tensor.name].rows(0, n_rows).astype(np.float32)
            importance = 1 + 0.01 * rng.random(tensor.shape[0], np.float32)
            other = quantize(values, tensor.type, importance=importance).reshape(-1, tensor.type.block_bytes)
            for block in np.flatnonzero(rng.random(len(other)) < share):
                file.seek(tensor.offset + int(block) * tensor.type.block_bytes)
                file.write(other[block].tobytes())
    return path


def test_fused_arithmetic_is_told_from_damage(source: Path, made: Callable[[str], Path]) -> None:
    path = _retouched(made("Q4_K_M"), source, 0.02)
    found = verify_gguf(path, source)
    assert found.verdict is Verdict.FUSED and found.only_fused and not found.ok
    assert re.match(r"\d\.\d\d% of the blocks differ by small steps", found.sentences[0])
    with open_gguf(path) as gguf:
        tensor = next(t for t in gguf.tensors if t.name == "blk.0.attn_v.weight")
    flip(path, tensor.offset + tensor.nbytes - 1, 7)
    assert verify_gguf(path, source).verdict is Verdict.DAMAGED


def rewritten(path: Path, out: Path, edit: Callable[[dict[str, Any]], object], *, drop: int = 0) -> Path:
    """The file with other keys, or without its first tensors."""
    with open_gguf(path) as gguf:
        keys = dict(gguf.typed_metadata)
        edit(keys)
        tensors = gguf.tensors[drop:]
        layout = lay_out(keys, [tensor.info for tensor in tensors])
        raw = bytearray(layout.size)
        raw[: len(layout.header)] = layout.header
        for tensor, placed in zip(tensors, layout.tensors, strict=True):
            raw[placed.offset : placed.offset + tensor.nbytes] = tensor.data().tobytes()
    out.write_bytes(raw)
    return out


def test_keys_that_differ(source: Path, made: Callable[[str], Path], tmp_path: Path) -> None:
    def edit(keys: dict[str, Any]) -> None:
        keys["general.name"] = string("Another")
        del keys["llama.block_count"]
        keys["llama.context_length"] = string("128")
        keys["own.key"] = u32(1)

    found = verify_gguf(rewritten(made("Q8_0"), tmp_path / "m.gguf", edit), source)
    assert found.verdict is Verdict.METADATA and not found.ok
    kinds = {key.key: key.kind for key in found.keys}
    assert kinds == {
        "general.name": "value",
        "llama.block_count": "missing",
        "llama.context_length": "type",
        "own.key": "extra",
    }
    assert verify_gguf(tmp_path / "m.gguf", source, only_tensors=True).ok


def test_a_missing_tensor(source: Path, made: Callable[[str], Path], tmp_path: Path) -> None:
    found = verify_gguf(rewritten(made("Q8_0"), tmp_path / "m.gguf", dict, drop=1), source)
    assert found.verdict is Verdict.MISSING
    assert found.tensors[-1].info.name == "output.weight"


def test_a_tensor_from_nowhere_and_one_of_another_shape(
    source: Path, made: Callable[[str], Path], tmp_path: Path
) -> None:
    small = convert(tiny_llama(tmp_path / "small", NARROW), tmp_path / "s.gguf", types="Q8_0")[0].path
    found = verify_gguf(made("Q8_0"), tmp_path / "small" / "Tiny", only_tensors=True)
    verdicts = {check.info.name: check.verdict for check in found.tensors}
    assert verdicts["blk.0.attn_q.weight"] is Verdict.SHAPE
    assert verdicts["blk.1.attn_q.weight"] is Verdict.EXTRA
    assert found.verdict is Verdict.SHAPE
    assert verify_gguf(small, source, only_tensors=True).verdict is Verdict.SHAPE


def test_types_come_from_the_file_unless_they_are_given(source: Path, tmp_path: Path) -> None:
    options = Options(tensor_types=(parse_tensor_type("attn_v=q8_0"),))
    [result] = convert(source, tmp_path / "m.gguf", types="Q4_K_M", options=options)
    found = verify_gguf(result.path, source)
    assert found.ok
    assert "2 tensors have another type than the mix gives them: blk.0.attn_v.weight Q8_0" in found.notes[0]
    found = verify_gguf(result.path, source, file_type="Q4_K_M")
    assert found.verdict is Verdict.TYPE
    assert {check.expected for check in found.tensors if check.verdict is Verdict.TYPE} <= {"Q4_K", "Q6_K"}
    assert verify_gguf(result.path, source, file_type="Q4_K_M", options=options).ok


def test_a_file_without_a_file_type(source: Path, made: Callable[[str], Path], tmp_path: Path) -> None:
    path = rewritten(made("Q4_K_M"), tmp_path / "m.gguf", lambda keys: keys.pop("general.file_type"))
    found = verify_gguf(path, source)
    assert found.verdict is Verdict.METADATA
    assert all(check.verdict is Verdict.IDENTICAL for check in found.tensors)


def test_tensors_in_another_order(source: Path, made: Callable[[str], Path], tmp_path: Path) -> None:
    with open_gguf(made("Q4_K_M")) as gguf:
        tensors = gguf.tensors[::-1]
        layout = lay_out(gguf.typed_metadata, [tensor.info for tensor in tensors])
        raw = bytearray(layout.size)
        raw[: len(layout.header)] = layout.header
        for tensor, placed in zip(tensors, layout.tensors, strict=True):
            raw[placed.offset : placed.offset + tensor.nbytes] = tensor.data().tobytes()
    path = tmp_path / "m.gguf"
    path.write_bytes(raw)
    found = verify_gguf(path, source)
    assert found.verdict is Verdict.METADATA and found.order == "output.weight"


def test_a_split_file_is_verified_as_one(source: Path, made: Callable[[str], Path], tmp_path: Path) -> None:
    shards = split_gguf(made("Q4_K_M"), tmp_path / "p", max_tensors=8).file.shards
    found = verify_gguf(shards[0].path, source)
    assert found.ok and len(found.paths) == 3
    with open_gguf(shards[0].path) as gguf:
        tensor = gguf.tensors[-1]
        flip(tensor.source.path, tensor.offset + 3, 2)
    wrong = verify_gguf(shards[0].path, source).first
    assert wrong is not None and wrong.info.name == tensor.name


def test_big_endian_files(source: Path, made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = made("Q8_0")
    monkeypatch.setattr("builtins.input", lambda question: "YES")
    gguf_convert_endian.convert_byteorder(GGUFReader(path, "r+"), argparse.Namespace(order="big", dry_run=False))
    found = verify_gguf(path, source)
    assert found.ok, found


def test_a_vocabulary_alone(source: Path, tmp_path: Path) -> None:
    [result] = convert(source, tmp_path / "v.gguf", vocab_only=True, types="F16")
    found = verify_gguf(result.path, source)
    assert found.ok and found.tensors == ()


def test_rows_without_their_permutation_are_recognized(source: Path, tmp_path: Path) -> None:
    path = convert(source, tmp_path / "m.gguf", types="Q8_0")[0].path
    with open_gguf(path) as gguf:
        tensor = next(t for t in gguf.tensors if t.name == "blk.0.attn_q.weight")
        rows = tensor.expression().rows(0, 256)
    interleaved = rows.reshape(4, 32, 2, -1).swapaxes(1, 2).reshape(rows.shape)
    with path.open("r+b") as file:
        file.seek(tensor.offset)
        file.write(interleaved.tobytes())
    found = verify_gguf(path, source)
    assert found.first is not None
    assert found.first.explanation == "without permuting the rows for rotary embedding"


def test_a_truncated_file_is_an_input_error(made: Callable[[str], Path], source: Path) -> None:
    path = made("Q4_K_M")
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(InputError, match="cut short"):
        verify_gguf(path, source)


def test_a_base_is_a_float_type_of_a_checkpoint(made: Callable[[str], Path], source: Path) -> None:
    with pytest.raises(UsageError, match="F32, F16 or BF16, not Q8_0"):
        verify_gguf(made("Q4_K_M"), source, base_type="q8_0")
    with pytest.raises(UsageError, match="leave it out"):
        verify_gguf(made("Q4_K_M"), made("BF16"), base_type="F16")


def one_tensor(folder: Path, kind: TensorType, shape: tuple[int, ...], data: bytes) -> Path:
    """A file of the tensor `t`, its data padded."""
    raw = raw_gguf([u32_key(b"a", 1)], [RawTensor(b"t", shape, kind.id)], data + bytes(-len(data) % 32))
    return write(folder, raw)


@pytest.mark.parametrize("name", ["F32", "F64", "BF16", "Q4_K", "Q6_K", "IQ1_M", "MXFP4", "Q8_K"])
def test_invalid_blocks_are_found(name: str, tmp_path: Path) -> None:
    kind = TensorType.named(name)
    n = max(kind.block_elements, 32)
    data = bytearray(kind.row_bytes(4 * n))
    at = 2 * kind.row_bytes(n)
    for byte in range(kind.block_bytes):
        data[at + byte] = 0xFF if name in ("MXFP4", "F32", "F64", "BF16", "IQ1_M") else 0x7F if byte % 2 else 0xFF
    if name == "Q8_K":
        data[at : at + 4] = np.float32(np.inf).tobytes()
    [problem] = verify_gguf(one_tensor(tmp_path, kind, (n, 4), bytes(data))).problems
    assert (problem.kind, problem.tensor, problem.count) == ("invalid blocks", "t", 1)
    assert "row 2" in problem.what


@pytest.mark.parametrize("name", ["I32", "NVFP4", "Q8_0", "F16"])
def test_valid_blocks_are_no_problem(name: str, tmp_path: Path) -> None:
    kind = TENSOR_TYPES[name]
    assert verify_gguf(one_tensor(tmp_path, kind, (64, 4), bytes(kind.row_bytes(256)))).ok


def test_bytes_where_none_should_be(made: Callable[[str], Path]) -> None:
    path = made("Q8_0")
    with open_gguf(path) as gguf:
        tensor = next(t for t in gguf.tensors if t.nbytes % 32)
        begin = gguf.tensors[0].offset
    flip(path, tensor.offset + tensor.nbytes, 0)
    with path.open("ab") as file:
        file.write(b"more")
    padding, size = verify_gguf(path).problems
    assert (padding.kind, padding.count, padding.what) == ("padding", 1, f"1 bytes after {tensor.name} are not zero")
    assert (size.kind, size.what) == ("size", "4 bytes after the last tensor")
    assert begin % 32 == 0


@pytest.mark.parametrize("file_type", ["F32", "F16", "BF16"])
def test_a_file_without_a_file_type_has_that_of_its_tensors(tmp_path: Path, file_type: str) -> None:
    """The reference leaves the key out for some families, such as GPT-NeoX."""
    model = tiny_llama(tmp_path, NARROW)
    (made,) = convert(model, tmp_path / "m.gguf", types=file_type)
    edit_gguf(made.path, remove=["general.file_type"])
    found = verify_gguf(made.path, model)
    assert {difference.key for difference in found.keys} == {"general.file_type"}
    assert found.notes == ("--only-tensors compares the tensors alone",)  # no option leaves a key out
