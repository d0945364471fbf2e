"""Quantized checkpoints of every scheme: absurd bits, groups and indices, and parts that do not fit together."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import seeds
from generators.models import BITS, TYPES, _line, _other_shape, odd_numbers
from generators.texts import nasty, strange

WIDTH = 96
Parts = dict[str, tuple[str, list[int]]]

METHODS = (
    *("gptq", "awq", "bitsandbytes", "compressed-tensors", "hqq", "quanto", "torchao", "mlx", "eetq", "auto-round"),
    *("bitnet", "fp8", "fbgemm_fp8", "modelopt", "mxfp4", "quark", "higgs"),
)
COMMANDS = (
    ("convert", "{}", "-t", "F16", "-o", "out.gguf"),
    ("convert", "{}", "-t", "Q4_0", "-o", "out.gguf", "--keep-quantized"),
    ("plan", "{}", "-t", "all", "--summary"),
    ("plan", "{}", "--keep-quantized", "-v"),
    ("convert", "{}", "-t", "auto", "--fp8-as-q8", "-o", "out.gguf"),
    ("types", "{}", "--fit", "1G"),
)


def _parts(method: str, stem: str, source: Random) -> Parts:
    """The parts of one weight of 96 x 96, as a scheme stores it."""
    group = source.choice((32, 32, 96, 16, 1))
    groups, name = max(1, WIDTH // group), f"{stem}.weight"
    bits = source.choice((4, 4, 8, 2, 3))
    words = WIDTH * bits // 32
    if method in ("gptq", "awq", "auto-round"):
        packed = [WIDTH, words] if method == "awq" else [words, WIDTH]
        parts: Parts = {
            f"{stem}.qweight": ("I32", packed),
            f"{stem}.qzeros": ("I32", [groups, words]),
            f"{stem}.scales": ("F16", [groups, WIDTH]),
        }
        if source.random() < 0.5:
            parts[f"{stem}.g_idx"] = ("I32", [WIDTH])
        return parts
    if method == "bitsandbytes":
        if source.random() < 0.3:
            return {f"{stem}.weight": ("I8", [WIDTH, WIDTH]), f"{stem}.SCB": ("F32", [WIDTH])}
        count = WIDTH * WIDTH
        state = source.choice(("nf4", "fp4"))
        return {
            name: ("U8", [count // 2, 1]),
            f"{name}.absmax": ("F32", [count // 64]),
            f"{name}.quant_map": ("F32", [16]),
            f"{name}.quant_state.bitsandbytes__{state}": ("U8", [130]),
        } | (
            {f"{name}.nested_absmax": ("F32", [1]), f"{name}.nested_quant_map": ("F32", [256])}
            if source.random() < 0.3
            else {}
        )
    if method == "compressed-tensors":
        parts = {
            f"{name}_packed": ("I32", [WIDTH, words]),
            f"{name}_scale": ("BF16", [WIDTH, groups]),
            f"{name}_shape": ("I64", [2]),
        }
        more: Parts = {f"{name}_zero_point": ("I32", [words, groups]), f"{name}_g_idx": ("I32", [WIDTH])}
        chosen = source.sample(list(more), source.randint(0, 2))
        if source.random() < 0.4:
            return {name: ("I8", [WIDTH, WIDTH]), f"{name}_scale": ("BF16", [WIDTH, 1])}
        return parts | {key: more[key] for key in chosen}
    if method == "hqq":
        return {
            f"{stem}.W_q": ("U8", [WIDTH, 48]),
            f"{stem}.scale": ("F16", [192, 1]),
            f"{stem}.zero": ("F16", [192, 1]),
            f"{stem}.shape": ("I64", [2]),
            f"{stem}.axis": ("I64", [1]),
            f"{stem}.packing": ("U8", [7]),
        }
    if method == "quanto":
        if source.random() < 0.5:
            return {f"{name}._data": ("I8", [WIDTH, WIDTH]), f"{name}._scale": ("BF16", [WIDTH, 1])}
        count = WIDTH * WIDTH // 32
        return {
            f"{name}._data._data": ("U8", [count // 2, 32]),
            f"{name}._scale": ("BF16", [count, 1]),
            f"{name}._shift": ("BF16", [count, 1]),
        }
    if method == "torchao":
        ends = {"qdata": ("I8", [WIDTH, WIDTH]), "scale": ("F32", [WIDTH, 1]), "zero_point": ("I8", [WIDTH, 1])}
        return {f"{stem}._weight_{end}": (kind, list(shape)) for end, (kind, shape) in ends.items()}
    if method == "mlx":
        return {
            name: ("U32", [WIDTH, words]),
            f"{stem}.scales": ("F16", [WIDTH, groups]),
            f"{stem}.biases": ("F16", [WIDTH, groups]),
        }
    if method == "eetq":
        return {name: ("I8", [WIDTH, WIDTH]), f"{name}_scales": ("F16", [WIDTH])}
    if method == "bitnet":
        return {name: ("U8", [WIDTH // 4, WIDTH]), f"{name}_scale": ("BF16", [1])}
    if method == "mxfp4":
        return {f"{name}_blocks": ("U8", [WIDTH, 3, 16]), f"{name}_scales": ("U8", [WIDTH, 3])}
    if method == "modelopt":
        return {
            name: ("U8", [WIDTH, WIDTH // 2]),
            f"{name}_scale": ("F8_E4M3", [WIDTH, 6]),
            f"{name}_scale_2": ("F32", []),
            f"{stem}.input_scale": ("F32", []),
        }
    scales = source.choice((f"{name}_scale_inv", f"{name}_scale", f"{stem}.scale"))
    return {name: ("F8_E4M3", [WIDTH, WIDTH]), scales: ("F32", source.choice(([1, 1], [WIDTH, 1], [], [3, 3], [1])))}


def _contents(name: str, dtype: str, shape: list[int], source: Random) -> bytes:
    """Numbers that say how a weight is stored, some of them absurd; other tensors are random bytes or zeros."""
    nbytes = BITS.get(dtype, 8)
    for size in shape:
        nbytes *= size
    nbytes //= 8
    if nbytes > 1 << 20:
        return bytes(nbytes)
    if name.endswith(".axis"):
        return (1).to_bytes(8, "little")[:nbytes].ljust(nbytes, b"\0")
    if name.endswith(("_shape", ".shape")):
        numbers = (
            [96, 96]
            if source.random() < 0.97
            else source.choice(([0, 96], [-1, 5], [2**40, 2**40], [1, 9216], [2**62, 4], [1], [0]))
        )
        return b"".join(number.to_bytes(8, "little", signed=True) for number in (numbers * 50))[:nbytes].ljust(
            nbytes, b"\0"
        )
    if name.endswith("g_idx"):
        numbers = source.choice(([0],) * 20 + ([0, 1, 2], [-1], [2**31 - 1], [3], [-(2**31)], list(range(96))))
        return b"".join(number.to_bytes(4, "little", signed=True) for number in (numbers * 100))[:nbytes].ljust(
            nbytes, b"\0"
        )
    if "quant_state" in name:
        state = {
            "blocksize": 64,
            "shape": [WIDTH, WIDTH],
            "nested_blocksize": 256,
            "nested_offset": 0.5,
            "dtype": "bfloat16",
        }
        for key in source.sample(list(state), source.choice((0,) * 12 + (1, 1, 2))):
            state[key] = source.choice(
                (*odd_numbers(), [2**31, 2**31], [96], [9216], [1] * 40, [2**31 + 1] * 3, [96, 96, 1])
            )
        text = json.dumps(state).encode() if source.random() < 0.99 else b"[" * 200
        return text[:nbytes].ljust(nbytes, b" ")
    if name.endswith(".packing"):
        word = source.choice(
            (b"4bit_u8",) * 20 + (b"8bit_u8", b"3bit_32", b"1bit_u8", b"\xff\xfe", b"2bit_u8", b"\x1b[2J")
        )
        return word[:nbytes].ljust(nbytes, b"\0")
    if name.endswith("quant_map"):
        return source.randbytes(nbytes) if source.random() < 0.5 else bytes(nbytes)
    return source.choice((source.randbytes(nbytes), bytes(nbytes), b"<" * nbytes, b"<" * nbytes))  # 0x3c3c is 1.06


def _settings(method: str, source: Random) -> Any:
    config: dict[str, Any] = {
        "quant_method": method,
        "bits": 4,
        "group_size": 32,
        "version": "gemm",
        "packing_format": "auto_round",
        "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 32}, "targets": ["Linear"]}},
        "format": "pack-quantized",
        "mode": "affine",
        "weight_block_size": [32, 32],
        "quant_algo": "NVFP4",
        "ignore": [],
        "modules_to_not_convert": [],
        "quantized_layers": {},
        "checkpoint_format": "gptq",
        "desc_act": True,
    }
    if method == "auto-round":
        config["packing_format"] = source.choice(
            ("auto_round", "auto_round:auto_awq", "auto_round:auto_gptq", nasty(source))
        )
    if method == "compressed-tensors":
        config["config_groups"] = {
            str(at): {"weights": {"num_bits": bits, "group_size": source.choice((32, 96, None, 16, 0))}}
            for at, bits in enumerate((2, 3, 4, 8))
        }
    for _ in range(source.choice((0, 0, 0, 1, 1, 2))):
        key = source.choice([*config][1:])
        value = source.choice((source.choice(odd_numbers()), strange(source)))
        if key in ("ignore", "modules_to_not_convert", "quantized_layers", "config_groups") and source.random() < 0.6:
            count = source.choice((1000, 10**5))
            words = [f"re:(a*)*layers.{at}.*$" if at % 2 else f"*model.layers.{at}.*" for at in range(count)]
            value = {word: {"weights": {"num_bits": 4}} for word in words} if "_" in key and key[0] in "qc" else words
        config[key] = value
    return config


def schemes(source: Random, folder: Path) -> list[str]:
    """A checkpoint whose projections are stored as a scheme does it, more or less."""
    model = seeds.checkpoint(folder)
    method = source.choice(METHODS)
    config = json.loads((model / "config.json").read_text())
    key = "quantization" if method == "mlx" and source.random() < 0.7 else "quantization_config"
    config[key] = _settings(method, source)
    (model / "config.json").write_text(json.dumps(config))
    if source.random() < 0.15:
        (model / source.choice(("hf_quant_config.json", "quanto_qmap.json"))).write_text(
            json.dumps({"quantization": config[key]})
        )
    path = model / "model.safetensors"
    raw = path.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    held: dict[str, tuple[str, list[int], bytes]] = {}
    for name, entry in json.loads(raw[8:begin]).items():
        stem = name.removesuffix(".weight")
        if stem.endswith("_proj"):
            state = source.getstate()
            held |= {part: (*kind, b"") for part, kind in _parts(method, stem, source).items()}
            source.setstate(state)  # so that all weights are stored alike
        elif name != "__metadata__":
            held[name] = (entry["dtype"], entry["shape"], raw[begin:][slice(*entry["data_offsets"])])
    source.random()
    parts = [name for name, (_, _, given) in held.items() if not given]
    for name in source.sample(parts, min(len(parts), source.choice((0, 0, 0, 1, 1, 2)))):
        dtype, shape, _ = held.pop(name)
        kind = source.random()
        if kind < 0.6:
            held[name] = (dtype, _other_shape(shape, source), b"")
        elif kind < 0.9:
            held[name] = (source.choice(TYPES), shape, b"")
    _write(path, held, source)
    return _line(model, source, COMMANDS)


def _write(path: Path, held: dict[str, tuple[str, list[int], bytes]], source: Random) -> None:
    header, at, data = {}, 0, []
    for name, (dtype, shape, given) in held.items():
        size = 1
        for each in shape:
            size *= each
        content = given or (_contents(name, dtype, shape, source) if size < 1 << 24 else b"")
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(content)]}
        at += len(content)
        data.append(content)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data))


GENERATORS = (schemes,)
