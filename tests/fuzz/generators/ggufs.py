"""GGUF files and importance matrices: damage that knows the format, on every command that reads or changes them."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from random import Random

import imatrices
import raw_gguf
import seeds
from generators.texts import nasty
from gguf_mutations import fields_of, mutated

CHANGES = (
    *(("--set", "general.name=x"), ("--remove", "general.*"), ("--rename", "general.name=general.title")),
    *(
        ("--remove", "*"),
        ("--pre-tokenizer", "qwen2"),
        ("--special-token", "eos=a"),
        ("--special-token-by-id", "bos=99"),
    ),
    *(
        ("--token-type", "a=control"),
        ("--drop-tensor", "blk.*"),
        ("--rename-tensor", "blk=x"),
        ("--chat-template", "none"),
    ),
    *(("--set", "tokenizer.ggml.tokens[5]=x"), ("--set", "llama.block_count=1"), ("--set", "x=arr:[1,2]")),
)
COMMANDS = (
    ("inspect", "{}"),
    ("inspect", "{}", "--json-array"),
    ("inspect", "{}", "--key", "*", "--tensor", "*"),
    ("inspect", "{}", "--tensor", "*", "--block", "1:0", "--bins", "7"),
    ("inspect", "{}", "--template"),
    ("inspect", "{}", "--json"),
    ("compare", "{}", "{whole}"),
    ("compare", "{whole}", "{}", "--json"),
    ("verify", "{}"),
    ("verify", "{}", "--source", "{model}"),
    ("verify", "{}", "--write-sums", "sums.txt"),
    ("quantize", "--allow-requantize", "{}", "out.gguf", "Q8_0"),
    ("quantize", "{}", "out.gguf", "F32", "--allow-requantize"),
    ("quantize", "--allow-requantize", "{}", "out.gguf", "Q3_K_M", "--imatrix", "{imatrix}"),
    ("quantize", "{}", "out.gguf", "COPY", "--prune-layers", "0"),
    ("quantize", "{}", "-t", "Q8_0", "-o", "out.gguf", "--keep-split"),
    ("dequantize", "{}", "-o", "out.gguf"),
    ("dequantize", "{}", "-o", "out", "--safetensors"),
    ("dequantize", "{}", "-t", "F16", "-o", "out.gguf", "--split-max-size", "50K"),
    ("split", "{}", "parts", "--split-max-tensors", "2"),
    ("split", "{}", "parts", "--split-max-size", "40K"),
    ("merge", "{}", "out.gguf"),
    ("report", "{}"),
    ("report", "{}", "--source", "{model}"),
    ("report", "{}", "--json"),
    ("types", "{}", "--fit", "1G", "--context", "99999999"),
    ("types", "{}", "-t", "all", "--json"),
    ("imatrix", "show", "{}"),
    ("plan", "{}", "-t", "all", "--allow-requantize", "--summary"),
    ("plan", "{}", "-t", "Q8_0", "--override-kv", "llama.block_count=int:0", "--force", "--allow-requantize"),
)


@cache
def _seeds() -> list[tuple[bytes, list[tuple[int, int]]]]:
    files = [seeds._made / f"{kind}.gguf" for kind in ("Q4_0", "F16")]
    return [(file.read_bytes(), fields_of(file)) for file in files]


@cache
def _parts() -> list[tuple[str, bytes, list[tuple[int, int]]]]:
    from gguf_forge.cli import main

    folder = seeds._made / "parts"
    if not folder.exists():
        folder.mkdir()
        main(["split", str(seeds._made / "F16.gguf"), str(folder / "p"), "--split-max-tensors", "5", "-q"])
    return [(file.name, file.read_bytes(), _fields(file)) for file in sorted(folder.glob("*.gguf"))]


def _fields(file: Path) -> list[tuple[int, int]]:
    with raw_gguf.recorded_fields() as found:
        try:
            fields_of(file)
        except Exception:
            return found or [(8, 8)]
    return found or [(8, 8)]


def _line(path: Path, folder: Path, source: Random) -> list[str]:
    words = source.choice(COMMANDS)
    if source.random() < 0.25:
        words = ("edit", "{}", "-o", "out.gguf")
        for change in source.sample(CHANGES, source.randint(1, 3)):
            words += change
        words += ("--force",) * (source.random() < 0.5)
    model = seeds.checkpoint(folder, "source") if "{model}" in words else folder
    whole = seeds.gguf(folder, source, "whole.gguf") if "{whole}" in words else folder
    if "{imatrix}" in words:
        (folder / "im.gguf").write_bytes(_imatrix(False))
    values = {"{}": path, "{model}": model, "{whole}": whole, "{imatrix}": folder / "im.gguf"}
    return [str(values.get(word, word)) for word in words]


def damaged(source: Random, folder: Path) -> list[str]:
    """A GGUF file with damage in its numbers, or with a piece cut, doubled or moved."""
    path = folder / "model.gguf"
    path.write_bytes(mutated(*source.choice(_seeds()), source))
    return _line(path, folder, source)


def blocks(source: Random, folder: Path) -> list[str]:
    """A lawful GGUF file whose tensors hold random bytes: infinite and absent numbers, every invalid block."""
    raw, _ = source.choice(_seeds())
    data = bytearray(raw)
    for _ in range(source.randint(1, 30)):
        at = source.randrange(len(data) // 3, len(data))
        piece = source.choice((b"\xff" * 64, source.randbytes(300), b"\x00\x7c" * 40, b"\x7f\x80" * 40, b"\0" * 500))
        data[at : at + len(piece)] = piece[: len(data) - at]
    path = folder / "model.gguf"
    path.write_bytes(data)
    return _line(path, folder, source)


def built(source: Random, folder: Path) -> list[str]:
    """A file put together from fields: any types, shapes, offsets and values of standard keys."""
    architecture = source.choice(
        (b"llama", b"qwen3moe", b"clip", b"mamba", b"", b"a" * 300, nasty(source).encode(errors="replace"))
    )
    keys = [raw_gguf.key(b"general.architecture", raw_gguf.STRING, raw_gguf.text(architecture))]
    names = (
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "expert_count",
        "attention.head_count_kv",
        "attention.key_length",
        "rope.dimension_count",
        "vocab_size",
        "ssm.state_size",
    )
    general = (b"general.alignment", b"general.file_type", b"general.quantization_version", b"split.count", b"split.no")
    full = [architecture + b"." + name.encode() for name in names]
    for name in source.sample([*full, *general], source.randint(3, 12)):
        number = source.choice((0, 1, 2, 3, 7, 32, 96, 1000, 2**31, 2**32 - 1))
        if source.random() < 0.7:
            keys.append(raw_gguf.u32_key(name, number))
        else:
            keys.append(_any_key(name, source))
    vocabulary = source.choice((0, 1, 300, 5000))
    tokens = b"".join(raw_gguf.text(b"t%d" % at) for at in range(vocabulary))
    if source.random() < 0.5:
        array = struct.pack("<IQ", raw_gguf.STRING, vocabulary) + tokens
        keys.append(raw_gguf.key(b"tokenizer.ggml.tokens", raw_gguf.ARRAY, array))
        keys.append(
            _any_key(
                source.choice((b"tokenizer.ggml.token_type", b"tokenizer.ggml.scores", b"tokenizer.chat_template")),
                source,
            )
        )
    tensors, at = [], 0
    count = source.choice((1, 3, 10, 3000))
    stems = (
        "blk.%d.attn_q.weight",
        "blk.%d.ffn_gate_exps.weight",
        "token_embd.weight",
        "output.weight",
        "x%d",
        "blk.%d.ssm_a",
    )
    for number in range(count):
        stem = source.choice(stems)
        name = stem % number if "%d" in stem else stem
        shape = source.choice(
            ((32,), (96, 96), (256, 2), (0,), (1,), (64, 3, 2), (2**31, 2), (2**40,), (32, 0), (33, 2))
        )
        kind = source.choice((0, 1, 2, 8, 12, 14, 30, 39, 41, 4, 36, 99))
        tensors.append(
            raw_gguf.RawTensor(
                name.encode()[:64], shape, kind, at if source.random() < 0.95 else source.choice((1, 2**40, 0))
            )
        )
        nbytes = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        at += -(-min(nbytes, 1 << 16) // 32) * 32
    path = folder / "model.gguf"
    path.write_bytes(raw_gguf.raw_gguf(keys, tensors, b"<" * min(at, 1 << 20)))
    return _line(path, folder, source)


def _any_key(name: bytes, source: Random) -> bytes:
    kind = source.randrange(14)
    if kind == 8:
        return raw_gguf.key(name, kind, raw_gguf.text(nasty(source).encode(errors="replace")))
    if kind == 9:
        inner = source.choice((0, 4, 5, 6, 7, 8, 9, 10))
        size = {0: 1, 7: 1, 10: 8}.get(inner, 4)
        count = source.choice((0, 1, 96, 300))
        items = raw_gguf.text(b"{{ x }}") * count if inner == 8 else source.randbytes(size * count)
        return raw_gguf.key(name, kind, struct.pack("<IQ", inner, count) + items)
    return raw_gguf.key(name, kind, source.randbytes({0: 1, 1: 1, 7: 1, 2: 2, 3: 2, 10: 8, 11: 8, 12: 8}.get(kind, 4)))


def parts(source: Random, folder: Path) -> list[str]:
    """A split file some of whose parts are damaged, missing, doubled or of another split."""
    held = _parts()
    for name, raw, fields in held:
        kind = source.random()
        if kind < 0.25:
            (folder / name).write_bytes(mutated(raw, fields, source))
        elif kind < 0.3:
            (folder / name).write_bytes(source.choice(held)[1])
        elif kind > 0.35:
            (folder / name).write_bytes(raw)
    first = folder / source.choice(held)[0]
    return _line(first, folder, source)


@cache
def _imatrix(legacy: bool) -> bytes:
    file = imatrices.write_for_model(seeds._made / "F16.gguf")
    return (file.with_suffix(".dat") if legacy else file).read_bytes()


def importance(source: Random, folder: Path) -> list[str]:
    """An imatrix file of either format with damage, read by all that read one."""
    legacy = source.random() < 0.5
    raw = _imatrix(legacy)
    path = folder / source.choice(("imatrix.dat", "imatrix.gguf"))
    if legacy:
        fields = [(0, 4), (4, 4), *((at, 4) for at in range(8, 400, 4)), (len(raw) - 23, 4)]
    else:
        original = folder / "original"
        original.write_bytes(raw)
        fields = fields_of(original)
        original.unlink()
    raw = mutated(raw, fields, source) if source.random() < 0.8 else raw
    if source.random() < 0.5:
        at = source.randrange(len(raw) // 2, len(raw) or 1) if raw else 0
        raw = raw[:at] + source.choice((b"\xff" * 64, b"\0\0\x80\x7f" * 9, b"\0\0\x80\xff" * 9)) + raw[at:]
    path.write_bytes(raw)
    model = seeds.gguf(folder, source) if source.random() < 0.5 else seeds.checkpoint(folder)
    given = str(model)
    return source.choice(
        (
            ["imatrix", "show", str(path)],
            ["imatrix", "show", str(path), "--json"],
            ["convert", given, "-t", "IQ2_XS", "--imatrix", str(path), "-o", "out.gguf", "--allow-requantize"],
            ["plan", given, "-t", "IQ3_S", "--imatrix", str(path), "--allow-requantize"],
            ["types", given, "--imatrix", str(path), "-t", "Q4_K_M,IQ2_M"],
            ["plan", given, "-t", "Q4_0", "--imatrix", str(path), "--include-weights", "attn", "--allow-requantize"],
            ["inspect", str(path)],
        )
    )


def overrides(source: Random, folder: Path) -> list[str]:
    """Values of --override-kv and --set, for lawful and unlawful keys."""
    keys = (
        "general.architecture",
        "general.name",
        "llama.block_count",
        "llama.context_length",
        "general.alignment",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.eos_token_id",
        "tokenizer.chat_template",
        "general.file_type",
        "x.y",
        "tokenizer.ggml.add_bos_token",
        "llama.rope.freq_base",
        "split.count",
        "general.tags",
        nasty(source),
        "",
        "llama.attention.head_count",
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens[3]",
        "tokenizer.ggml.tokens[99999999999]",
    )
    values = (
        "int:1",
        "int:0",
        "int:-1",
        f"int:{2**31}",
        f"int:{2**64}",
        f"int:{'9' * 5000}",
        "float:nan",
        "float:1e400",
        "bool:maybe",
        "bool:true",
        "str:",
        f"str:{'x' * 3000}",
        "str:{{ x",
        "str:\x1b[2J",
        "u8:256",
        "arr:[1,2]",
        f"arr:{'[' * 2000}",
        "json:{}",
        "int:0x10",
        "",
        nasty(source),
        "arr[str]:a,b",
        "float:inf",
    )
    pairs = [f"{source.choice(keys)}={source.choice(values)}" for _ in range(source.randint(1, 3))]
    pairs = [pair.replace("\0", "").encode(errors="replace").decode() for pair in pairs]
    force = ["--force"] * (source.random() < 0.6)
    is_edit = source.random() < 0.5
    path = str(seeds.gguf(folder, source) if is_edit or source.random() < 0.5 else seeds.checkpoint(folder))
    if is_edit:
        return ["edit", path, "-o", "out.gguf", *(word for pair in pairs for word in ("--set", pair)), *force]
    words = [word for pair in pairs for word in ("--override-kv", pair)]
    return ["convert", path, "-t", "Q8_0", "--allow-requantize", "-o", "out.gguf", *words, *force]


GENERATORS = (damaged, blocks, built, parts, importance, overrides)
