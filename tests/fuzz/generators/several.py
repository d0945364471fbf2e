"""Several inputs at once: adapters that disagree, parts with types of their own, sums, matrices and further files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import projectors
import raw_gguf
import seeds
import synthetic
from generators.models import _line, _other_shape, odd_numbers
from generators.texts import changed, nasty, strange

_Entry = tuple[np.ndarray, np.ndarray]
SCALES = ("", ":0", ":-1", ":1e38", ":1e-45", ":nan", ":inf", ":1e400", ":", "::", ":0x1", ":0.5:0.5", "=1", ":+2")
PART_TYPES = (
    "main:Q4_K_M",
    "mmproj:BF16",
    "mtp:Q8_0",
    "mmproj:Q4_0",
    "Q8_0,F16",
    "mtp:auto,main:all",
    "x:Q8_0",
    ":F16",
)
PARTS = (
    "all",
    "main",
    "mmproj",
    "mtp",
    "main,mmproj,mtp",
    "mmproj,mmproj",
    "",
    ",",
    "dspark",
    "../x",
    "ALL",
    "main, mtp",
)


@cache
def _whole(kind: str) -> Path:
    """A valid model with several parts, made once for a run."""
    place = seeds._made / kind
    if not place.exists():
        if kind == "all-parts":
            projectors.write_with_all_parts(place)
        else:
            synthetic.write_checkpoint(synthetic.FAMILIES / kind, place)
    return place


def _copied(kind: str, folder: Path) -> Path:
    import shutil

    return Path(shutil.copytree(_whole(kind), folder / "model"))


def _numbers(source: Random, *shape: int) -> np.ndarray:
    rows = np.asarray(np.random.default_rng(source.randrange(2**32)).normal(0, 0.05, shape), np.float32)
    if source.random() < 0.1:
        rows.flat[:: source.choice((1, 7, 50))] = source.choice((np.nan, np.inf, -np.inf, 3e38, 1e-45, 0))
    return rows


def _adapter(source: Random, folder: Path, name: str, base: Path) -> Path:
    """An adapter that fits the small model, but for what is changed in one place."""
    place = folder / name
    place.mkdir()
    rank = source.choice((1, 4, 8, 33))
    config: dict[str, Any] = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "base_model_name_or_path": str(base)}
    stem = "base_model.model.model."
    modules = source.sample([*(f"self_attn.{x}_proj" for x in "qkvo"), "mlp.gate_proj", "mlp.down_proj"], 3)
    patterns: dict[str, Any] = {}
    tensors: dict[str, np.ndarray] = {}
    for module in modules:
        own = source.choice((rank, rank, 2, 5))
        if own != rank:
            pattern = source.choice(
                (module, f"layers.0.{module}", f"^model.layers.0.{module}$", "(layers\\.\\d+\\.)" + module)
            )
            patterns[pattern] = own
        full = f"{stem}layers.0.{module}"
        tensors[f"{full}.lora_A.weight"] = _numbers(source, own, 96)
        tensors[f"{full}.lora_B.weight"] = _numbers(source, 96, own)
    if patterns:
        config["rank_pattern"] = patterns
    if source.random() < 0.3:
        config["alpha_pattern"] = {source.choice(modules): source.choice((1, 0.5, *odd_numbers()))}
    kind = source.randrange(6)
    if kind == 0:
        config["use_dora"] = True
        for module in modules:
            tensors[f"{stem}layers.0.{module}.lora_magnitude_vector"] = np.abs(_numbers(source, 96))
    elif kind == 1:
        config["modules_to_save"] = ["embed_tokens", "lm_head"]
        tensors[f"{stem}embed_tokens.weight"] = _numbers(source, source.choice((831, 831, 832, 830)), 96)
        tensors["base_model.model.lm_head.weight"] = _numbers(source, source.choice((831, 832)), 96)
    elif kind == 2:
        config["trainable_token_indices"] = source.choice(([0, 5], {"embed_tokens": [1]}, [0, 0], [-1], [10**9]))
        tensors[f"{stem}embed_tokens.token_adapter.trainable_tokens_delta"] = _numbers(source, 2, 96)
    elif kind == 3:
        tensors[f"{stem}embed_tokens.lora_embedding_A"] = _numbers(source, rank, 831)
        tensors[f"{stem}embed_tokens.lora_embedding_B"] = _numbers(source, 96, rank)
    flags = source.sample(("use_rslora", "fan_in_fan_out", "lora_bias"), source.choice((0, 0, 1)))
    config |= dict.fromkeys(flags, True)
    if source.random() < 0.3:
        name = source.choice(list(tensors))
        shape = [min(size, 4096) for size in _other_shape(list(tensors[name].shape), source)[:2]]
        tensors[name] = _numbers(source, *shape)
    if source.random() < 0.15:
        config = changed(config, source)
    held = {name: ("F32", list(rows.shape), rows.tobytes()) for name, rows in tensors.items() if rows.size < 1 << 22}
    synthetic.write_safetensors(place / "adapter_model.safetensors", held)
    (place / "adapter_config.json").write_text(json.dumps(config))
    if source.random() < 0.2:
        (place / source.choice(("tokenizer.json", "added_tokens.json", "README.md", "config.json"))).write_text(
            source.choice(("{}", '{"<x>": 300}', "---\nbase_model: x\n---\n", json.dumps({"architectures": ["X"]})))
        )
    return place


def merged_adapters(source: Random, folder: Path) -> list[str]:
    """One to four adapters of one model that mostly fit, and disagree in ranks, tokens or what they train."""
    base = seeds.checkpoint(folder, "base")
    count = source.choice((1, 2, 2, 3, 4))
    made = [_adapter(source, folder, f"adapter-{at}", base) for at in range(count)]
    if source.random() < 0.1:
        made.append(source.choice((made[0], base, folder, made[0] / "adapter_model.safetensors", Path("nowhere"))))
    given = [f"{place}{source.choice(SCALES) if source.random() < 0.1 else ':0.5'}" for place in made]
    words = [word for each in given for word in ("--lora", each)]
    file = seeds._made / "F16.gguf"
    commands = (
        ["convert", str(base), *words, "-t", source.choice(("F16", "Q8_0", "Q4_K_M")), "-o", "out.gguf"],
        ["plan", str(base), *words, "--json"],
        ["types", str(base), *words, "--fit", "1M"],
        ["verify", str(file), "--source", str(base), *words],
        ["report", str(file), "--source", str(base), *words],
        ["convert", str(made[0]), "--base", str(base), "-t", "F16", "-o", "out.gguf"],
        ["convert", str(made[0]), "--base-model-id", nasty(source).replace("\0", ""), "-o", "out.gguf"],
        ["job", "plan", str(base), *words, "--save-plan", "plan.json", "--tasks", "2", "-o", "out.gguf"],
    )
    return [word.encode(errors="replace").decode() for word in source.choice(commands)]


def parts_of_models(source: Random, folder: Path) -> list[str]:
    """A model with encoders, layers that predict further tokens or adapters, made as several files of several types."""
    kind = source.choice(("all-parts", "all-parts", "jina-embeddings-v5", "bailingmoe3-vl", "granite-switch"))
    model = _copied(kind, folder)
    if source.random() < 0.4:
        file = source.choice([path for path in sorted(model.rglob("*.json")) if path.stat().st_size < 100_000])
        value = changed(json.loads(file.read_text()), source)
        file.write_text(json.dumps(value))
    if source.random() < 0.3:
        weights = source.choice(sorted(model.rglob("*.safetensors")))
        raw = weights.read_bytes()
        begin = 8 + int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:begin])
        for name in source.sample(list(header), min(len(header), source.choice((1, 3)))):
            if source.random() < 0.5:
                header.pop(name)
            elif name != "__metadata__":
                header[name]["shape"] = header[name]["shape"][::-1]
        text = json.dumps(header).encode()
        weights.write_bytes(len(text).to_bytes(8, "little") + text + raw[begin:])
    words = [
        source.choice(("plan", "convert", "plan")),
        str(model),
        "--parts",
        source.choice(PARTS) if source.random() < 0.4 else "all",
    ]
    if kind == "all-parts" and source.random() < 0.9:
        words += ["--pre-tokenizer", "qwen2"]
    for _ in range(source.choice((0, 0, 1, 2))):
        words += ["-t", source.choice((*PART_TYPES, nasty(source).replace("\0", "")))]
    more = (["--no-mtp"], ["--split-max-tensors", "5"], ["--fuse-qkv"], ["--json"], ["--mmproj"], ["--vocab-only"])
    words += source.choice(([], [], [], [], [], *more))
    if source.random() < 0.4:
        name = source.choice(("o.gguf", "{part}.gguf", "x-{type}.gguf", "{}.gguf", "{0.__class__}", "%s", "a{", "sub"))
        words += ["-o", name]
    return [word.encode(errors="replace").decode() for word in words]


def sums(source: Random, folder: Path) -> list[str]:
    """Lists of checksums: absurd names, other digests, pointers of LFS, and very many lines."""
    path = seeds.gguf(folder, source)
    digest = source.choice(("0" * 64, "a" * 40, "b" * 32, "f" * 16, "0" * 63, "G" * 64))
    name = source.choice(
        (path.name, "/etc/passwd", "../model.gguf", nasty(source), f"{path.name}:blk.0.attn_q.weight", ":")
    )
    lines = (
        f"{digest}  {name}",
        f"{digest} *{name}",
        f"SHA256 ({name}) = {digest}",
        f"sha256  {digest}  {name}",
        f"sha256sum  {digest}  {name}",
        f"xxh64  {digest[:16]}  {name}",
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 10",
        digest,
        f"sha256  {digest}  {name}:{nasty(source)}",
        "a" * 5000 + f" {digest}  {name}",
        "(" * 3000 + f") = {digest}",
        "SHA256 (" + ")" * 3000 + " " * 3000 + f"= {digest}x",
        "\\" + f"{digest}  {name}",
    )
    count = source.choice((1, 1, 3, 3000, 100_000))
    text = source.choice(("\n", "\n", "\r\n", "\r", "\0")).join(source.choice(lines) for _ in range(min(count, 3000)))
    if count > 3000:
        text = (source.choice(lines) + "\n") * source.choice((count, 900_000))
        text = text[: (64 << 20) - 1]
    file = folder / "sums.txt"
    file.write_bytes(text.encode(errors="replace") + source.choice((b"", b"\xff", b"\n")))
    words = ["verify", str(path), "--check-sums", str(file)]
    return [*words, *source.choice(([], ["--json"], ["--all"], ["--only-tensors"]))]


def _matrix(source: Random) -> dict[str, _Entry]:
    odd = source.choice((0, 0, 0.1, 0.3))  # of the entries
    names = [f"blk.0.{part}.weight" for part in ("attn_q", "attn_k", "attn_v", "ffn_up", "ffn_down")]
    entries: dict[str, _Entry] = {}
    for name in names:
        if source.random() < odd:
            strange_names = (nasty(source).replace("\0", ""), "", f"{name}.in_sum2", "blk.0", "x" * 1000, f"{name} ")
            name = source.choice(strange_names).encode(errors="replace").decode()
        columns, experts = (96, 1) if source.random() >= odd else source.choice(((95, 1), (0, 1), (96, 0), (96, 3)))
        rows = np.abs(_numbers(source, experts, columns))
        if source.random() < odd:
            rows[...] = source.choice((-1, np.nan, np.inf, 1e-45, 0, 3e38))
        said = 100 if source.random() >= odd else source.choice((0, -1, np.nan, np.inf, 0.5, 2**31))
        counts = np.full(max(experts, 1), said, np.float32)
        entries[name] = rows, counts
    return entries


def _write_matrix(path: Path, source: Random) -> None:
    """Writes a matrix with strange entries in the format of the path's ending."""
    entries = _matrix(source)
    dataset = nasty(source).replace("\0", "").encode(errors="replace")
    if path.suffix == ".dat":
        numbers = (0, 12, -1, 2**31 - 1)
        content = struct.pack("<i", len(entries))
        for name, (rows, _) in entries.items():
            content += struct.pack("<i", len(name.encode())) + name.encode()
            content += struct.pack("<ii", source.choice((100, *numbers)), rows.size) + rows.tobytes()
        path.write_bytes(content + struct.pack("<ii", source.choice(numbers), len(dataset)) + dataset)
        return
    count = source.choice((struct.pack("<I", 12), struct.pack("<I", 2**32 - 1)))
    keys = [
        raw_gguf.key(b"general.type", raw_gguf.STRING, raw_gguf.text(b"imatrix")),
        raw_gguf.key(b"imatrix.datasets", raw_gguf.ARRAY, struct.pack("<IQ", 8, 1) + raw_gguf.text(dataset)),
        raw_gguf.key(b"imatrix.chunk_count", raw_gguf.U32, count),
        raw_gguf.key(b"imatrix.chunk_size", raw_gguf.U32, count),
    ]
    tensors, data = [], b""
    for name, (rows, counts) in entries.items():
        for end, held in ((".in_sum2", rows), (".counts", counts.reshape(-1, 1))):
            tensors.append(raw_gguf.RawTensor((name + end).encode(), held.shape[::-1], 0, len(data)))
            data += held.tobytes() + bytes(-held.nbytes % 32)
    path.write_bytes(raw_gguf.raw_gguf(keys[source.choice((0, 0, 0, 1)) :], tensors, data))


def matrices(source: Random, folder: Path) -> list[str]:
    """An importance matrix, well formed, with strange names, sums, counts and data sets."""
    path = folder / source.choice(("m.dat", "m.gguf"))
    _write_matrix(path, source)
    model = seeds.gguf(folder, source) if source.random() < 0.5 else seeds.checkpoint(folder)
    words = source.choice(
        (
            ("imatrix", "show", str(path), "--json"),
            ("imatrix", "show", str(path)),
            ("convert", "{}", "-t", "IQ2_XS", "--imatrix", str(path), "-o", "out.gguf", "--allow-requantize"),
            ("convert", "{}", "-t", "Q4_0", "--imatrix", str(path), "-o", "out.gguf", "--allow-requantize"),
            ("plan", "{}", "-t", "all", "--imatrix", str(path), "--uncovered-type", "Q8_0", "--allow-requantize"),
            ("types", "{}", "--imatrix", str(path), "-t", "Q4_K_M,IQ2_M", "--fit", "1M"),
            ("inspect", str(path), "--tensor", "*"),
            ("report", str(path)),
        )
    )
    return [str(model) if word == "{}" else word for word in words]


def files_of_options(source: Random, folder: Path) -> list[str]:
    """Files that options name: metadata, types of tensors, values of keys, templates, configs and texts to tokenize."""
    file = folder / source.choice(("given.json", "given.txt", "given.jinja", "config.json", "given"))
    size = source.choice((1, 100, 30_000, 300_000))
    contents: tuple[Callable[[], str], ...] = (
        lambda: json.dumps(strange(source)),
        lambda: json.dumps({nasty(source): strange(source) for _ in range(min(size, 100))}),
        lambda: json.dumps({f"general.k{at}": source.choice(("x", 1, [1, 2])) for at in range(size)}),
        lambda: json.dumps({"chat_template": source.choice((nasty(source), [{"name": "a", "template": "x"}] * size))}),
        lambda: "\n".join(f"blk.{at}.*=q8_0" for at in range(size)),
        lambda: "attn=q4_0," * size,
        lambda: f"{nasty(source)}=q8_0\n" * min(size, 100),
        lambda: "=" * size,
        lambda: nasty(source) * min(size, 100),
        lambda: "a\n" * size,
        lambda: "{% for a in b %}" * min(size, 3000),
    )
    file.write_bytes(source.choice(contents)().encode(errors="replace"))
    model, gguf = str(seeds.checkpoint(folder)), str(seeds.gguf(folder, source))
    given = str(file)
    return source.choice(
        (
            ["plan", model, "--metadata", given, "-v"],
            ["convert", model, "--metadata", given, "-t", "Q8_0", "-o", "out.gguf"],
            ["plan", model, "--tensor-type-file", given],
            ["plan", model, "-t", "Q8_0", "--token-texts", given],
            ["convert", model, "-t", "Q8_0", "-o", "out.gguf", "--check-tokens", "--token-texts", given],
            ["verify", gguf, "--source", model, "--check-tokens", "--token-texts", given],
            ["edit", gguf, "-o", "out.gguf", "--chat-template", given],
            ["edit", gguf, "-o", "out.gguf", "--set", f"general.x=[str]:@{given}"],
            ["edit", gguf, "-o", "out.gguf", "--set", f"tokenizer.ggml.scores=@{given}", "--force"],
            ["edit", gguf, "-o", "out.gguf", "--set", f"general.name=str:@{given}"],
            ["dequantize", gguf, "--safetensors", "-o", "out", "--config", given],
            ["dequantize", gguf, "--safetensors", "-o", "out", "--config", str(folder)],
        )
    )


def forms(source: Random, folder: Path) -> list[str]:
    """Two models that are not the same kind of thing, given to commands that look at both."""
    family = source.choice(
        ("bert", "jamba", "t5-encoder", "qwen3vl", "wavtokenizer", "rwkv7", "gptoss-mxfp4", "mixtral")
    )
    known = [family] if (synthetic.FAMILIES / family / "checkpoint.json").exists() else ["mixtral"]
    other = _copied(known[0], folder)
    if source.random() < 0.5:
        _change_one(other, source)
    file = seeds.gguf(folder, source)
    imatrix = folder / "m.gguf"
    _write_matrix(imatrix, source)
    commands = (
        ("verify", str(file), "--source", "{}"),
        ("report", str(file), "--source", "{}"),
        ("compare", str(file), str(imatrix)),
        ("compare", str(imatrix), str(file), "--json", "--all"),
        ("dequantize", str(file), "--safetensors", "--config", "{}", "-o", "out"),
        ("types", "{}", "--fit", source.choice(("1", "1K", "10M", "999999999999T")), "--context", "1M"),
        ("plan", "{}", "-t", "auto", "--target-model-dir", str(folder)),
        ("convert", "{}", "-t", "Q4_K_M", "-o", "out.gguf", "--base", str(other)),
    )
    return _line(other, source, commands)


def _change_one(model: Path, source: Random) -> None:
    file = source.choice([path for path in sorted(model.rglob("*.json")) if path.stat().st_size < 100_000])
    file.write_text(json.dumps(changed(json.loads(file.read_text()), source)))


GENERATORS = (merged_adapters, parts_of_models, sums, matrices, files_of_options, forms)
