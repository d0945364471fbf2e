"""Files of all families on their whole way: made, changed, stopped, sent on and read again by other commands."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import imatrices
import numpy as np
import seeds
import synthetic
from generators.models import _families, _line
from generators.several import _adapter
from generators.texts import changed

RARE = (
    *("attention.sliding_window", "attention.sliding_window_pattern", "attention.recurrent_layers"),
    *("attention.shared_kv_layers", "attention.key_length", "attention.key_length_swa", "full_attention_interval"),
    *("nextn_predict_layers", "attention.causal", "leading_dense_block_count", "expert_count"),
)
KINDS = ("Q8_0", "F16", "Q4_K_M", "auto")
ODD = (0, 1, -1, 2, 3, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, -1.0, 1e-45, 1e38, float("nan"), float("inf"), float("-inf"), 1e300, 0.5)
ON_FILES = (
    ("types", "{}", "--fit", "1G", "--context", "32k"),
    ("types", "{}", "--fit", "1M", "-t", "Q4_K_M,IQ2_M", "--json"),
    ("dequantize", "{}", "--safetensors", "-o", "out", "--config", "{model}"),
    ("dequantize", "{}", "--safetensors", "-o", "out"),
    ("dequantize", "{}", "-t", "BF16", "-o", "out.gguf"),
    ("quantize", "--allow-requantize", "{}", "out.gguf", "Q4_K_M", "--prune-layers", "0"),
    ("quantize", "--allow-requantize", "{}", "out.gguf", "Q3_K_M"),
    ("quantize", "--allow-requantize", "{}", "out.gguf", "IQ2_XS", "--imatrix", "{imatrix}"),
    ("quantize", "--allow-requantize", "{}", "out.gguf", "MXFP4_MOE"),
    ("quantize", "--allow-requantize", "--pure", "{}", "out.gguf", "TQ1_0"),
    ("verify", "{}", "--source", "{model}"),
    ("verify", "{}", "--source", "{whole}"),
    ("verify", "{}", "--check-tokens", "--source", "{model}"),
    ("report", "{}", "--source", "{model}"),
    ("report", "{}", "--source", "{whole}", "--json"),
    ("compare", "{}", "{whole}"),
    ("inspect", "{}", "--template"),
    ("inspect", "{}", "--json"),
    ("plan", "{}", "-t", "all", "--allow-requantize", "--summary"),
    ("edit", "{}", "-o", "out.gguf", "--special-token-by-id", "eos=1", "--token-type", "a=control"),
    ("edit", "{}", "-o", "out.gguf", "--pre-tokenizer", "llama-bpe", "--force"),
    ("split", "{}", "parts", "--split-max-size", "100K"),
    ("split", "{}", "parts", "--split-max-tensors", "1", "--no-tensor-first-split"),
    ("job", "plan", "{}", "-t", "Q5_K", "--allow-requantize", "--tasks", "3", "-o", "out.gguf"),
)
ON_FOLDERS = (
    ("convert", "{}", "-t", "Q4_K_M", "-o", "out.gguf", "--pre-tokenizer", "qwen2"),
    ("convert", "{}", "-t", "F16", "-o", "out.gguf"),
    ("convert", "{}", "--parts", "all", "-t", "Q8_0", "-o", "made/", "--pre-tokenizer", "qwen2"),
    ("convert", "{}", "--mmproj", "-t", "F16", "-o", "out.gguf"),
    ("convert", "{}", "--mtp", "-t", "Q8_0", "-o", "out.gguf"),
    ("convert", "{}", "-t", "Q2_K", "-o", "out.gguf", "--prune-layers", "0,1", "--pre-tokenizer", "qwen2"),
    ("convert", "{}", "-t", "Q8_0", "-o", "out.gguf", "--fuse-qkv", "--fuse-gate-up-exps"),
    ("convert", "{}", "-t", "auto", "-o", "out.gguf", "--bigendian"),
    ("convert", "{}", "-t", "Q8_0", "-o", "out.gguf", "--vocab-only", "--check-tokens"),
    ("plan", "{}", "--parts", "all", "--json"),
    ("plan", "{}", "--dspark", "--target-model-dir", "{}"),
    ("plan", "{}", "--base", "{}", "-v"),
    ("types", "{}", "--fit", "1G", "--context", "1M", "--pre-tokenizer", "qwen2"),
    ("types", "{}", "--mmproj", "--json"),
    ("job", "plan", "{}", "--parts", "all", "--tasks", "3", "-o", "made/", "--pre-tokenizer", "qwen2"),
)


def _quiet(words: list[str]) -> int:
    """The exit code of a command that prints nothing of its own."""
    from gguf_forge.cli import main

    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        return main([*words, "-q"])
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


@cache
def made(name: str, kind: str) -> tuple[Path, Path | None]:
    """The checkpoint of a family and its GGUF file, made once in a process; no file where it cannot be made."""
    described = synthetic.FAMILIES / name
    here = seeds._made / f"whole-{os.getpid()}"
    here.mkdir(exist_ok=True)
    model, file = here / name, here / f"{name}-{kind}.gguf"
    if not model.exists():
        synthetic.write_checkpoint(described, model)
    if not file.exists():
        asked = synthetic.read_description(described).pre_tokenizer
        words = ["--pre-tokenizer", asked] if asked else []
        if _quiet(["convert", str(model), "-t", kind, "-o", str(file), "--overwrite", *words]):
            return model, None
    return model, file


def _importance(file: Path, folder: Path) -> Path:
    return imatrices.write_for_model(Path(shutil.copyfile(file, folder / "whole.gguf")))


def any_made(source: Random) -> tuple[Path, Path]:
    while True:
        model, file = made(source.choice(_families()).name, source.choice(KINDS))
        if file is not None:
            return model, file


def _rewritten(file: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The file with other keys."""
    from gguf_forge.gguf_file.header import encode_header
    from gguf_forge.gguf_file.opened import open_gguf

    raw = file.read_bytes()
    with open_gguf(file) as gguf:
        keys, infos = dict(gguf.typed_metadata), [tensor.info for tensor in gguf.tensors]
        first = gguf.tensors[0].offset if gguf.tensors else len(raw)
        offsets = [tensor.offset - first for tensor in gguf.tensors]
        change(keys)
        target.write_bytes(encode_header(keys, infos, offsets, byte_order=gguf.byte_order) + raw[first:])


def _other_value(value: Any, source: Random) -> Any:
    """Another value of a key: of its type, of another type, or an array in place of a number."""
    from gguf_forge.gguf_file.values import Value, ValueType

    kinds = {
        ValueType.UINT8: (0, 255),
        ValueType.INT8: (-128, 127),
        ValueType.UINT16: (0, 2**16 - 1),
        ValueType.UINT32: (0, 2**32 - 1),
        ValueType.INT32: (-(2**31), 2**31 - 1),
        ValueType.UINT64: (0, 2**64 - 1),
        ValueType.INT64: (-(2**63), 2**63 - 1),
    }

    def one(kind: ValueType) -> Any:
        if kind in kinds:
            low, high = kinds[kind]
            return source.choice([each for each in (*ODD, low, high) if low <= each <= high])
        if kind in (ValueType.FLOAT32, ValueType.FLOAT64):
            found = source.choice(FLOATS)
            return np.float32(found) if kind == ValueType.FLOAT32 and abs(found) < 1e39 else min(found, 1e38)
        return source.random() < 0.5 if kind == ValueType.BOOL else source.choice(("", "x", "\u0663", "7", "none"))

    kind = value.type if source.random() < 0.5 else source.choice((*kinds, ValueType.FLOAT32, ValueType.STRING))
    if kind == ValueType.ARRAY or source.random() < 0.25:
        held = value.element if kind == ValueType.ARRAY else kind
        if kind == ValueType.ARRAY and source.random() < 0.6 and len(value.data):
            items = list(value.data)[: source.choice((None, 1, -1, len(value.data) // 2))]
            if held != ValueType.ARRAY:
                for at in source.sample(range(len(items)), min(len(items), source.choice((0, 1, 3)))):
                    items[at] = one(held)
            return Value(ValueType.ARRAY, tuple(items), held)
        held = source.choice((*kinds, ValueType.FLOAT32, ValueType.STRING, ValueType.BOOL))
        return Value(ValueType.ARRAY, tuple(one(held) for _ in range(source.choice((0, 1, 2, 3, 64, 5000)))), held)
    return Value(kind, one(kind))


def wrong_keys(source: Random, folder: Path) -> list[str]:
    """The file of any family with wrong numbers, types or arrays in its keys, for the commands that use them."""
    from gguf_forge.gguf_file.values import Value, ValueType

    model, file = any_made(source)
    target = folder / "model.gguf"

    def change(keys: dict[str, Any]) -> None:
        own = [key for key in keys if not key.startswith(("general.", "tokenizer."))]
        architecture = str(keys["general.architecture"].data)
        for key in source.sample(RARE, source.choice((0, 0, 1, 2))):
            keys.setdefault(f"{architecture}.{key}", Value(ValueType.UINT32, source.choice((1, 2, 4))))
            own.append(f"{architecture}.{key}")
        for _ in range(source.choice((1, 1, 2, 3))):
            key = source.choice(own if own and source.random() < 0.75 else list(keys))
            if key != "general.alignment" and key in keys:
                if source.random() < 0.1:
                    keys.pop(key)
                else:
                    keys[key] = _other_value(keys[key], source)

    with suppress(Exception):  # some values have no form in a file
        _rewritten(file, target, change)
    if not target.exists():
        shutil.copyfile(file, target)
    words = source.choice(ON_FILES[:2] if source.random() < 0.3 else ON_FILES)
    named = {"{}": str(target), "{whole}": str(file), "{model}": str(model)}
    if "{imatrix}" in words:
        named["{imatrix}"] = str(_importance(file, folder))
    return [named.get(word, word) for word in words]


def stopped(source: Random, folder: Path) -> list[str]:
    """A run with --resume that the disk's limit stopped, whose model, options or unfinished file then change."""
    name = source.choice(("mixtral", "qwen2", "gemma2", "llama2-spm", "gptoss-mxfp4", "jamba"))
    model, whole = made(name, "F16")
    here = folder.parent / "here"
    here.mkdir()
    copied = Path(shutil.copytree(model, folder / "model"))
    is_file = whole is not None and source.random() < 0.4
    given = str(shutil.copyfile(whole, folder / "model.gguf")) if is_file and whole else str(copied)
    asked = synthetic.read_description(synthetic.FAMILIES / name).pre_tokenizer
    pre = ["--pre-tokenizer", asked] if asked and not is_file else []
    kind = source.choice(("Q8_0", "Q4_K_M", "F16", "Q8_0,F16"))
    output = f"{here}/" if "," in kind else f"{here}/out.gguf"
    parts = source.choice(([], [], ["--split-max-tensors", "5"]))
    words = ["convert", given, "-o", output, "-j", "1", "--resume", *pre]
    first = [*words, "-t", kind, *parts]
    _limited(first, source.choice((1 << 12, 1 << 14, 1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20)))
    left = sorted(path for path in here.iterdir() if path.is_file())
    change = source.randrange(9)
    if change == 0 and left:
        file = source.choice(left)
        raw = bytearray(file.read_bytes())
        for _ in range(source.choice((1, 5))):
            if raw:
                raw[source.randrange(len(raw))] ^= 1 << source.randrange(8)
        file.write_bytes(raw)
    elif change == 1 and left:
        file = source.choice(left)
        os.truncate(file, source.choice((0, 1, file.stat().st_size // 2, file.stat().st_size + 100)))
    elif change == 2 and left:
        source.choice(left).unlink()
    elif change == 3 and len(left) > 1:
        one, two = source.sample(left, 2)
        raw, other = one.read_bytes(), two.read_bytes()
        one.write_bytes(other)
        two.write_bytes(raw)
    elif change == 4:
        with suppress(Exception):
            file = source.choice(sorted(copied.glob("*.json")))
            file.write_text(json.dumps(changed(json.loads(file.read_text()), source)))
    elif change == 5:
        parts = source.choice((["--split-max-tensors", "3"], ["--no-tensor-first-split"], ["--bigendian"], ["--pure"]))
    elif change == 6:
        kind = source.choice(("Q8_0", "F16", "Q6_K"))
    again = [*words, "-t", kind, *parts]
    if source.random() < 0.3:
        _limited(again, source.choice((1 << 15, 1 << 18)))
    return [word for word in again if word != "--resume" or source.random() < 0.9]


def _limited(words: list[str], largest: int) -> None:
    """A command in a child whose files may not grow beyond a size."""
    from gguf_forge.cli import main

    child = os.fork()
    if not child:
        code = 70
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
            code = main(words)
        finally:
            os._exit(code)
    os.waitpid(child, 0)


def adapter_files(source: Random, folder: Path) -> list[str]:
    """The GGUF file of an adapter with wrong keys, names or shapes, where a model or an adapter is expected."""
    base = seeds.checkpoint(folder, "base")
    adapter = _adapter(source, folder, "adapter", base)
    made = folder / "made.gguf"
    _quiet(["convert", str(adapter), "--base", str(base), "-t", source.choice(("F16", "F32")), "-o", str(made)])
    file, model = folder / "adapter.gguf", str(seeds.gguf(folder, source))
    if not made.exists():
        return ["plan", str(adapter), "--base", str(base)]

    def change(keys: dict[str, Any]) -> None:
        from gguf_forge.gguf_file.values import string

        for _ in range(source.choice((0, 1, 1, 2))):
            key = source.choice(
                (*keys, "adapter.lora.alpha", "adapter.type", "general.type", "adapter.alora.invocation_tokens")
            )
            if key in keys:
                keys[key] = _other_value(keys[key], source)
            else:
                keys[key] = string(source.choice(("", "lora", "control_vector", "model", "x")))

    with suppress(Exception):
        _rewritten(made, file, change)
    if not file.exists():
        shutil.copyfile(made, file)
    if source.random() < 0.4:
        raw = bytearray(file.read_bytes())
        for old, new in (
            (b".lora_a", b".lora_b"),
            (b".lora_b", b".lora_c"),
            (b"blk.0", b"blk.9"),
            (b"blk.0", b"blk.\xd9"),
        ):
            if source.random() < 0.3 and (at := raw.find(old)) >= 0:
                raw[at : at + len(old)] = new[: len(old)].ljust(len(old), b"x")
        file.write_bytes(raw)
    given = str(file)
    return source.choice(
        (
            ["dequantize", given, "--safetensors", "-o", "out", "--config", str(base)],
            ["dequantize", given, "--safetensors", "-o", "out"],
            ["dequantize", given, "-o", "out.gguf"],
            ["quantize", given, "out.gguf", "Q8_0", "--allow-requantize"],
            ["quantize", given, "out.gguf", "Q4_K_M", "--allow-requantize", "--prune-layers", "0"],
            ["verify", given, "--source", str(adapter), "--base", str(base)],
            ["verify", given],
            ["verify", model, "--source", given],
            ["report", given, "--source", str(adapter), "--base", str(base)],
            ["report", given],
            ["types", given, "--fit", "1G"],
            ["compare", given, model],
            ["convert", str(base), "--lora", given, "-o", "out.gguf"],
            ["quantize", model, "out.gguf", "Q8_0", "--imatrix", given, "--allow-requantize"],
            ["imatrix", "show", given],
            ["split", given, "parts", "--split-max-tensors", "1"],
            ["edit", given, "-o", "out.gguf", "--rename-tensor", "lora_a=lora_b"],
            ["convert", given, "-t", "F16", "-o", "out.gguf", "--base", str(base)],
            ["plan", given, "-t", "all", "--summary", "--allow-requantize"],
        )
    )


STEPS = (
    ("quantize", "--allow-requantize", "{}", "{out}", "Q4_K_M"),
    ("quantize", "--allow-requantize", "{}", "{out}", "Q8_0", "--prune-layers", "0"),
    ("quantize", "--allow-requantize", "{}", "{out}", "COPY"),
    ("quantize", "--allow-requantize", "{}", "{out}", "Q8_0", "--override-kv", "split.count=int:3", "--force"),
    ("quantize", "--allow-requantize", "{}", "{out}", "F16", "--split-max-tensors", "4"),
    ("quantize", "--allow-requantize", "{}", "{out}", "Q6_K", "--keep-split"),
    ("dequantize", "{}", "-o", "{out}"),
    ("dequantize", "{}", "-o", "{out}", "-t", "F16", "--split-max-size", "300K"),
    ("dequantize", "{}", "--safetensors", "-o", "{out}.d", "--config", "{model}"),
    ("edit", "{}", "-o", "{out}", "--drop-tensor", "attn_k|ffn_norm"),
    ("edit", "{}", "-o", "{out}", "--drop-tensor", ".*"),
    ("edit", "{}", "-o", "{out}", "--rename-tensor", "blk\\.0=blk.7", "--rename-tensor", "blk\\.1=blk.0"),
    ("edit", "{}", "-o", "{out}", "--rename-tensor", "attn_q=attn_v", "--rename-tensor", "attn_v=attn_q"),
    ("edit", "{}", "-o", "{out}", "--rename-tensor", "^=model."),
    ("edit", "{}", "-o", "{out}", "--rename-tensor", "token_embd=blk.999999999999999999999999"),
    ("edit", "{}", "-o", "{out}", "--remove", "tokenizer.*"),
    ("edit", "{}", "-o", "{out}", "--remove", "*", "--force"),
    ("edit", "{}", "-o", "{out}", "--set", "general.alignment=u32:8", "--force"),
    ("edit", "{}", "-o", "{out}", "--set", "general.alignment=u32:4096", "--force"),
    ("edit", "{}", "-o", "{out}", "--set", "general.architecture=str:qwen2", "--force"),
    ("edit", "{}", "-o", "{out}", "--set", "general.type=str:adapter", "--force"),
    ("edit", "{}", "-o", "{out}", "--set", "general.type=str:mmproj", "--force"),
    ("edit", "{}", "-o", "{out}", "--set", "split.count=u16:0", "--set", "split.no=u16:0", "--force"),
    ("edit", "{}", "-o", "{out}", "--set", "split.tensors.count=i32:-1", "--set", "split.no=u16:1", "--force"),
    ("split", "{}", "{stem}", "--split-max-tensors", "3"),
    ("split", "{}", "{stem}", "--split-max-size", "1K"),
    ("split", "{}", "{stem}", "--split-max-tensors", "1000", "--no-tensor-first-split"),
    ("merge", "{}", "{out}"),
    ("convert", "{}", "-t", "auto", "-o", "{out}", "--bigendian"),
)


def chains(source: Random, folder: Path) -> list[str]:
    """The file of any family after up to four lawful commands in a row, each of which reads what the last one made."""
    model, file = any_made(source)
    current = Path(shutil.copyfile(file, folder / "model.gguf"))
    if source.random() < 0.15:
        _quiet(["convert", str(model), "-t", "F16", "--bigendian", "-o", str(folder / "big.gguf")])
        current = folder / "big.gguf" if (folder / "big.gguf").exists() else current
    for step in range(source.choice((1, 2, 3, 4))):
        named = {"{}": str(current), "{model}": str(model), "{stem}": str(folder / f"s{step}")}
        output = folder / f"s{step}.gguf"
        words = [named.get(word, word.replace("{out}", str(output))) for word in source.choice(STEPS)]
        before = set(folder.iterdir())
        if _quiet(words) == 0 and (new := sorted(set(folder.iterdir()) - before)):
            current = new[0]
            if len(new) > 1 and source.random() < 0.3:
                gone = source.choice(new)
                gone.unlink() if gone.is_file() else shutil.rmtree(gone)
    if current.is_dir():
        return _line(current, source, ON_FOLDERS)
    words = list(
        source.choice(
            (
                *ON_FILES,
                *(tuple(w.replace("{out}", "out.gguf").replace("{stem}", "parts") for w in step) for step in STEPS),
            )
        )
    )
    if "{imatrix}" in words:
        words[words.index("{imatrix}")] = str(_importance(file, folder))
    named = {"{}": str(current), "{whole}": str(file), "{model}": str(model)}
    return [named.get(word, word) for word in words]


GENERATORS = (wrong_keys, stopped, adapter_files, chains)
