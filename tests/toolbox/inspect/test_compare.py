"""Two files beside each other."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from checkpoints import NARROW, tiny_llama
from raw_gguf import RawTensor, raw_gguf, u32_key, write

from gguf_forge import compare_gguf, convert, dequantize, open_gguf, split_gguf
from gguf_forge.gguf_file.values import ValueType, array, string, u32
from gguf_forge.toolbox.inspect.compare import Likeness
from gguf_forge.toolbox.inspect.metadata_diff import metadata_differences
from gguf_forge.types.tensor_type import TENSOR_TYPES


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    results = convert(tiny_llama(folder), folder, types=["BF16", "Q4_K_M", "F32"])
    return {result.file.file_type.name: result.path for result in results}


def test_a_file_is_the_same_as_itself(files: dict[str, Path], tmp_path: Path) -> None:
    found = compare_gguf(files["Q4_K_M"], shutil.copy(files["Q4_K_M"], tmp_path))
    assert found.same and len(found.tensors) == 21
    assert all(each.distance is None for each in found.tensors)


def test_how_far_a_quantized_file_is(files: dict[str, Path]) -> None:
    found = compare_gguf(files["BF16"], files["Q4_K_M"], threads=2)
    assert not found.same
    by_name = {each.name: each for each in found.tensors}
    norm, matrix = by_name["output_norm.weight"], by_name["blk.0.ffn_up.weight"]
    assert norm.likeness is Likeness.SAME
    assert matrix.likeness is Likeness.DIFFERENT and matrix.distance is not None
    with open_gguf(files["BF16"]) as a, open_gguf(files["Q4_K_M"]) as b:
        one, other = (next(t for t in file.tensors if t.name == matrix.name) for file in (a, b))
        exact = dequantize(one.data().reshape(256, -1), "BF16").astype(np.float64)
        packed = dequantize(other.data().reshape(256, -1), other.type).astype(np.float64)
    assert matrix.distance.rmse == pytest.approx(np.sqrt(((packed - exact) ** 2).mean()))
    assert 0.99 < matrix.distance.cosine < 1
    assert {key.key for key in found.keys} == {"general.file_type"}
    assert not found.order


def test_the_same_values_in_another_type(files: dict[str, Path]) -> None:
    found = compare_gguf(files["BF16"], files["F32"], only_tensors=True)
    assert {each.likeness for each in found.tensors} == {Likeness.SAME, Likeness.VALUES}
    assert found.keys == () and not found.same


def test_a_split_does_not_matter(files: dict[str, Path], tmp_path: Path) -> None:
    shards = split_gguf(files["Q4_K_M"], tmp_path / "p", max_tensors=8).file.shards
    assert compare_gguf(files["Q4_K_M"], shards[0].path).same


def test_tensors_that_only_one_has(files: dict[str, Path], tmp_path: Path) -> None:
    other = convert(tiny_llama(tmp_path, NARROW), tmp_path / "n.gguf", types="BF16")[0].path
    found = compare_gguf(files["BF16"], other)
    by_name = {each.name: each.likeness for each in found.tensors}
    assert by_name["blk.1.attn_q.weight"] is Likeness.ONLY_A
    assert by_name["blk.0.attn_q.weight"] is Likeness.SHAPE
    back = {each.name: each.likeness for each in compare_gguf(other, files["BF16"]).tensors}
    assert back["blk.1.attn_q.weight"] is Likeness.ONLY_B


def test_types_that_cannot_be_unpacked(tmp_path: Path) -> None:
    kind = TENSOR_TYPES["Q8_K"]
    paths = [
        write(tmp_path, raw_gguf([], [RawTensor(b"t", (256,), kind.id)], bytes([fill]) * 320), f"{fill}.gguf")
        for fill in (0, 1)
    ]
    assert compare_gguf(paths[0], paths[0]).same
    assert compare_gguf(*paths).tensors[0].likeness is Likeness.UNREADABLE


def test_integers_are_compared(tmp_path: Path) -> None:
    def file(name: str, *values: int) -> Path:
        data = np.array(values, "<i4").tobytes()
        return write(tmp_path, raw_gguf([u32_key(b"a", 1)], [RawTensor(b"t", (8,), 26)], data), name)

    [tensor] = compare_gguf(file("a", *range(8)), file("b", 0, 1, 2, 3, 4, 5, 6, 9)).tensors
    assert tensor.distance is not None
    assert (tensor.distance.max_error, tensor.distance.max_error_at) == (2, (0, 7))


def test_keys() -> None:
    names = array(ValueType.STRING, ["a", "b", "c"])
    found = metadata_differences(
        {"a": u32(1), "b": u32(1), "names": names, "gone": u32(0), "split.no": u32(0), "same": string("x")},
        {
            "same": string("x"),
            "a": string("1"),
            "b": u32(2),
            "names": array(ValueType.STRING, ["a", b"\xff", "c"]),
            "new": u32(1),
        },
    )
    assert [(each.key, each.kind, each.at) for each in found] == [
        ("a", "type", None),
        ("b", "value", None),
        ("names", "value", 1),
        ("gone", "missing", None),
        ("new", "extra", None),
        ("a", "order", None),
    ]


def test_keys_are_compared_bit_by_bit() -> None:
    nan, other = (np.frombuffer(bits, "<f4")[0] for bits in (b"\0\0\xc0\x7f", b"\1\0\xc0\x7f"))
    from gguf_forge.gguf_file.values import Value

    one, two = (Value(ValueType.FLOAT32, number) for number in (nan, other))
    assert metadata_differences({"a": one}, {"a": one}) == ()
    assert [each.kind for each in metadata_differences({"a": one}, {"a": two})] == ["value"]
    short = {"a": array(ValueType.UINT8, [1, 2])}
    assert [each.at for each in metadata_differences(short, {"a": array(ValueType.UINT8, [1])})] == [None]
