"""Makes tests/quantized_values.json with the libraries of the formats, on a CPU.

    python make_quantized_values.py

For each variant that a library reads, it has the name of the library and the digest of the float32 values that it
gives for the matrices of the models in quantized_models.py. Scales are widened to float32 first, as everywhere.
Needs torch, compressed-tensors, auto-round, autoawq, bitsandbytes, hqq, optimum-quanto, torchao and mlx, and
gguf-forge on the path, of which only a maker of tiny checkpoints is used.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from quantized_checkpoints import Parts
from quantized_models import digest_of_values, matrices
from quantized_variants import VARIANTS

TESTS = Path(__file__).parents[1]

Read = Callable[[str, Parts, tuple[int, int]], torch.Tensor]


def tensor(values: np.ndarray) -> torch.Tensor:
    """As torch has it; small floats by their bytes."""
    own = {"bfloat16": torch.bfloat16, "float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
    if values.dtype.name in own:
        whole = np.dtype(f"i{values.itemsize}")
        return torch.from_numpy(np.ascontiguousarray(values).view(whole).copy()).view(own[values.dtype.name])
    return torch.from_numpy(np.array(values, order="C"))


def wide(values: np.ndarray) -> torch.Tensor:
    return tensor(values.astype(np.float32))


def compressed_tensors(name: str, parts: Parts, shape: tuple[int, int]) -> torch.Tensor:
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import dequantize

    scale, zeros = wide(parts[".weight_scale"]), parts.get(".weight_zero_point")
    if ".weight_packed" not in parts:
        codes = tensor(parts[".weight"])
        kind = "float" if codes.dtype.is_floating_point else "int"
        whole = scale.numel() == 1
        groups = scale.shape[-1] if not whole else 1
        if groups > 1:
            args = QuantizationArgs(num_bits=8, strategy="group", group_size=shape[1] // groups)
        else:
            args = QuantizationArgs(num_bits=8, type=kind, strategy="tensor" if whole else "channel")
        zero = None if zeros is None else tensor(zeros)
        return dequantize(codes, scale, zero, args, dtype=torch.float32)
    words = tensor(parts[".weight_packed"])
    bits = int(re.sub("[^0-9]", "", name)[0])
    codes = unpack_from_int32(words, bits, torch.Size(shape))
    groups = scale.shape[1]
    if zeros is not None:  # the library wants contiguous words, and packs these along the rows
        zeros = unpack_from_int32(tensor(zeros.T), bits, torch.Size((groups, shape[0]))).T.contiguous()
    if ".weight_g_idx" in parts:  # `dequantize` left it to the layer, which sorts the columns
        index = tensor(parts[".weight_g_idx"]).long()
        args = QuantizationArgs(num_bits=bits, strategy="group", group_size=1)
        return dequantize(codes, scale[:, index], None if zeros is None else zeros[:, index], args, torch.float32)
    strategy = {"strategy": "group", "group_size": shape[1] // groups} if groups > 1 else {"strategy": "channel"}
    return dequantize(codes, scale, zeros, QuantizationArgs(num_bits=bits, **strategy), torch.float32)


def auto_round(name: str, parts: Parts, shape: tuple[int, int]) -> torch.Tensor:
    """The weight as the layer multiplies with it: the result for the identity."""
    from auto_round_extension.torch import qlinear_torch, qlinear_torch_zp

    minus_one = "as GPTQ" in name or (name.startswith("GPTQ") and "version 2" not in name)
    module = qlinear_torch_zp if minus_one else qlinear_torch
    rows, columns = shape
    groups = parts[".scales"].shape[0]
    bits = parts[".qweight"].shape[0] * 32 // columns
    layer = module.QuantLinear(bits, columns // groups, columns, rows, bias=False)
    layer.qweight, layer.qzeros = tensor(parts[".qweight"]), tensor(parts[".qzeros"])
    layer.scales = wide(parts[".scales"])
    layer.post_init()
    return layer(torch.eye(columns, dtype=torch.float32)).T.contiguous()


def awq(name: str, parts: Parts, shape: tuple[int, int]) -> torch.Tensor:
    from awq.utils.packing_utils import dequantize_gemm

    scales = wide(parts[".scales"])
    words = (tensor(parts[end]) for end in (".qweight", ".qzeros"))
    return dequantize_gemm(*words, scales, 4, shape[1] // scales.shape[0]).T.contiguous()


def bitsandbytes(name: str, parts: Parts, shape: tuple[int, int]) -> torch.Tensor:
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
    from bitsandbytes.functional import QuantState, int8_vectorwise_dequant

    if ".SCB" in parts:
        return int8_vectorwise_dequant(tensor(parts[".weight"]), tensor(parts[".SCB"]))
    own = {end.removeprefix(".weight."): tensor(part) for end, part in parts.items() if end != ".weight"}
    state = QuantState.from_dict(own, device=torch.device("cpu"))
    absmax = state.absmax
    if state.nested:
        flat = state.state2.code[absmax.long()]
        absmax = flat * state.state2.absmax.repeat_interleave(state.state2.blocksize)[: len(flat)] + state.offset
    codes = tensor(parts[".weight"]).reshape(-1)
    return _dequantize_4bit_compute(codes, absmax, state.code, state.blocksize, shape, torch.float32).reshape(shape)


def hqq(name: str, parts: Parts, shape: tuple[int, int]) -> torch.Tensor:
    from hqq.core.quantize import Quantizer

    meta = {
        "nbits": int(parts[".nbits"]), "group_size": int(parts[".group_size"]), "axis": int(parts[".axis"]),
        "shape": shape, "packing": parts[".packing"].tobytes().decode(), "view_as_float": False,
        "compute_dtype": torch.float32, "scale": wide(parts[".scale"]), "zero": wide(parts[".zero"]),
    }  # fmt: skip
    return Quantizer.dequantize(tensor(parts[".W_q"]), meta)


def quanto(name: str, parts: Parts, shape: tuple[int, int]) -> torch.Tensor:
    from optimum.quanto import qfloat8_e4m3fn, qfloat8_e5m2, qint8
    from optimum.quanto.tensor.weights.qbytes import WeightQBytesTensor

    codes, scale = tensor(parts[".weight._data"]), wide(parts[".weight._scale"])
    kind = {torch.int8: qint8, torch.float8_e4m3fn: qfloat8_e4m3fn, torch.float8_e5m2: qfloat8_e5m2}[codes.dtype]
    size = torch.Size(shape)
    return WeightQBytesTensor(kind, 0, size, (shape[1], 1), codes, scale, None).dequantize()


def torchao(name: str, parts: Parts, shape: tuple[int, int]) -> torch.Tensor:
    from torchao.quantization.quant_primitives import dequantize_affine

    codes, scale = tensor(parts["._weight_qdata"]), wide(parts["._weight_scale"])
    zero = tensor(parts["._weight_zero_point"]) if "._weight_zero_point" in parts else None
    if codes.dtype != torch.int8:
        from torchao.quantization.quant_primitives import _dequantize_affine_float8

        return _dequantize_affine_float8(codes, scale, torch.float32)
    block = (1, shape[1] // scale.shape[1])
    return dequantize_affine(codes, block, scale, zero, torch.int8, output_dtype=torch.float32)


def mlx(name: str, parts: Parts, shape: tuple[int, int]) -> torch.Tensor:
    import mlx.core as mx

    words, scales = mx.array(parts[".weight"]), parts[".scales"]
    if ".biases" not in parts:
        made = mx.dequantize(words, mx.array(scales), mode=name.split()[1].lower(), dtype=mx.float32)
    else:
        bits = parts[".weight"].shape[1] * 32 // shape[1]
        numbers = (mx.array(each.astype(np.float32)) for each in (scales, parts[".biases"]))
        made = mx.dequantize(words, *numbers, group_size=32, bits=bits)
    return torch.from_numpy(np.array(made.astype(mx.float32)))


def bitnet(name: str, parts: Parts, shape: tuple[int, int]) -> torch.Tensor:
    from transformers.integrations.bitnet import unpack_weights

    codes, scale = unpack_weights(tensor(parts[".weight"]), dtype=torch.float32), wide(parts[".weight_scale"])
    return codes * scale if "multiplies" in name else codes * (1 / scale)


# The beginning of a variant's name, the package, and what reads it.
LIBRARIES: tuple[tuple[str, str, Read], ...] = (
    ("compressed-tensors", "compressed-tensors", compressed_tensors),
    ("GPTQ", "auto-round", auto_round),
    ("AutoRound as AWQ", "autoawq", awq),
    ("AutoRound", "auto-round", auto_round),
    ("AWQ", "autoawq", awq),
    ("bitsandbytes", "bitsandbytes", bitsandbytes),
    ("HQQ", "hqq", hqq),
    ("quanto", "optimum-quanto", quanto),
    ("torchao", "torchao", torchao),
    ("MLX", "mlx", mlx),
    ("BitNet", "transformers", bitnet),
)
# What has no such reader on a CPU: blocks of 4-bit floats, an index of groups, two formats in one model. quanto needs a
# compiler for less than 8 bits.
_NOT_READ = (
    *("nvfp4", "mxfp4", "mixed", "several", "dynamic"),
    *("GPTQ in activation", "bits in activation", "blocks", "quanto int4", "quanto int2"),
)


def main() -> None:
    found: dict[str, dict[str, str]] = {}
    for name, variant in VARIANTS.items():
        library = next(((package, read) for begin, package, read in LIBRARIES if name.startswith(begin)), None)
        if library is None or any(word in name for word in _NOT_READ):
            continue
        package, read = library
        try:
            values, same = [], True
            for shape, given in matrices(variant):
                parts, wanted = variant.make("model", given)
                values.append(read(name, parts, shape).to(torch.float32).numpy())
                same = same and np.array_equal(values[-1], wanted)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}")
            continue
        print(f"{name}: {package} {version(package)}: {'same' if same else 'DIFFERENT'}", flush=True)
        found[name] = {"library": f"{package} {version(package)}", "sha256": digest_of_values(values)}
    (TESTS / "quantized_values.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
