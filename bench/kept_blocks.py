"""What --keep-quantized gains: the error of the weights with it, and of dequantizing and quantizing again.

    python bench/kept_blocks.py MODEL

MODEL is a checkpoint folder in bf16, with one file of weights. Its projections are rounded to 4 bits in groups of 32
with float16 scales, and stored as compressed-tensors does it. Files are made of both checkpoints. An error is the root
mean square of the differences over that of the weights, in all projections together.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_dtypes import bfloat16
from numpy.typing import NDArray

from gguf_forge import convert, dequantize, open_gguf

_GROUP = 32
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_CONFIG = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": _GROUP, "strategy": "group"}}},
}
_NAMES = {"float16": "F16", "bfloat16": "BF16", "int32": "I32", "int64": "I64"}
Values = dict[str, NDArray[np.float32]]


def quantized(source: Path, folder: Path) -> None:
    """A copy of a checkpoint with its projections in 4 bits."""
    shutil.copytree(source, folder)
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": _CONFIG}))
    weights = folder / "model.safetensors"
    raw = weights.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    tensors: dict[str, NDArray[Any]] = {}
    for name, entry in json.loads(raw[8:begin]).items():
        if name == "__metadata__":
            continue
        start, stop = entry["data_offsets"]
        values = np.frombuffer(raw[begin + start : begin + stop], bfloat16).reshape(entry["shape"])
        is_projection = name.endswith(tuple(f"{projection}.weight" for projection in _PROJECTIONS))
        tensors |= _packed(name, values.astype(np.float32)) if is_projection else {name: values}
    weights.unlink()
    _write(weights, tensors)


def _packed(name: str, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    groups = values.reshape(len(values), -1, _GROUP)
    scales = (np.abs(groups).max(-1) / 7.5).astype(np.float16)
    codes = (np.rint(groups / scales.astype(np.float32)[..., None]).clip(-8, 7) + 8).astype(np.uint8)
    pairs = codes.reshape(len(values), -1, 2)
    return {
        f"{name}_packed": (pairs[..., 0] | pairs[..., 1] << 4).view(np.int32),
        f"{name}_scale": scales,
        f"{name}_shape": np.array(values.shape, np.int64),
    }


def _write(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    header, at = {}, 0
    for name, values in tensors.items():
        kind, offsets = _NAMES[values.dtype.name], [at, at + values.nbytes]
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": offsets}
        at += values.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(values.tobytes() for values in tensors.values()))


def projections(file: Path) -> tuple[Values, float]:
    """The values of the projections in a file, and the bits that each takes."""
    with open_gguf(file) as gguf:
        found, bits = {}, 0
        for tensor in gguf.tensors:
            if tensor.name.startswith("blk.") and len(tensor.shape) == 2:
                rows = tensor.expression().rows(0, tensor.info.n_rows)
                found[tensor.name] = rows.astype(np.float32) if tensor.type.is_float else dequantize(rows, tensor.type)
                bits += 8 * tensor.nbytes
    return found, bits / sum(values.size for values in found.values())


def error(values: Values, wanted: Values) -> float:
    """The root mean square of all differences, over that of the wanted values."""
    differences = sum(float(np.square(values[name] - wanted[name], dtype=np.float64).sum()) for name in wanted)
    return float(np.sqrt(differences / sum(float(np.square(each, dtype=np.float64).sum()) for each in wanted.values())))


def main(source: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        quantized(source, folder / "int4")

        def made(model: Path, kind: str, *, keeps: bool = False) -> tuple[Values, float]:
            out = folder / "out.gguf"
            convert(model, out, types=kind, keep_quantized=keeps, overwrite=True)
            return projections(out)

        int4 = folder / "int4"
        (original, _), (stored, _) = made(source, "F32"), made(int4, "F32")
        print("| file | bits per weight | error against the 4-bit weights | error against the original |")
        print("| --- | --- | --- | --- |")
        print(f"| the 4-bit checkpoint itself | 4.50 | 0 | {error(stored, original):.3%} |")
        for words, model, kind, keeps in (
            ("its blocks kept", int4, "Q4_K_M", True),
            ("dequantized, then Q4_0", int4, "Q4_0", False),
            ("dequantized, then Q4_K_M", int4, "Q4_K_M", False),
            ("the original, then Q4_0", source, "Q4_0", False),
            ("the original, then Q4_K_M", source, "Q4_K_M", False),
        ):
            values, bits = made(model, kind, keeps=keeps)
            print(f"| {words} | {bits:.2f} | {error(values, stored):.3%} | {error(values, original):.3%} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
