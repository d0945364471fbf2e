"""How tensors and keys are stored: headers with holes and overlaps, keys twice, absurd alignments, arrays in arrays."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import quantized_checkpoints as formats
import raw_gguf
import seeds
from generators.ggufs import _line as gguf_line
from generators.models import _line, odd_numbers
from generators.quantized import COMMANDS as QUANTIZED
from generators.texts import nasty

SIZES = (0, 1, -1, 2**31, 2**32, 2**53, 2**62, 2**63, 2**64, 2**64 - 1, 10**30)
LAYOUTS = ("overlap", "hole", "unaligned", "backwards", "twice", "type twice", "size", "shape", "text", "metadata")
BITS = ("nan", "inf", "denormal", "huge", "zeros", "ones", "random", "negative")
WORDS = {
    2: {"nan": b"\x00\x7e", "inf": b"\x00\x7c", "denormal": b"\x01\x00", "huge": b"\xff\x7b", "negative": b"\x00\xbc"},
    4: {
        "nan": b"\x00\x00\xc0\x7f",
        "inf": b"\x00\x00\x80\x7f",
        "denormal": b"\x01\x00\x00\x00",
        "huge": b"\xff\xff\x7f\x7f",
        "negative": b"\xff\xff\xff\xff",
    },
}


def layouts(source: Random, folder: Path) -> list[str]:
    """A safetensors file whose header is no usual one: ranges, keys, types and white space."""
    model = seeds.checkpoint(folder)
    path = model / "model.safetensors"
    raw = path.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:begin])
    data = bytearray(raw[begin:])
    stored = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    pieces: list[str] = []
    for _ in range(source.randint(1, 3)):
        name, other = source.choice(list(stored)), source.choice(list(stored))
        entry, (start, end) = header[name], stored[name]
        kind = source.choice(LAYOUTS)
        if kind == "overlap":
            entry["data_offsets"] = header[other]["data_offsets"]
        elif kind == "hole":
            moved = source.choice((1, 2, 8, 4096, 1 << 20))
            header[name]["data_offsets"] = [len(data) + moved, len(data) + moved + end - start]
            data += bytes(moved) + data[start:end]
        elif kind == "unaligned":
            header["odd"] = {"dtype": "U8", "shape": [3], "data_offsets": [len(data), len(data) + 3]}
            data += b"abc"
            header[name]["data_offsets"] = [len(data), len(data) + end - start]
            data += data[start:end]
        elif kind == "backwards":
            entry["data_offsets"] = source.choice(([end, start], [start, start], [-1, end - start - 1], [start], []))
        elif kind == "twice":
            again = dict(entry, shape=source.choice((entry["shape"], entry["shape"][::-1], [1])))
            pieces.append(f"{json.dumps(name)}:{json.dumps(again)}")
        elif kind == "type twice":
            inner = json.dumps(entry)[:-1] + f',"dtype":{json.dumps(source.choice(("F32", "I8", "BF16", "F4")))}}}'
            pieces.append(f"{json.dumps(name + source.choice(('', 'x')))}:{inner}")
        elif kind == "size":
            entry["data_offsets"] = [start, source.choice((*SIZES, end + 1, end - 1, float(end), str(end)))]
        elif kind == "shape":
            entry["shape"] = source.choice(
                ([0, *entry["shape"]], [source.choice(SIZES), 1], [2**32, 2**32], [2**63, 0], [], [1] * 33, "x", None)
            )
        elif kind == "metadata":
            header["__metadata__"] = source.choice((None, [], {"a": 1}, {nasty(source): nasty(source)}, "x", {"a": {}}))
        else:
            entry["dtype"] = source.choice((nasty(source), None, 7, "f16", "F8_E4M3FNUZ", "C64", "F6_E2M3", "U1"))
    text = json.dumps(header)
    if pieces:
        text = text[:-1] + "," + ",".join(pieces) + "}"
    text += source.choice(("", "", " " * 7, "\0" * 8, "\n", "x", " " * 100_000))
    encoded = source.choice(("",) * 20 + ("\ufeff", " ")).encode() + text.encode()
    size = len(encoded) if source.random() < 0.9 else source.choice((*SIZES[3:9], 7, len(raw)))
    path.write_bytes((size % 2**64).to_bytes(8, "little") + encoded + data)
    return _line(model, source)


def written_json(source: Random, folder: Path) -> list[str]:
    """JSON files in other ways to write JSON: keys twice, comments, numbers of Python, other encodings."""
    model = seeds.checkpoint(folder)
    file = source.choice(sorted(model.glob("*.json")))
    text = file.read_text()
    value = json.loads(text)
    key = source.choice(list(value))
    kind = source.randrange(9)
    again = json.dumps(source.choice((value[key], *odd_numbers())))
    if kind == 0:
        text = text.rstrip()[:-1] + f",{json.dumps(key)}:{again}}}"
    elif kind == 1:
        text = "{" + f"{json.dumps(key)}:{again}," * source.choice((2, 10_000)) + text.lstrip()[1:]
    elif kind == 2:
        text = text.replace(":", source.choice((": //x\n", ":/**/", ":\x0b", ":\xa0", ":\0")), 1)
    elif kind == 3:
        text = text.replace("{", source.choice(("{,", "{'a':1,", "{a:1,", "{1:2,", '{"\\ud800":1,', '{"\t":1,')), 1)
    elif kind == 4:
        number = source.choice(
            ("01", "+1", ".5", "1.", "1e", "0x1", "-", "Infinity", "-NaN", "1e999999999", "1" * 5000)
        )
        text = text.replace(json.dumps(value[key]), number, 1)
    elif kind == 5:
        file.write_bytes(text.encode(source.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-le", "utf-7", "cp500"))))
    elif kind == 6:
        file.write_bytes(text.encode() + source.choice((b"\xff", b"\0", b"\xed\xa0\x80", b"\x1a", b"{}", b"\xc0\x80")))
    elif kind == 7:
        text = source.choice(("", "null", "[]", '""', "0", "true", "[" + text + "]", "\n", "\ufeff"))
    else:
        cut = source.randrange(len(text))
        text = text[:cut] + source.choice(("", text[cut + 1 :]))
    if kind not in (5, 6):
        file.write_text(text)
    return _line(model, source)


def _bad_keys(source: Random) -> list[bytes]:
    """Keys of a GGUF file that hardly any file has."""
    keys = []
    for _ in range(source.randint(0, 5)):
        name = source.choice(
            (b"general.name", b"a\0b", b"", b"\xff\xfe", b"llama.block_count", b"x" * 70_000, b"tokenizer.ggml.tokens")
        )
        depth = source.choice((1, 2, 5, 100, 20_000))
        kind = source.randrange(5)
        if kind == 0:
            nested = struct.pack("<IQ", raw_gguf.ARRAY, 1) * depth + struct.pack("<IQI", raw_gguf.U32, 1, 7)
            keys.append(raw_gguf.key(name, raw_gguf.ARRAY, nested))
        elif kind == 1:
            keys.append(
                raw_gguf.key(name, raw_gguf.STRING, raw_gguf.text(source.choice((b"a\0b", b"\xed\xa0\x80", b""))))
            )
        elif kind == 2:
            count = source.choice((0, 1, 2**31, 2**63))
            inner = source.choice((0, 4, 8, 9, 13, 2**31))
            keys.append(raw_gguf.key(name, raw_gguf.ARRAY, struct.pack("<IQ", inner, count)))
        elif kind == 3:
            keys.append(raw_gguf.key(name, raw_gguf.BOOL, source.choice((b"\0", b"\1", b"\2", b"\xff"))))
        else:
            keys += [raw_gguf.u32_key(name, at) for at in range(source.choice((2, 3000)))]
    return keys


def alignments(source: Random, folder: Path) -> list[str]:
    """A GGUF file with an absurd alignment, strange keys, and tensors that overlap, are empty or have one name."""
    keys = [raw_gguf.key(b"general.architecture", raw_gguf.STRING, raw_gguf.text(b"llama"))]
    alignment = source.choice((0, 1, 2, 3, 8, 32, 64, 4096, 2**20, 2**31, 2**32 - 1))
    if source.random() < 0.7:
        order = source.random() < 0.8
        number = struct.pack("<I", alignment) if order else struct.pack("<Q", alignment)
        keys.append(raw_gguf.key(b"general.alignment", raw_gguf.U32 if order else 10, number))
    keys += _bad_keys(source)
    source.shuffle(keys)
    real = alignment if 1 <= alignment <= 4096 else 32
    tensors, at = [], 0
    for number in range(source.choice((0, 1, 4, 20))):
        name = source.choice((b"blk.%d.attn_q.weight" % number, b"a", b"", b"a\0b", b"\xff", b"x" * 63, b"x" * 64))
        shape = source.choice(((32,), (96, 2), (0,), (32, 0), (256,), (2**63,), (2**32, 2**32), (1, 1, 1, 1), (1,) * 5))
        tensors.append(
            raw_gguf.RawTensor(
                name,
                shape,
                source.choice((0, 1, 2, 8, 12, 39, 40, 41, 30)),
                source.choice((at, at, at, 0, 1, 2**63, 2**64 - 32)),
                n_dims=source.choice((None,) * 20 + (0, 2**32 - 1)),
            )
        )
        at += -(-1024 // real) * real
    order = source.choice(("<",) * 5 + (">",))
    raw = raw_gguf.raw_gguf(
        keys,
        tensors,
        source.randbytes(min(at + 64, 1 << 18)),
        version=source.choice((3, 3, 3, 2, 1, 4, 0)),
        alignment=real,
        order=order,
    )
    path = folder / "model.gguf"
    path.write_bytes(raw)
    return gguf_line(path, folder, source)


def _formats(source: Random) -> tuple[dict[str, Any], formats.Format]:
    bits, group = source.choice((2, 4, 8)), source.choice((32, 96))
    config = {"bits": bits, "group_size": group}
    kind = source.choice(("gptq", "awq", "compressed", "int8", "mlx", "quanto"))
    if kind == "gptq":
        import numpy as np

        order = np.arange(96) // group if source.random() < 0.5 else None
        made = formats.gptq(bits, group, symmetric=source.random() < 0.5, order=order)
        settings = {"quant_method": "gptq", **config, "sym": True, "desc_act": order is not None}
        return {"quantization_config": settings}, made
    if kind == "awq":
        return {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": group}}, formats.awq(group)
    if kind == "mlx":
        return {"quantization": config}, formats.mlx(bits, group)
    if kind == "quanto":
        return {"quantization_config": {"quant_method": "quanto", "weights": f"int{bits}"}}, formats.quanto(bits, 32)
    weights = {"num_bits": bits, "group_size": group, "type": "int", "strategy": "group", "symmetric": True}
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    settings["config_groups"] = {"group_0": {"targets": [_target(source)], "weights": weights}}
    if source.random() < 0.5:
        settings["ignore"] = [_target(source) for _ in range(source.choice((1, 5, 3000)))]
    if kind == "int8":
        weights |= {"num_bits": 8, "strategy": "channel", "group_size": None}
        settings["format"] = "int-quantized"
        return {"quantization_config": settings}, formats.int8_channel()
    return {"quantization_config": settings}, formats.compressed(bits, group)


def _target(source: Random) -> str:
    return source.choice(
        ("Linear", "Linear", "re:.*", "re:(.*)*x", "re:(a|a)*b.*", "re:" + "(" * 300, "re:[", "re:" + "a?" * 2000, "")
    )


def values(source: Random, folder: Path) -> list[str]:
    """A lawful quantized checkpoint with scales, zero points, indices or codes of every bad value."""
    model = seeds.checkpoint(folder)
    config, make = _formats(source)

    def damaged(stem: str, weights: Any) -> tuple[dict[str, Any], Any]:
        parts, held = make(stem, weights)
        for name in source.sample(list(parts), min(len(parts), source.choice((0, 1, 1, 2)))):
            parts[name] = _with_bad_values(parts[name], source)
        return parts, held

    with suppress(ValueError, IndexError, AssertionError):  # some sizes do not go together; the folder is then plain
        formats.quantize_folder(model, config, damaged)
    return _line(model, source, QUANTIZED)


def _with_bad_values(part: Any, source: Random) -> Any:
    import numpy as np

    raw = np.ascontiguousarray(part).view(np.uint8).reshape(-1).copy()
    word = WORDS.get(part.dtype.itemsize, {}).get(kind := source.choice(BITS), b"")
    if kind == "zeros" or not word:
        word = source.choice((bytes(4), b"\xff" * 4, source.randbytes(8)))
    if raw.size == 0:
        return part
    at = source.randrange(0, raw.size, part.dtype.itemsize)
    piece = np.frombuffer(word * source.choice((1, 10, 10_000)), np.uint8)[: raw.size - at]
    raw[at : at + piece.size] = piece
    return raw.view(part.dtype).reshape(part.shape)


GENERATORS = (layouts, written_json, alignments, values)
