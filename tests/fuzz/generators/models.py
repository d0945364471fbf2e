"""Checkpoints of all families, projectors, drafts and adapters: wrong numbers in configs, and other tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from random import Random
from typing import Any

import projectors
import seeds
import synthetic
from generators.texts import nasty, places, strange

TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4")
BITS = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "F4": 4}
COMMANDS = (
    *(("plan", "{}", "-t", "all", "--summary"), ("plan", "{}", "-t", "Q2_K"), ("plan", "{}", "--json", "-t", "F16")),
    *(("convert", "{}", "-t", "Q4_0", "-o", "out.gguf"), ("convert", "{}", "-t", "F16", "--vocab-only")),
    *(("types", "{}", "--fit", "1G"), ("types", "{}", "--context", "1000000", "--json"), ("plan", "{}", "--mmproj")),
    *(("convert", "{}", "--mmproj", "-t", "Q8_0", "-o", "out.gguf"), ("plan", "{}", "--mtp"), ("plan", "{}", "-v")),
    *(("convert", "{}", "-t", "auto", "-o", "out.gguf", "--check-tokens"), ("plan", "{}", "--no-mtp", "--fuse-qkv")),
    *(("plan", "{}", "--prune-layers", "0"), ("plan", "{}", "--save-plan", "plan.json", "--tasks", "3")),
    *(("plan", "{}", "--sentence-transformers-dense-modules"), ("plan", "{}", "--mistral-format")),
    ("convert", "{}", "-t", "Q4_K_M", "-o", "out.gguf", "--split-max-tensors", "3"),
)
Header = dict[str, Any]


def _line(path: Path, source: Random, commands: tuple[tuple[str, ...], ...] = COMMANDS) -> list[str]:
    return [word.replace("{}", str(path)) for word in source.choice(commands)]


@cache
def _families() -> list[Path]:
    return sorted(path for path in synthetic.FAMILIES.iterdir() if (path / "checkpoint.json").exists())


def write_header(
    path: Path,
    tensors: dict[str, tuple[str, list[int]]],
    change: Callable[[Header], object],
    *,
    bits: Mapping[str, int] = BITS,
    ensure_ascii: bool = True,
) -> None:
    """Tensors of zeros. `change` may edit the header; the data is a hole of the file."""
    header: Header = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        nbytes = bits.get(dtype, 8)
        for size in shape:
            nbytes *= size
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + nbytes // 8]}
        end += nbytes // 8
    change(header)
    text = json.dumps(header, ensure_ascii=ensure_ascii).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(file.tell() + end)


def odd_numbers() -> tuple[Any, ...]:
    """Numbers, and what may stand in their places. The lists are new in each call: attacks put things into them."""
    return (
        *(0, 1, -1, 2, 3, 7, 31, 255, 257, 10**5, 10**7, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64, 10**30),
        *(0.0, -0.5, 1.5, 1e-45, 1e39, 1e308, float("nan"), float("inf"), "1", "", True),
        *(None, [], {}, [0], [1, 2], [-1]),
    )


def family(source: Random, folder: Path) -> Path:
    """The checkpoint of some family, with weights of zeros."""
    described = source.choice(_families())
    model = folder / "model"
    model.mkdir()
    description = synthetic.read_description(described)
    for name, file in description.small_files(described).items():
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(file.read_bytes())
    for shard, tensors in description.shards.items():
        (model / shard).parent.mkdir(exist_ok=True)
        write_header(model / shard, {name: (dtype, shape) for name, (dtype, shape) in tensors.items()}, _same)
    return model


def _same(header: Header) -> None:
    """Leaves a header as it is."""


def _wrong_numbers(value: Any, source: Random) -> None:
    """Other numbers in up to four places, or a key less."""
    ways = [place for place in places(value) if place]
    for *way, last in source.sample(ways, min(len(ways), source.choice((1, 1, 1, 2, 4)))):
        try:
            inside = reduce(getitem, way, value)
        except (LookupError, TypeError):  # an earlier change took the place away
            continue
        if isinstance(inside, dict) and source.random() < 0.2:
            inside.pop(last, None)
        elif isinstance(inside, dict) or (isinstance(inside, list) and type(last) is int and last < len(inside)):
            inside[last] = strange(source) if source.random() < 0.2 else source.choice(odd_numbers())


def _change_json(model: Path, source: Random, *preferred: str) -> None:
    files = [file for file in sorted(model.rglob("*.json")) if file.stat().st_size < 200_000]
    if not files:  # one family has no config
        return
    named = [file for file in files if file.name in preferred]
    file = source.choice(named if named and source.random() < 0.7 else files)
    value = json.loads(file.read_text())
    _wrong_numbers(value, source)
    file.write_text(json.dumps(value))


def configs(source: Random, folder: Path) -> list[str]:
    """A family's checkpoint whose config or other small files have wrong numbers."""
    model = family(source, folder)
    _change_json(model, source, "config.json")
    return _line(model, source)


def many(source: Random, folder: Path) -> list[str]:
    """A config that names far more layers, experts, heads or tokens than there are, or lists with many entries."""
    model = family(source, folder)
    file = model / "config.json"
    config = json.loads(file.read_text()) if file.exists() else {}  # one family has none
    inner = [config, *(part for part in config.values() if isinstance(part, dict))]
    part = source.choice(inner)
    count = source.choice((5000, 10**5, 10**6))
    numbers = [key for key, value in part.items() if type(value) is int and value > 0] or ["num_hidden_layers"]
    for key in source.sample(numbers, min(len(numbers), source.choice((1, 2, 5)))):
        part[key] = source.choice((count, 10**7, 2**31 - 1, 2**40))
    if source.random() < 0.4:
        key = source.choice(
            (
                "layer_types",
                "architectures",
                "eos_token_id",
                "head_dim",
                "num_key_value_heads",
                "id2label",
                "mlp_layer_types",
                "block_types",
                "sliding_window_pattern",
                "rope_scaling",
                "quantization_config",
            )
        )
        entry = source.choice((0, 1, "full_attention", "sliding_attention", "LABEL", nasty(source), [0, 1]))
        listed = [entry] * count
        part[key] = source.choice(
            (listed, dict(enumerate(listed[: 10**5])), {"long_factor": listed, "type": "longrope"})
        )
    file.write_text(json.dumps(config))
    return _line(model, source)


def shapes(source: Random, folder: Path) -> list[str]:
    """A family's tensors with other shapes, types and names, and some missing or twice."""
    model = family(source, folder)
    for file in source.sample(sorted(model.rglob("*.safetensors")), 1):
        raw = file.read_bytes()
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        tensors = {name: (entry["dtype"], entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
        for _ in range(source.choice((1, 1, 2, 5))):
            name = source.choice(list(tensors) or ["x"])
            dtype, shape = tensors.pop(name, ("F32", [1]))
            kind = source.random()
            if kind < 0.4:
                shape = _other_shape(shape, source)
            elif kind < 0.6:
                dtype = source.choice(TYPES)
            elif kind < 0.75:
                name = _other_name(name, source)
            elif kind < 0.85:
                continue
            tensors[name] = (dtype, shape)
        write_header(file, tensors, _same)
    return _line(model, source)


def _other_shape(shape: list[int], source: Random) -> list[int]:
    if not shape or source.random() < 0.2:
        return source.choice(([], [0], [1], [1, 1, 1, 1], [0, 5], [2**62, 0], [7, 3], [32], [1] * 6, [64, 64, 64]))
    at = source.randrange(len(shape))
    size = source.choice((0, 1, shape[at] - 1, shape[at] + 1, shape[at] * 2, shape[at] // 2, 4096))
    kinds = (
        [*shape[:at], size, *shape[at + 1 :]],
        shape[:-1],
        [*shape, 1],
        [1, *shape],
        shape[::-1],
    )
    return source.choice(kinds)


def _other_name(name: str, source: Random) -> str:
    digits = [part for part in name.split(".") if part.isdigit()]
    if digits and source.random() < 0.6:
        number = source.choice(("99999", "-1", "00", "1e3", "9" * 300, "٣", str(2**31), "5"))
        return name.replace(f".{source.choice(digits)}.", f".{number}.")
    endings = (".bias", ".weight_scale", ".qweight", ".lora_A.weight", ".weight.absmax", "_inv", ".scales", "")
    return name.removesuffix(".weight") + source.choice(endings)


def encoders(source: Random, folder: Path) -> list[str]:
    """A checkpoint with encoders or a draft, whose configs have wrong numbers or whose tensors other shapes."""
    path = source.choice(projectors.descriptions())
    description = projectors.read(path)
    model = folder / "model"
    model.mkdir()
    for file, value in description["files"].items():
        (model / file).parent.mkdir(exist_ok=True)
        (model / file).write_text(json.dumps(value))
    for file, described in {"model.safetensors": description["tensors"], **description.get("modules", {})}.items():
        full = {name: shape for short, shape in described.items() for name in projectors._expanded(short)}
        typed = {name: tuple(s) if s and isinstance(s[0], str) else ("BF16", *s) for name, s in full.items()}
        tensors = {name: (dtype, list(shape)) for name, (dtype, *shape) in typed.items()}
        for name in source.sample(list(tensors), min(len(tensors), source.choice((0, 0, 1, 2)))):
            tensors[name] = (tensors[name][0], _other_shape(tensors[name][1], source))
        (model / file).parent.mkdir(exist_ok=True)
        write_header(model / file, tensors, _same)
    if source.random() < 0.8:
        _change_json(model, source, "config.json", "preprocessor_config.json", "modules.json")
    if path.parent == projectors.PROJECTORS:
        return _line(
            model, source, (("plan", "{}", "--mmproj"), ("convert", "{}", "--mmproj", "-t", "Q8_0", "-o", "out.gguf"))
        )
    target = seeds.checkpoint(folder, "target")
    return ["plan", str(model), "--target-model-dir", str(target), *(["--dspark"] * bool(description.get("dspark")))]


def adapters(source: Random, folder: Path) -> list[str]:
    """A LoRA adapter of a small model, with strange settings, patterns and factors."""
    base = seeds.checkpoint(folder, "base")
    model = folder / "adapter"
    model.mkdir()
    count = source.choice((3, 1000, 10**5))
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "lora_alpha": 16,
        "r": 8,
        "base_model_name_or_path": str(base),
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_rslora": False,
        "use_dora": False,
        "bias": "none",
        "modules_to_save": None,
        "fan_in_fan_out": False,
        "lora_bias": False,
        "target_parameters": source.choice((None, None, ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])),
        "trainable_token_indices": source.choice((None, [0, 5])),
        "alora_invocation_tokens": None,
        "init_lora_weights": True,
    }
    for _ in range(source.randint(0, 3)):
        key = source.choice(list(config))
        pattern = source.choice(
            ("(a*)*b", "(.*)*x", "^(\\w+)+$", "a" * 5000, "layers.0", "(" * 500, ".*", "[", nasty(source))
        )
        patterns = {f"{pattern}{at}": source.choice(odd_numbers()) for at in range(count)}
        config[key] = source.choice((strange(source), source.choice(odd_numbers()), patterns, list(patterns), pattern))
    (model / "adapter_config.json").write_text(json.dumps(config))
    rank = source.choice((1, 8, 0, 96))
    tensors: dict[str, tuple[str, list[int]]] = {}
    for module, rows in (
        ("self_attn.q_proj", 96),
        ("self_attn.k_proj", 96),
        ("mlp.down_proj", 96),
        ("self_attn.o_proj", 96),
    ):
        stem = f"base_model.model.model.layers.0.{module}"
        tensors[f"{stem}.lora_A.weight"] = ("F32", [rank, 96])
        tensors[f"{stem}.lora_B.weight"] = ("F32", [rows, rank])
    more = {
        "base_model.model.lm_head.lora_A.weight": [8, 96],
        "base_model.model.model.embed_tokens.lora_embedding_A": [8, 300],
        "base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector.weight": [96],
        "base_model.model.model.layers.0.mlp.experts.3.up_proj.lora_A.weight": [8, 96],
        "base_model.model.model.layers.99999.mlp.up_proj.lora_A.weight": [8, 96],
        "base_model.model.model.norm.weight": [96],
        "base_model.model.model.layers.0.mlp.down_proj.lora_B.bias": [96],
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector": [96],
        "base_model.model.model.layers.0.mlp.experts.lora_A.weight": [16, 96],
        "base_model.model.model.layers.0.mlp.experts.base_layer.lora_A.weight": [16, 96],
        "base_model.model.model.embed_tokens.base_layer.weight": [300, 96],
        "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": [2, 96],
        "base_model.model.model.layers.0.mlp.up_proj.modules_to_save.default.weight": [96, 96],
        "base_model.model.score.modules_to_save.weight": [2, 96],
        f"base_model.model.{nasty(source)}.lora_A.weight": [8, 96],
    }
    for name in source.sample(list(more), source.randint(0, 3)):
        tensors[name] = ("BF16", more[name])
        if source.random() < 0.7:
            other = name.replace("lora_A", "lora_B").replace("embedding_A", "embedding_B")
            tensors[other] = ("BF16", [96, 8])
    for name in source.sample(list(tensors), source.choice((0, 1, 1, 2))):
        tensors[name] = (source.choice(TYPES), _other_shape(tensors[name][1], source))
    if source.random() < 0.2:
        tensors |= {
            f"base_model.model.model.layers.{at}.mlp.up_proj.lora_A.weight": ("F16", [8, 96]) for at in range(20_000)
        }
    write_header(model / "adapter_model.safetensors", tensors, _same)
    if source.random() < 0.2:
        _change_json(base, source, "config.json")
    return _line(
        model,
        source,
        (
            ("convert", "{}", "--base", str(base), "-t", "F16", "-o", "out.gguf"),
            ("plan", "{}", "--base", str(base), "-t", "auto"),
            ("plan", "{}", "-t", "F32", "--json"),
            ("convert", "{}"),
            ("types", "{}"),
            ("convert", str(base), "--lora", "{}", "-t", "Q8_0", "-o", "out.gguf"),
            ("convert", str(base), "--lora", "{}:0.5", "--lora", "{}:-1e6", "-t", "F16", "-o", "out.gguf"),
            ("plan", str(base), "--lora", "{}:1e-30", "--json"),
            ("types", str(base), "--lora", "{}"),
        ),
    )


GENERATORS = (configs, many, shapes, encoders, adapters)
