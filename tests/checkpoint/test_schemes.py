"""Schemes beside the formulas of their formats, for weights that are packed here as the formats' libraries do it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gguf_forge.checkpoint.quantized import resolved
from gguf_forge.checkpoint.quantized.scheme import Quantization
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import Stored, StoredElements
from gguf_forge.types.element_type import ELEMENT_TYPES
from gguf_forge.types.tensor_type import BF16, F16, F32

FLOATS = {np.dtype(np.float32): F32, np.dtype(np.float16): F16, np.dtype(ml_dtypes.bfloat16): BF16}
ELEMENTS = {kind.dtype: kind for kind in ELEMENT_TYPES.values() if not kind.is_packed}
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def values_of(tensors: Mapping[str, np.ndarray], folder: Path, **config: Any) -> dict[str, np.ndarray]:
    """The logical weights of tensors that lie in a file, whole and by some of their rows."""
    path = folder / "tensors"
    path.write_bytes(b"".join(array.tobytes() for array in tensors.values()))
    stored: dict[str, TensorExpr] = {}
    offset, source = 0, SourceFile(path)
    for name, array in tensors.items():
        if array.dtype in FLOATS:
            stored[name] = Stored(name, source, offset, array.shape, FLOATS[array.dtype])
        else:
            stored[name] = StoredElements(name, source, offset, array.shape, ELEMENTS[array.dtype])
        offset += array.nbytes
    found = {}
    for name, expr in resolved(stored, Quantization(config, folder)).items():
        rows = expr.rows(0, expr.n_rows)
        some = np.array([expr.n_rows - 1, 0])
        np.testing.assert_array_equal(expr.take(some), rows[some])
        found[name] = rows.reshape(expr.shape)
    return found


def stream(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes (n, count) as bit streams of words (n, ceil(count * bits / 32)), the lowest bits first."""
    flat = ((codes[:, :, None] >> np.arange(bits)) & 1).reshape(len(codes), -1).astype(np.uint8)
    flat = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 32)))
    return np.packbits(flat, axis=1, bitorder="little").view(np.uint32)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(16)


@pytest.mark.parametrize("group", [32, 96])
def test_awq(tmp_path: Path, random: np.random.Generator, group: int) -> None:
    codes, zeros = random.integers(0, 16, (96, 40)), random.integers(0, 16, (96 // group, 40))
    scales = random.random((96 // group, 40)).astype(np.float16)

    def packed(values: np.ndarray) -> np.ndarray:
        ordered = values.reshape(len(values), -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]]
        return stream(ordered.reshape(len(values), -1), 4).view(np.int32)

    tensors = {"w.qweight": packed(codes), "w.qzeros": packed(zeros), "w.scales": scales}
    wanted = (codes - zeros.repeat(group, 0)).astype(np.float32) * scales.astype(np.float32).repeat(group, 0)
    found = values_of(tensors, tmp_path, quant_method="awq", version="GEMM", bits=4)
    np.testing.assert_array_equal(found["w.weight"], wanted.T)
    as_autoround = values_of(tensors, tmp_path, quant_method="auto-round", packing_format="auto_round:auto_awq")
    np.testing.assert_array_equal(as_autoround["w.weight"], wanted.T)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("is_symmetric", [True, False])
@pytest.mark.parametrize("is_ordered", [True, False])
def test_compressed_tensors(
    tmp_path: Path, random: np.random.Generator, bits: int, is_symmetric: bool, is_ordered: bool
) -> None:
    rows, columns, group = 13, 96, 32
    codes, zeros = random.integers(0, 1 << bits, (rows, columns)), random.integers(0, 1 << bits, (rows, 3))
    scales = random.random((rows, 3)).astype(ml_dtypes.bfloat16)
    tensors = {
        "w.weight_packed": stream(codes, bits).view(np.int32),
        "w.weight_scale": scales,
        "w.weight_shape": np.array([rows, columns]),
    }
    of = np.repeat(np.arange(3), group)
    if is_ordered:
        of = random.permutation(of)
        tensors["w.weight_g_idx"] = of.astype(np.int32)
    if is_symmetric:
        zeros = np.full((rows, 3), 1 << bits - 1)
    else:
        tensors["w.weight_zero_point"] = np.ascontiguousarray(stream(zeros.T, bits).T).view(np.int32)
    groups = {str(number): {"weights": {"num_bits": number, "group_size": group}} for number in (4, 8)}
    found = values_of(tensors, tmp_path, quant_method="compressed-tensors", config_groups=groups)
    wanted = (codes - zeros[:, of]).astype(np.float32) * scales.astype(np.float32)[:, of]
    np.testing.assert_array_equal(found["w.weight"], wanted)


@pytest.mark.parametrize("shape", [(3, 1), (1,), (1, 1)])
def test_compressed_tensors_with_zero_points_of_rows(
    tmp_path: Path, random: np.random.Generator, shape: tuple[int, ...]
) -> None:
    codes = random.integers(-128, 128, (3, 10)).astype(np.int8)
    scales, zeros = random.random(shape).astype(np.float32), random.integers(-128, 128, shape).astype(np.int8)
    tensors = {"w.weight": codes, "w.weight_scale": scales, "w.weight_zero_point": zeros}
    found = values_of(tensors, tmp_path, quant_method="compressed-tensors", format="int-quantized")
    wanted = (codes.astype(np.float32) - zeros.astype(np.float32)) * scales
    np.testing.assert_array_equal(found["w.weight"], wanted)


@pytest.mark.parametrize(("shape", "is_nested"), [((6, 40), False), ((6, 40), True), ((3, 32), False)])
def test_bitsandbytes_blocks_may_cross_rows(
    tmp_path: Path, random: np.random.Generator, shape: tuple[int, int], is_nested: bool
) -> None:
    count, block = shape[0] * shape[1], 64
    codes, levels = random.integers(0, 16, count), random.normal(size=16).astype(np.float32)
    state: dict[str, Any] = {"blocksize": block, "shape": shape}
    absmax = random.random(-(-count // block)).astype(np.float32)
    tensors = {"w.weight": (codes[0::2] << 4 | codes[1::2]).astype(np.uint8)[:, None], "w.weight.quant_map": levels}
    if is_nested:
        state |= {"nested_blocksize": 2, "nested_offset": 0.25}
        of_scales, nested = random.random(256).astype(np.float32), random.random(2).astype(np.float32)
        quantized = random.integers(0, 256, len(absmax)).astype(np.uint8)
        absmax = of_scales[quantized] * nested.repeat(2)[: len(absmax)] + np.float32(0.25)
        tensors |= {"w.weight.nested_absmax": nested, "w.weight.nested_quant_map": of_scales}
        tensors["w.weight.absmax"] = quantized
    else:
        tensors["w.weight.absmax"] = absmax
    said = np.frombuffer(json.dumps(state).encode(), np.uint8)
    found = values_of(
        {**tensors, "w.weight.quant_state.bitsandbytes__nf4": said}, tmp_path, quant_method="bitsandbytes"
    )
    wanted = (levels[codes] * absmax.repeat(block)[:count]).reshape(shape)
    assert set(found) == {"w.weight"}
    np.testing.assert_array_equal(found["w.weight"], wanted)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_mlx(tmp_path: Path, random: np.random.Generator, bits: int) -> None:
    codes = random.integers(0, 1 << bits, (2, 5, 96))
    scales, biases = random.normal(size=(2, 2, 5, 3)).astype(ml_dtypes.bfloat16)
    tensors = {
        "l.switch_mlp.up_proj.weight": stream(codes.reshape(10, 96), bits).reshape(2, 5, -1),
        "l.switch_mlp.up_proj.scales": scales,
        "l.switch_mlp.up_proj.biases": biases,
    }
    own = {"l.switch_mlp.up_proj": {"bits": bits, "group_size": 32}}
    found = values_of(tensors, tmp_path, quant_method="mlx", bits=4, group_size=64, **own)
    wanted = codes.astype(np.float32) * scales.astype(np.float32).repeat(32, 2)
    wanted += biases.astype(np.float32).repeat(32, 2)
    assert list(found) == ["l.switch_mlp.up_proj.weight"]
    np.testing.assert_array_equal(found["l.switch_mlp.up_proj.weight"], wanted)


@pytest.mark.parametrize("mode", ["int3", None, 4, [[]], {}])
def test_modes_of_mlx_that_are_not_known(tmp_path: Path, mode: Any) -> None:
    tensors = {"w.weight": np.zeros((4, 8), np.uint32), "w.scales": np.ones((4, 2), np.float32)}
    with pytest.raises(UnsupportedError, match=r"w\.weight: MLX's mode .* is not known; known: affine, mxfp4"):
        values_of(tensors, tmp_path, quant_method="mlx", bits=4, group_size=32, mode=mode)


PACKINGS = {"8bit_u8": 8, "4bit_u8": 4, "2bit_u8": 2, "1bit_u8": 1, "3bit_32": 3}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("packing", PACKINGS)
def test_hqq(tmp_path: Path, random: np.random.Generator, packing: str, axis: int) -> None:
    bits, shape, group = PACKINGS[packing], (16, 64), 32
    n_groups = shape[0] * shape[1] // group
    codes = random.integers(0, 1 << bits, (n_groups, group) if axis else (group, n_groups))
    scale, zero = random.random((2, n_groups, 1) if axis else (2, 1, n_groups)).astype(np.float16)
    wanted = ((codes.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)).reshape(shape)
    parts = 10 if packing.endswith("32") else 8 // bits
    padded = np.pad(codes, ((0, -len(codes) % parts), (0, 0))).reshape(parts, -1, codes.shape[1])
    stored = sum(part << bits * (parts - 1 - at) for at, part in enumerate(padded))
    tensors = {
        "w.W_q": np.asarray(stored).astype(np.int32 if parts == 10 else np.uint8),
        "w.scale": scale,
        "w.zero": zero,
        "w.shape": np.array(shape),
        "w.axis": np.array([axis], np.int32),
        "w.packing": np.frombuffer(packing.encode(), np.uint8),
        "w.bias": np.ones(16, np.float16),
    }
    found = values_of(tensors, tmp_path, quant_method="hqq")
    assert list(found) == ["w.bias", "w.weight"]
    np.testing.assert_array_equal(found["w.weight"], wanted)


@pytest.mark.parametrize(("n_in", "n_out"), [(64, 2), (192, 6)])
def test_eetq(tmp_path: Path, random: np.random.Generator, n_in: int, n_out: int) -> None:
    codes = random.integers(-128, 128, (n_in, n_out)).astype(np.int8)
    scales = random.random(n_out).astype(np.float16)
    rows = codes.reshape(-1, 16, n_out)[:, [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15]].reshape(n_in, n_out)
    tiles = rows.T.reshape(n_out // 2, 2, n_in // 64, 64).swapaxes(1, 2)
    stored = (tiles.reshape(-1, 4)[:, [0, 2, 1, 3]].astype(np.int16) + 128).astype(np.uint8).view(np.int8)
    tensors = {"w.weight": stored.reshape(n_in, n_out), "w.weight_scales": scales}
    found = values_of(tensors, tmp_path, quant_method="eetq")
    np.testing.assert_array_equal(found["w.weight"], codes.T.astype(np.float32) * scales.astype(np.float32)[:, None])


@pytest.mark.parametrize("linear_class", ["bitlinear", "autobitlinear"])
def test_bitnet(tmp_path: Path, random: np.random.Generator, linear_class: str) -> None:
    codes = random.integers(0, 3, (12, 10))
    stored = sum(part << 2 * at for at, part in enumerate(codes.reshape(4, 3, 10)))
    scale = np.array([0.3], ml_dtypes.bfloat16)
    tensors = {"w.weight": np.asarray(stored).astype(np.uint8), "w.weight_scale": scale}
    found = values_of(tensors, tmp_path, quant_method="bitnet", linear_class=linear_class)
    signs, factor = (codes - 1).astype(np.float32), scale.astype(np.float32)
    np.testing.assert_array_equal(found["w.weight"], signs * factor if "auto" in linear_class else signs / factor)


def test_torchao_groups(tmp_path: Path, random: np.random.Generator) -> None:
    codes = random.integers(-8, 8, (5, 64)).astype(np.int8)
    scale, zero = random.random((5, 2)).astype(np.float32), random.integers(-8, 8, (5, 2)).astype(np.int8)
    tensors = {"w._weight_qdata": codes, "w._weight_scale": scale, "w._weight_zero_point": zero}
    found = values_of(tensors, tmp_path, quant_method="torchao")
    wanted = (codes.astype(np.float32) - zero.repeat(32, 1)) * scale.repeat(32, 1)
    np.testing.assert_array_equal(found["w.weight"], wanted.astype(np.float32))


def test_quark_mxfp4(tmp_path: Path, random: np.random.Generator) -> None:
    codes, exponents = random.integers(0, 16, (3, 64)), random.integers(100, 140, (3, 2)).astype(np.uint8)
    packed = (codes[:, 0::2] | codes[:, 1::2] << 4).astype(np.uint8)
    found = values_of({"w.weight": packed, "w.weight_scale": exponents}, tmp_path, quant_method="quark")
    wanted = E2M1[codes] * np.exp2(exponents.astype(np.float32) - 127).repeat(32, 1)
    np.testing.assert_array_equal(found["w.weight"], wanted)


@pytest.mark.parametrize("kind", [np.int8, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_quanto(tmp_path: Path, random: np.random.Generator, kind: Any) -> None:
    codes, scale = random.integers(-9, 9, (4, 10)).astype(kind), random.random((4, 1)).astype(np.float16)
    tensors = {"w.weight._data": codes, "w.weight._scale": scale, "w.input_scale": scale}
    found = values_of(tensors, tmp_path, quant_method="quanto")
    assert set(found) == {"w.weight"}
    np.testing.assert_array_equal(found["w.weight"], codes.astype(np.float32) * scale.astype(np.float32))


ODD_SHAPES = ((), (0,), (0, 96), (96,), (96, 1), (1, 96), (96, 0), (2, 2, 2), (1, 1, 1, 1), (7, 3), (3, 7))
PARTS: dict[str, dict[str, tuple[int, ...]]] = {
    "gptq": {"w.qweight": (12, 96), "w.qzeros": (3, 12), "w.scales": (3, 96)},
    "awq": {"w.qweight": (96, 12), "w.qzeros": (3, 12), "w.scales": (3, 96)},
    "bitsandbytes": {"w.weight": (96, 96), "w.SCB": (96,)},
    "compressed-tensors": {"w.weight": (96, 96), "w.weight_scale": (96, 1)},
    "hqq": {
        "w.W_q": (96, 48), "w.scale": (192, 1), "w.zero": (192, 1),
        "w.shape": (2,), "w.axis": (1,), "w.packing": (7,),
    },
    "quanto": {"q_proj.weight._data": (96, 96), "q_proj.weight._scale": (96, 1)},
    "torchao": {"w._weight_qdata": (96, 96), "w._weight_scale": (96, 1), "w._weight_zero_point": (96, 1)},
    "mlx": {"w.weight": (96, 12), "w.scales": (96, 3), "w.biases": (96, 3)},
    "eetq": {"w.weight": (96, 96), "w.weight_scales": (96,)},
    "bitnet": {"w.weight": (24, 96), "w.weight_scale": (1,)},
    "mxfp4": {"w_blocks": (96, 3, 16), "w_scales": (96, 3)},
    "modelopt": {"w.weight": (96, 48), "w.weight_scale": (96, 6), "w.weight_scale_2": ()},
    "fp8": {"w.weight": (96, 96), "w.weight_scale_inv": (3, 3)},
    "fbgemm_fp8": {"w.weight": (96, 96), "w.weight_scale": (96, 1)},
}  # fmt: skip


@pytest.mark.parametrize("method", PARTS)
def test_parts_of_any_shape_and_type_are_taken_or_refused(tmp_path: Path, method: str) -> None:
    config = {"quant_method": method, "bits": 4, "group_size": 32, "weight_block_size": [32, 32]}
    refused = 0
    for changed in PARTS[method]:
        for kind in map(np.dtype, (np.int32, np.uint8, np.int8, np.float16, np.float32, ml_dtypes.float8_e4m3fn)):
            for shape in ODD_SHAPES:
                tensors = {name: np.zeros(shape, np.uint8) for name, shape in PARTS[method].items()}
                try:
                    values_of({**tensors, changed: np.zeros(shape, kind)}, tmp_path, **config)
                except (InputError, UnsupportedError):
                    refused += 1
    assert refused > 50
