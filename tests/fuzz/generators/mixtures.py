"""Models of two kinds at once: one family's weights with another's config, names, tokenizer or scheme."""

from __future__ import annotations

import json
import shutil
import struct
import unicodedata
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import sentencepiece_models as pieces
import synthetic
from generators.models import BITS, _families, _line, _same, family, write_header
from generators.quantized import COMMANDS as QUANTIZED
from generators.stored import _formats
from generators.texts import nasty
from generators.whole_way import ON_FOLDERS, made


def crossed(source: Random, folder: Path) -> list[str]:
    """A family's weights beside the config, class, tokenizer or other small files of another family."""
    model = family(source, folder)
    described = source.choice(_families())
    others = synthetic.read_description(described).small_files(described)
    kind = source.randrange(4)
    if kind == 0:
        for name, file in others.items():
            if source.random() < 0.5:
                (model / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(file, model / name)
    elif kind == 1:
        for name, file in others.items():
            if "token" in name.name or "vocab" in name.name or name.suffix in (".model", ".txt"):
                (model / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(file, model / name)
    elif (model / "config.json").exists() and Path("config.json") in others:
        mine = json.loads((model / "config.json").read_text())
        theirs = json.loads(others[Path("config.json")].read_text())
        if kind == 2:
            names = ("architectures", "model_type")
            mine |= {key: theirs[key] for key in names if key in theirs and source.random() < 0.8}
        else:
            mine = {**theirs, **mine} if source.random() < 0.5 else {**mine, **theirs}
            for key in source.sample(list(mine), min(3, len(mine))):
                mine[key] = theirs.get(key, mine[key])
        (model / "config.json").write_text(json.dumps(mine))
    return _line(model, source, ON_FOLDERS)


INSIDE = ("text_config", "llm_config", "language_config", "thinker_config", "vision_config", "audio_config", "decoder")
SYNONYMS = {
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "hidden_size": ("n_embd", "d_model", "dim"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "intermediate_size": ("n_inner", "ffn_dim", "hidden_dim"),
    "num_key_value_heads": ("n_kv_heads", "num_kv_heads"),
    "num_experts": ("num_local_experts", "n_routed_experts", "num_experts_per_tok"),
    "rope_theta": ("rope_parameters", "rope_scaling"),
    "max_position_embeddings": ("n_positions", "max_seq_len", "seq_length"),
}


def nested(source: Random, folder: Path) -> list[str]:
    """A family's config some of whose keys stand a level higher or lower, twice with two values, or by other names."""
    model = family(source, folder)
    file = model / "config.json"
    config = json.loads(file.read_text()) if file.exists() else {}
    for _ in range(source.choice((1, 1, 2, 3))):
        levels = [key for key, value in config.items() if isinstance(value, dict)]
        kind = source.randrange(8)
        name = source.choice((*levels, *INSIDE))
        part = config[name] if isinstance(config.get(name), dict) else {}
        keys = list(config)
        if kind == 0 and keys:  # down
            taken = source.sample(keys, source.randint(1, len(keys)))
            config[name] = {**part, **{key: config.pop(key) for key in taken if key != name}}
        elif kind == 1 and part:  # up
            for key in source.sample(list(part), source.randint(1, len(part))):
                config[key] = part.pop(key)
        elif kind == 2:
            config = {
                "architectures": config.get("architectures"),
                "model_type": config.get("model_type"),
                name: config,
            }
        elif kind == 3:
            config = json.loads(json.dumps(config))
            config[name] = source.choice(([], "x", None, 1, [{**config}], {name: {**config}}, {**config}, {}))
        elif kind == 4:
            for key, names in SYNONYMS.items():
                if key in config:
                    value = config[key] if source.random() < 0.5 else config.pop(key)
                    config[source.choice(names)] = source.choice((value, 1, 0, None, [value], {"rope_theta": value}))
        elif kind == 5 and keys:
            key = source.choice(keys)
            value = config[key]
            lists: tuple[Any, ...] = ([value], [value] * 2, [value] * 100, {"0": value}, {"default": value}, str(value))
            config[key] = source.choice(lists)
        elif kind == 6 and part and isinstance(part, dict):
            numbers = [key for key, value in part.items() if type(value) is int]
            for key in source.sample(numbers, min(2, len(numbers))):
                config[key] = part[key] + source.choice((0, 1, -1))
        elif kind == 7:
            deep: Any = config
            for _ in range(source.choice((3, 60, 900))):
                deep = {"text_config": deep}
            config = deep
    with suppress(RecursionError, ValueError):  # a part that holds itself
        file.write_text(json.dumps(config))
    return _line(model, source, ON_FOLDERS)


DTYPES = (
    *("U16", "U32", "U64", "C64", "C128", "F6_E2M3", "F6_E3M2", "F4", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"),
    *("BOOL", "I8", "I16", "I64", "F64", "f32", "float32", "E8M0", ""),
)
WIDTHS = {**BITS, "U16": 16, "U64": 64, "C64": 64, "C128": 128, "F6_E2M3": 6, "F6_E3M2": 6}
DIGITS = ("\u0660", "\uff10", "\u00b2", "\u2160", "00", "0_0", "+0", " 0", "0.0", "1e0", "0x0", "\U0001d7d8", "-0")
STEMS = (
    *("model.{}", "language_model.{}", "language_model.model.{}", "model.language_model.{}", "transformer.{}"),
    *("{}.{}", "base_model.model.{}", "_orig_mod.{}", "module.{}", "{}._extra_state", "{} ", "{}\u0301", "{}.0"),
)


def odd_tensors(source: Random, folder: Path) -> list[str]:
    """A family's tensors of rare types, without items, by names in other digits or forms, or twice by two names."""
    model = family(source, folder)
    held: dict[str, tuple[str, list[int]]] = {}
    path = source.choice(sorted(model.rglob("*.safetensors")))
    raw = path.read_bytes()
    for name, entry in json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")]).items():
        if name != "__metadata__":
            held[name] = (entry["dtype"], entry["shape"])
    for name in source.sample(list(held), min(len(held), source.choice((1, 1, 2, 4)))):
        dtype, shape = held[name]
        kind = source.randrange(7)
        if kind == 0:
            dtype = source.choice(DTYPES)
        elif kind == 1:
            shape = source.choice(([0], [0, *shape], [*shape[:-1], 0], [0] * 4, [1, 0, 1], [*shape, 0, 2**40]))
        elif kind in (2, 3):
            numbers = [part for part in name.split(".") if part.isdecimal()] or ["0"]
            number = source.choice(numbers)
            held[name.replace(f".{number}.", f".{source.choice(DIGITS)}.", 1)] = (dtype, shape)
            if kind == 2:
                held.pop(name)
            continue
        elif kind == 4:
            short = name.removeprefix("model.") if source.random() < 0.5 else name
            held[source.choice(STEMS).replace("{}", short, 1).replace("{}", "x")] = (dtype, shape)
            continue
        elif kind == 5:
            form = source.choice((str.upper, str.title, str.swapcase, lambda text: unicodedata.normalize("NFD", text)))
            held[form(name)] = held.pop(name) if source.random() < 0.5 else (dtype, shape)
            continue
        else:
            other = source.choice(list(held))
            held[name], held[other] = held[other], (dtype, shape)
            continue
        held[name] = (dtype, shape)
    write_header(path, held, _same, bits=WIDTHS, ensure_ascii=source.random() < 0.5)
    return _line(model, source, ON_FOLDERS)


def _spm(source: Random) -> bytes:
    """A SentencePiece model of 300 pieces with rare fields, scores, types and orders."""

    def number(value: int) -> bytes:
        return pieces.varint(value & (2**64 - 1))

    texts = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % at for at in range(256)), *(b"w%d" % at for at in range(41))]
    made = []
    odd = source.choice((0, 0, 0.02, 0.2))
    for at, text in enumerate(texts):
        kind = {0: 2, 1: 3, 2: 3}.get(at, 6 if at < 259 else 1)
        score = float(-at)
        if source.random() < odd:
            kind = source.choice((1, 3, 4, 5, 6))
            score = source.choice((float("nan"), float("inf"), -0.0, 3e38, 1e-45))
            text = source.choice((text, text, b"\xe2\x96\x81", b"<0xGG>", b"<0x41>", b"\n", b"\0", b"<pad>", b" "))
        fields = [
            b"\x0a" + number(len(text)) + text,
            b"\x15" + struct.pack("<f", score),
            b"\x18" + number(kind),
        ]
        if source.random() < odd:
            fields.append(
                source.choice((b"\x0a\x01z", b"\x15" + bytes(4), b"\x18\x01", b"\xf8\x7f\x05", b"\x21" + bytes(8)))
            )
            source.shuffle(fields)
        made.append(pieces.field(0x0A, b"".join(fields)))
    kind = source.choice((1, 2, 2, 2, 2, 3, 4))
    trainer = b"\x18" + number(kind) + b"\x20" + number(source.choice((300, 0, 2**31, -1)))
    trainer += source.choice((b"", b"\xc8\x02" + number(source.choice((0, 5, 299, 10**6, -1)))))
    trainer += source.choice((b"", b"\x18" + number(source.choice((1, 2, 9, 2**63)))))
    charsmap = source.choice(
        (b"", b"", b"\0\0\0\0", source.randbytes(64), struct.pack("<I", 2**31) + b"x", b"\x10\0\0\0" + b"\xff" * 40)
    )
    normalizer = pieces.field(0x12, charsmap) + source.choice(
        (b"", b"\x18\0", b"\x18\xff\xff\x03", b"\x20\0", b"\x28\0")
    )
    parts = [*made, pieces.field(0x12, trainer), pieces.field(0x1A, normalizer)]
    kind = source.randrange(8)
    if kind == 0:
        parts.append(pieces.field(0x12, b"\x18\x01"))
    elif kind == 1:
        parts.insert(0, pieces.field(0x1A, b"\x12\0"))
    elif kind == 2:
        parts.append(source.choice((b"\x22\x02\x0a\x00", b"\xfa\x7f\x03abc", b"\x08\x05", b"\x0b\x0c", b"\0\0")))
    elif kind == 3:
        source.shuffle(made)
        parts = [*made, *parts[-2:]]
    return b"".join(parts)


def spm_folders(source: Random, folder: Path) -> list[str]:
    """A SentencePiece model built from its fields, beside tokenizer files and sizes that say something else."""
    names = ("llama2-spm", "gemma2", "gemma3-text", "mistral", "orion", "xverse", "baichuan", "t5-encoder", "plamo3")
    found = [name for name in names if (synthetic.FAMILIES / name / "checkpoint.json").exists()]
    described = synthetic.FAMILIES / source.choice(found)
    model = folder / "model"
    synthetic.write_checkpoint(described, model)
    keep = source.random() < 0.4
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        if not keep:
            (model / name).unlink(missing_ok=True)
    name = source.choice(
        ("tokenizer.model", "tokenizer.model", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
    )
    (model / name).write_bytes(_spm(source))
    file = model / "config.json"
    config = json.loads(file.read_text())
    if source.random() < 0.5:
        config["vocab_size"] = source.choice((300, 301, 299, 320, 258))
        file.write_text(json.dumps(config))
    settings = model / "tokenizer_config.json"
    values = json.loads(settings.read_text()) if settings.exists() else {}
    if source.random() < 0.6:
        values["tokenizer_class"] = source.choice(
            (
                *("LlamaTokenizer", "GPT2Tokenizer", "BertTokenizer", "T5Tokenizer", "XLMRobertaTokenizer", "X"),
                None,
                [],
                1,
            )
        )
    if source.random() < 0.4:
        values["legacy"] = source.choice((True, False, None, "x"))
        values["add_prefix_space"] = source.choice((True, False, None, 7))
    if source.random() < 0.3:
        tokens = {
            str(source.choice((0, 5, 299, 300, 301, 400))): {
                "content": source.choice(("w1", "", "<x>", "\u2581", nasty(source)))
            }
            for _ in range(3)
        }
        values["added_tokens_decoder"] = tokens
    settings.write_text(json.dumps(values))
    return _line(
        model,
        source,
        (
            ("convert", "{}", "-t", "Q8_0", "-o", "out.gguf"),
            ("convert", "{}", "-t", "F16", "-o", "out.gguf", "--vocab-only"),
            ("convert", "{}", "-t", "F16", "-o", "out.gguf", "--vocab-only", "--check-tokens"),
            ("plan", "{}", "-v"),
        ),
    )


def stored_families(source: Random, folder: Path) -> list[str]:
    """A family's matrices as a scheme of quantization stores them: experts, fused and transposed ones, too."""
    model, _ = made(source.choice(_families()).name, "F16")
    copied = Path(shutil.copytree(model, folder / "model"))
    config, make = _formats(source)
    share, every = source.choice((1.0, 1.0, 0.5)), source.random() < 0.5
    for path in sorted(copied.rglob("*.safetensors")):
        raw = path.read_bytes()
        begin = 8 + int.from_bytes(raw[:8], "little")
        kinds = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
        held: dict[str, tuple[str, list[int], bytes]] = {}
        for name, entry in json.loads(raw[8:begin]).items():
            if name == "__metadata__":
                continue
            data, shape = raw[begin:][slice(*entry["data_offsets"])], entry["shape"]
            stem = name.removesuffix(".weight")
            fits = entry["dtype"] in kinds and len(shape) == 2 and name.endswith(".weight")
            wanted = every or not any(word in name for word in ("embed", "norm", "lm_head", "gate.weight"))
            if not fits or not wanted or source.random() > share:
                held[name] = (entry["dtype"], shape, data)
                continue
            import ml_dtypes

            dtype = ml_dtypes.bfloat16 if entry["dtype"] == "BF16" else kinds[entry["dtype"]]
            weights = np.frombuffer(data, dtype).reshape(shape).astype(np.float32)
            try:
                parts, _ = make(stem, weights)
            except (ValueError, IndexError, AssertionError, TypeError):  # its sizes do not go with the groups
                held[name] = (entry["dtype"], shape, data)
                continue
            for end, part in parts.items():
                kind = _dtype_name(part.dtype)
                held[stem + end] = (kind, list(part.shape), np.ascontiguousarray(part).tobytes())
        synthetic.write_safetensors(path, held)
    file = copied / "config.json"
    values = json.loads(file.read_text()) if file.exists() else {}
    inner = [value for key, value in values.items() if key in INSIDE and isinstance(value, dict)]
    place = source.choice((values, values, values, *inner))
    place |= config
    file.write_text(json.dumps(values))
    return _line(copied, source, (*QUANTIZED, *ON_FOLDERS))


def _dtype_name(dtype: np.dtype[Any]) -> str:
    names = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float8_e4m3fn": "F8_E4M3"}
    return names.get(dtype.name) or {"i": "I", "u": "U", "b": "BOOL"}[dtype.kind] + str(8 * dtype.itemsize)


GENERATORS = (crossed, nested, odd_tensors, spm_folders, stored_families)
