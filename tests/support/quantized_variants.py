"""Every variant of every scheme that any model may come in. `quantized_formats.py` has the formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ml_dtypes import bfloat16, float8_e5m2
from quantized_checkpoints import Format, Parts, awq, compressed, int8_channel, mlx, mxfp4, quanto
from quantized_formats import (
    FP4,
    NF4,
    PER_ROW,
    PER_TENSOR,
    bitnet,
    by_role,
    eetq,
    four_bits,
    fp8,
    gptq_variant,
    hqq,
    int8,
    llm_int8,
    mlx_words,
    nvfp4,
    ordered,
    per_row,
    powers_of_two,
    renamed,
    sixteen_bits,
    without_index,
)


@dataclass(frozen=True)
class Variant:
    """A way to store matrices.

    Attributes:
        make: The format.
        config: What config.json gets.
        rows: The format has room for multiples of so many rows only. Other matrices stay in 16 bits.
        columns: The same for columns.
        files: Files beside the weights.
        is_fp8: Whether `--fp8-as-q8` takes its matrices.
        is_misread: Whether the reference's converter makes a wrong file of it.
    """

    make: Format
    config: Mapping[str, Any]
    rows: int = 1
    columns: int = 1
    files: tuple[str, ...] = ()
    is_fp8: bool = False
    is_misread: bool = False

    def store(self, stem: str, values: np.ndarray) -> tuple[Parts, np.ndarray]:
        """The parts of a matrix and its values; where it does not fit, the matrix itself."""
        if self.fits(values.shape):
            return self.make(stem, values)
        return {".weight": values.astype(bfloat16)}, values

    def fits(self, shape: tuple[int, ...]) -> bool:
        return shape[0] % self.rows == 0 and shape[1] % self.columns == 0


def _config(method: str, **more: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, **more}}


def _groups(form: str, *weights: Mapping[str, Any]) -> dict[str, Any]:
    groups = {f"group_{n}": {"weights": each, "targets": ["Linear"]} for n, each in enumerate(weights)}
    return _config("compressed-tensors", format=form, config_groups=groups)


def _pack(bits: int, group: int, **more: Any) -> dict[str, Any]:
    weights = {"num_bits": bits, "group_size": group, "strategy": "group" if group > 0 else "channel", **more}
    return _groups("pack-quantized", weights)


def _mlx(bits: int, group: int, mode: str = "affine") -> dict[str, Any]:
    return {"quantization": {"bits": bits, "group_size": group, "mode": mode}}


_BLOCKS = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]}
_INT8 = {"num_bits": 8, "type": "int", "strategy": "channel"}
_FLOAT8 = {"num_bits": 8, "type": "float", "strategy": "channel"}
_CT_FP8 = partial(fp8, ".weight_scale", extra=(".input_scale",))
_TORCHAO = partial(int8, "._weight_qdata", "._weight_scale")
_GROUP_AND_WORD = {"rows": 32, "columns": 32}

VARIANTS: dict[str, Variant] = {
    "FP8 in blocks": Variant(
        fp8(".weight_scale_inv", (128, 128)), _config("fp8", weight_block_size=[128, 128]), is_fp8=True
    ),
    "FP8 in blocks, bf16 scales": Variant(
        fp8(".weight_scale_inv", (64, 32), scale_kind=bfloat16), _config("fp8", weight_block_size=[64, 32]), is_fp8=True
    ),
    "FP8 in blocks larger than the matrix": Variant(
        fp8(".weight_scale_inv", (512, 1024)), _config("fp8", weight_block_size=[512, 1024]), is_fp8=True
    ),
    "FP8 E5M2 in blocks": Variant(
        fp8(".weight_scale_inv", (128, 128), kind=float8_e5m2),
        _config("fp8", weight_block_size=[128, 128]),
        is_fp8=True,
    ),
    "FP8 of the tensor": Variant(
        fp8(".weight_scale_inv", PER_TENSOR, scalar=True, extra=(".activation_scale",)), _config("fp8"), is_fp8=True
    ),
    "FP8 E5M2 of the tensor": Variant(
        fp8(".weight_scale_inv", PER_TENSOR, kind=float8_e5m2, scalar=True), _config("fp8"), is_fp8=True
    ),
    "FP8 of rows": Variant(fp8(".weight_scale_inv", PER_ROW), _config("fp8"), is_fp8=True),
    "FP8 with Mistral's names": Variant(
        fp8(".qscale_weight", PER_TENSOR, scalar=True, extra=(".qscale_act",)), _config("fp8"), is_fp8=True
    ),
    "FP8 and FP4 with DeepSeek V4's names": Variant(
        by_role(
            powers_of_two(fp8(".scale", (128, 128), scale_kind=np.uint8), ".scale"),
            powers_of_two(mxfp4(".weight", ".scale", np.int8), ".scale"),
        ),
        _config("fp8", scale_fmt="ue8m0", weight_block_size=[128, 128]),
        columns=32,
    ),
    "MXFP4 beside FP8": Variant(
        by_role(fp8(".weight_scale_inv", (128, 128)), mxfp4(".weight", ".weight_scale")),
        _config("fp8", store_dtype="mxfp4", weight_block_size=[128, 128]),
        columns=32,
    ),
    "FBGEMM FP8": Variant(
        renamed(fp8(".weight_scale", PER_ROW), {}, **{".input_scale_ub": np.full(1, 1200, np.float32)}),
        _config("fbgemm_fp8"),
    ),
    "compressed-tensors int4": Variant(compressed(4, 32), _pack(4, 32), columns=32),
    "compressed-tensors int4, float32 scales": Variant(compressed(4, 16, np.float32), _pack(4, 16), columns=16),
    "compressed-tensors int4, asymmetric": Variant(compressed(4, 32, symmetric=False), _pack(4, 32), columns=32),
    "compressed-tensors int4 of rows": Variant(per_row(partial(compressed, 4)), _pack(4, -1)),
    "compressed-tensors int4 of rows, asymmetric": Variant(
        per_row(partial(compressed, 4, symmetric=False)), _pack(4, -1)
    ),
    "compressed-tensors int4, in activation order": Variant(ordered(4, 32), _pack(4, 32, actorder="group"), columns=32),
    "compressed-tensors int4, asymmetric in activation order": Variant(
        ordered(4, 16, symmetric=False), _pack(4, 16, actorder="group"), columns=16
    ),
    "compressed-tensors int8": Variant(compressed(8, 32), _pack(8, 32), columns=32),
    "compressed-tensors int8, asymmetric": Variant(compressed(8, 32, symmetric=False), _pack(8, 32), columns=32),
    "compressed-tensors int8 of rows": Variant(per_row(partial(compressed, 8)), _pack(8, -1)),
    "compressed-tensors of 2 bits": Variant(compressed(2, 32), _pack(2, 32), columns=32),
    "compressed-tensors of 3 bits": Variant(compressed(3, 32), _pack(3, 32), columns=32),
    "compressed-tensors of 6 bits": Variant(compressed(6, 32), _pack(6, 32), columns=32),
    "compressed-tensors float-quantized rows": Variant(
        _CT_FP8(PER_ROW, scale_kind=bfloat16), _groups("float-quantized", _FLOAT8), is_fp8=True
    ),
    "compressed-tensors float-quantized tensors": Variant(
        _CT_FP8(PER_TENSOR), _groups("float-quantized", {**_FLOAT8, "strategy": "tensor"}), is_fp8=True
    ),
    "compressed-tensors float-quantized blocks": Variant(
        _CT_FP8((128, 128)), _groups("float-quantized", _BLOCKS), is_fp8=True
    ),
    "compressed-tensors int-quantized": Variant(int8_channel(), _groups("int-quantized", _INT8)),
    "compressed-tensors int-quantized, asymmetric": Variant(
        int8(".weight", ".weight_scale", kind=bfloat16, zero_end=".weight_zero_point"),
        _groups("int-quantized", {**_INT8, "symmetric": False}),
    ),
    "compressed-tensors int-quantized groups": Variant(
        int8(".weight", ".weight_scale", block=(1, 32)),
        _groups("int-quantized", {**_INT8, "strategy": "group", "group_size": 32}),
        columns=32,
    ),
    "compressed-tensors naive-quantized FP8": Variant(_CT_FP8(PER_ROW), _groups("naive-quantized", _FLOAT8)),
    "compressed-tensors naive-quantized int8": Variant(int8_channel(np.float32), _groups("naive-quantized", _INT8)),
    "compressed-tensors nvfp4-pack": Variant(
        nvfp4(compressed_tensors=True), _groups("nvfp4-pack-quantized", {"num_bits": 4, "group_size": 16}), columns=64
    ),
    "compressed-tensors mxfp4-pack": Variant(
        mxfp4(".weight_packed", ".weight_scale"),
        _groups("mxfp4-pack-quantized", {"num_bits": 4, "group_size": 32}),
        columns=32,
    ),
    "compressed-tensors of several groups": Variant(
        by_role(compressed(4, 16), compressed(8, 32, symmetric=False)),
        _groups("pack-quantized", {"num_bits": 4, "group_size": 16}, {"num_bits": 8, "group_size": 32}),
        columns=32,
    ),
    "compressed-tensors of mixed precision": Variant(
        by_role(_CT_FP8(PER_ROW), nvfp4(compressed_tensors=True)),
        _groups("mixed-precision", _FLOAT8, {"num_bits": 4, "group_size": 16, "type": "float"}),
        columns=64,
    ),
    "compressed-tensors of mixed precision, int4 and int8": Variant(
        by_role(int8_channel(), compressed(4, 32)),
        _groups("mixed-precision", _INT8, {"num_bits": 4, "group_size": 32}),
        columns=32,
    ),
    "ModelOpt FP8": Variant(
        fp8(".weight_scale", PER_TENSOR, scalar=True, extra=(".input_scale",)),
        _config("modelopt", quant_algo="FP8"),
        is_fp8=True,
    ),
    "ModelOpt FP8 of rows": Variant(
        fp8(".weight_scale", PER_ROW), _config("modelopt", quant_algo="FP8_PER_CHANNEL_PER_TOKEN"), is_fp8=True
    ),
    "ModelOpt NVFP4": Variant(nvfp4(), _config("modelopt", quant_algo="NVFP4"), columns=64),
    "ModelOpt NVFP4 without a scale of the tensor": Variant(
        nvfp4(has_tensor_scale=False), _config("modelopt", quant_algo="NVFP4"), columns=64
    ),
    "ModelOpt FP8 and NVFP4": Variant(
        by_role(fp8(".weight_scale", PER_TENSOR, scalar=True, extra=(".input_scale",)), nvfp4()),
        _config("modelopt", quant_algo="MIXED_PRECISION"),
        columns=64,
        is_fp8=True,
    ),
    "Quark FP8": Variant(fp8(".weight_scale", PER_TENSOR, scalar=True, extra=(".input_scale",)), _config("quark")),
    "Quark FP8 of rows": Variant(fp8(".weight_scale", PER_ROW), _config("quark")),
    "Quark MXFP4": Variant(mxfp4(".weight", ".weight_scale"), _config("quark"), columns=32),
    "GPTQ of 2 bits": Variant(gptq_variant(2, 32), _config("gptq", bits=2), **_GROUP_AND_WORD),
    "GPTQ of 3 bits": Variant(gptq_variant(3, 32), _config("gptq", bits=3), **_GROUP_AND_WORD),
    "GPTQ of 4 bits": Variant(gptq_variant(4, 32), _config("gptq", bits=4), **_GROUP_AND_WORD),
    "GPTQ of 8 bits": Variant(gptq_variant(8, 32, symmetric=False), _config("gptq", bits=8), **_GROUP_AND_WORD),
    "GPTQ of 3 bits in activation order": Variant(
        gptq_variant(3, 32, order="random", symmetric=False), _config("gptq", bits=3, desc_act=True), **_GROUP_AND_WORD
    ),
    "GPTQ in activation order": Variant(
        gptq_variant(4, 16, order="random"), _config("gptq", bits=4, desc_act=True), **_GROUP_AND_WORD
    ),
    "GPTQ version 2": Variant(
        gptq_variant(4, 32, version=2, symmetric=False),
        _config("gptq", bits=4, checkpoint_format="gptq_v2"),
        **_GROUP_AND_WORD,
    ),
    "GPTQ of rows": Variant(gptq_variant(4, -1), _config("gptq", bits=4, group_size=-1), **_GROUP_AND_WORD),
    "GPTQ dynamic": Variant(
        by_role(gptq_variant(8, 32), gptq_variant(4, 16, symmetric=False)),
        _config("gptq", bits=4, group_size=16, dynamic={r"+:.*self_attn.*": {"bits": 8, "group_size": 32}}),
        **_GROUP_AND_WORD,
    ),
    "AutoRound": Variant(
        without_index(gptq_variant(4, 32, version=2, symmetric=False)), _config("auto-round"), **_GROUP_AND_WORD
    ),
    "AutoRound as GPTQ": Variant(
        without_index(gptq_variant(8, 32)),
        _config("auto-round", packing_format="auto_round:auto_gptq"),
        **_GROUP_AND_WORD,
    ),
    "AutoRound of 3 bits": Variant(
        without_index(gptq_variant(3, 32, version=2)),
        _config("auto-round", packing_format="auto_round:gptqmodel"),
        **_GROUP_AND_WORD,
    ),
    **{
        f"AutoRound of {bits} bits": Variant(
            without_index(gptq_variant(bits, 32, version=2, symmetric=False)), _config("auto-round"), **_GROUP_AND_WORD
        )
        for bits in (5, 6, 7)
    },
    "AutoRound as GPTQ, of 5 bits": Variant(
        without_index(gptq_variant(5, 32)),
        _config("auto-round", packing_format="auto_round:auto_gptq"),
        **_GROUP_AND_WORD,
    ),
    "AutoRound as AWQ": Variant(
        awq(32), _config("auto-round", packing_format="auto_round:auto_awq"), rows=8, columns=32
    ),
    "AWQ": Variant(awq(32), _config("awq", bits=4, version="gemm"), rows=8, columns=32),
    "AWQ of rows": Variant(per_row(awq), _config("awq", bits=4, group_size=-1), rows=8),
    "bitsandbytes NF4": Variant(four_bits(NF4, "nf4", 64), _config("bitsandbytes", load_in_4bit=True), columns=2),
    "bitsandbytes NF4, quantized twice": Variant(
        four_bits(NF4, "nf4", 64, nested=True), _config("bitsandbytes", load_in_4bit=True), columns=2
    ),
    "bitsandbytes FP4": Variant(four_bits(FP4, "fp4", 256), _config("bitsandbytes", load_in_4bit=True), columns=2),
    "bitsandbytes FP4, quantized twice": Variant(
        four_bits(FP4, "fp4", 64, nested=True), _config("bitsandbytes", load_in_4bit=True), columns=2
    ),
    "bitsandbytes LLM.int8": Variant(llm_int8, _config("bitsandbytes", load_in_8bit=True)),
    "BitNet": Variant(bitnet, _config("bitnet", linear_class="bitlinear"), rows=4),
    "BitNet that multiplies": Variant(
        partial(bitnet, multiplies=True),
        _config("bitnet", linear_class="autobitlinear", quantization_mode="offline"),
        rows=4,
        is_misread=True,
    ),
    "16 bits, and ModelOpt's config of NVFP4": Variant(
        sixteen_bits, _config("modelopt", quant_algo="NVFP4"), is_misread=True
    ),
    "16 bits, and a layer of NVFP4 in ModelOpt's config": Variant(
        sixteen_bits,
        _config(
            "modelopt",
            quant_algo="MIXED_PRECISION",
            quantized_layers={"model.layers.0.mlp": {"quant_algo": "W4A16_NVFP4"}},
        ),
        is_misread=True,
    ),
    "16 bits, and compressed-tensors' config of NVFP4": Variant(
        sixteen_bits, _groups("nvfp4-pack-quantized", {"num_bits": 4, "group_size": 16}), is_misread=True
    ),
    "16 bits, and a config of GPTQ": Variant(sixteen_bits, _config("gptq", bits=4)),
    **{f"MLX of {bits} bits": Variant(mlx(bits, 32), _mlx(bits, 32), columns=32) for bits in (2, 3, 4, 5, 6, 8)},
    "MLX MXFP4": Variant(mxfp4(".weight", ".scales", np.uint32), _mlx(4, 32, "mxfp4"), columns=32),
    "MLX MXFP8": Variant(mlx_words(fp8(".scales", (1, 32), scale_kind=np.uint8)), _mlx(8, 32, "mxfp8"), columns=32),
    "MLX NVFP4": Variant(
        mlx_words(renamed(nvfp4(has_tensor_scale=False), {".weight_scale": ".scales"}, drop=(".input_scale",))),
        _mlx(4, 16, "nvfp4"),
        columns=16,
    ),
    **{
        f"HQQ {packing} along axis {axis}": Variant(
            hqq(packing, 32, axis), _config("hqq"), rows=8 // int(packing[0]) if axis else 1, columns=32
        )
        for packing in ("8bit_u8", "4bit_u8", "3bit_32", "2bit_u8", "1bit_u8")
        for axis in (0, 1)
    },
    "EETQ": Variant(eetq, _config("eetq"), rows=2, columns=64),
    "quanto int8": Variant(
        renamed(int8_channel(), {".weight": ".weight._data", ".weight_scale": ".weight._scale"}),
        {},
        files=("quanto_qmap.json",),
    ),
    "quanto FP8": Variant(
        renamed(fp8(".weight._scale", PER_ROW, scale_kind=bfloat16), {".weight": ".weight._data"}),
        {},
        files=("quanto_qmap.json",),
    ),
    "quanto FP8 E5M2": Variant(
        renamed(fp8(".weight._scale", PER_ROW, kind=float8_e5m2), {".weight": ".weight._data"}),
        {},
        files=("quanto_qmap.json",),
    ),
    "quanto int4": Variant(quanto(4, 32), {}, columns=32, files=("quanto_qmap.json",)),
    "quanto int2": Variant(quanto(2, 32), {}, columns=32, files=("quanto_qmap.json",)),
    "torchao int8": Variant(_TORCHAO(), _config("torchao")),
    "torchao int8 in groups": Variant(
        _TORCHAO(block=(1, 32), zero_end="._weight_zero_point"), _config("torchao"), columns=32
    ),
    "torchao FP8": Variant(renamed(fp8("._weight_scale", PER_ROW), {".weight": "._weight_qdata"}), _config("torchao")),
}
