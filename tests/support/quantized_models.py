"""Small models of several kinds whose matrices are stored in a format: with permuted rows, stacked experts, fused ones.

Each gives the float32 values of its quantized matrices by the names and in the shapes that they have in GGUF.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from quantized_checkpoints import interleaved, quantize_folder
from quantized_variants import Variant
from synthetic import FAMILIES, Description, read_description, small_files, tensor_bytes, write_safetensors


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model: its width, that of its feed-forward layers or experts, heads, and heads of keys."""

    width: int
    ff: int
    heads: int
    heads_kv: int = 1
    experts: int = 3

    @property
    def head(self) -> int:
        return self.width // self.heads

    @property
    def kv(self) -> int:
        return self.head * self.heads_kv


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        described: Its folder in tests/families, which gives the vocabulary and the config.
        projections: The matrices of its one layer and their shapes for some sizes.
        in_file: GGUF's names and values of the matrices, from the values by the names of the modules.
    """

    described: str
    projections: Callable[[Sizes], Mapping[str, tuple[int, int]]]
    in_file: Callable[[Mapping[str, np.ndarray], Sizes], Iterator[tuple[str, np.ndarray]]]


def _attention(sizes: Sizes) -> dict[str, tuple[int, int]]:
    return {
        "self_attn.q_proj": (sizes.width, sizes.width),
        "self_attn.k_proj": (sizes.kv, sizes.width),
        "self_attn.v_proj": (sizes.kv, sizes.width),
        "self_attn.o_proj": (sizes.width, sizes.width),
    }


def _feed_forward(sizes: Sizes, where: str) -> dict[str, tuple[int, int]]:
    return {
        f"{where}.gate_proj": (sizes.ff, sizes.width),
        f"{where}.up_proj": (sizes.ff, sizes.width),
        f"{where}.down_proj": (sizes.width, sizes.ff),
    }


def _experts(sizes: Sizes) -> dict[str, tuple[int, int]]:
    each = (_feed_forward(sizes, f"mlp.experts.{n}") for n in range(sizes.experts))
    return _attention(sizes) | {name: shape for one in each for name, shape in one.items()}


def _fused(sizes: Sizes) -> dict[str, tuple[int, int]]:
    return {
        "self_attn.qkv_proj": (sizes.width + 2 * sizes.kv, sizes.width),
        "self_attn.o_proj": (sizes.width, sizes.width),
        "mlp.gate_up_proj": (2 * sizes.ff, sizes.width),
        "mlp.down_proj": (sizes.width, sizes.ff),
    }


_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.qkv_proj": "attn_qkv",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _by_name(values: Mapping[str, np.ndarray], sizes: Sizes) -> Iterator[tuple[str, np.ndarray]]:
    for role, weights in values.items():
        if role in _NAMES:
            yield _NAMES[role], weights


def _permuted(values: Mapping[str, np.ndarray], sizes: Sizes) -> Iterator[tuple[str, np.ndarray]]:
    heads = {"attn_q": sizes.heads, "attn_k": sizes.heads_kv}
    for name, weights in _by_name(values, sizes):
        yield name, interleaved(weights, heads[name]) if name in heads else weights


def _stacked(values: Mapping[str, np.ndarray], sizes: Sizes) -> Iterator[tuple[str, np.ndarray]]:
    yield from _by_name(values, sizes)
    for role in ("gate", "up", "down"):
        yield (
            f"ffn_{role}_exps",
            np.stack([values[f"mlp.experts.{n}.{role}_proj"] for n in range(sizes.experts)]),
        )


FAMILY: dict[str, Family] = {
    "llama": Family("llama3-bpe", lambda sizes: _attention(sizes) | _feed_forward(sizes, "mlp"), _permuted),
    "qwen3moe": Family("qwen3moe", _experts, _stacked),
    "phi3": Family("phi3", _fused, _by_name),
}
# Odd numbers of groups, rows that are cut by blocks, and matrices of a few rows or of one.
RUNS = (
    ("llama", Sizes(192, 320, 3)),
    ("llama", Sizes(96, 5, 3)),
    ("qwen3moe", Sizes(320, 192, 5)),
    ("qwen3moe", Sizes(96, 1, 3)),
    ("phi3", Sizes(192, 96, 6)),
)
_LAYER = "model.layers.0."


@dataclass(frozen=True)
class Model:
    """A model in a folder.

    Attributes:
        folder: The checkpoint.
        values: The float32 values of all its projections by their names in GGUF.
        quantized: The shapes of those that are quantized, as the checkpoint has them.
        pre_tokenizer: The pre-tokenizer that its vocabulary needs.
    """

    folder: Path
    values: Mapping[str, np.ndarray]
    quantized: frozenset[tuple[int, int]]
    pre_tokenizer: str | None


def make(family: str, sizes: Sizes, variant: Variant, folder: Path) -> Model:
    """A checkpoint of one layer whose projections are stored in a variant of a scheme, where they fit."""
    of = FAMILY[family]
    shapes = of.projections(sizes)
    described = read_description(FAMILIES / of.described)
    folder.mkdir(parents=True)
    for name, file in small_files(of.described).items():
        shutil.copyfile(file, folder / name)
    config = json.loads((folder / "config.json").read_text())
    changed = {key: value for key, value in _config(sizes).items() if key in config}
    (folder / "config.json").write_text(json.dumps({**config, **changed}))
    tensors = dict(_resized(described, sizes))
    tensors |= {f"{_LAYER}{role}.weight": ("BF16", list(shape)) for role, shape in shapes.items()}
    write_safetensors(
        folder / "model.safetensors",
        {name: (kind, shape, tensor_bytes(name, kind, shape)) for name, (kind, shape) in tensors.items()},
    )
    stored = quantize_folder(folder, variant.config, variant.store)
    for file in variant.files:
        (folder / file).write_text("{}")
    by_role = {stem.removeprefix(_LAYER): weights for stem, weights in stored.items()}
    return Model(
        folder,
        {f"blk.0.{name}.weight": weights for name, weights in of.in_file(by_role, sizes)},
        frozenset(shape for shape in shapes.values() if variant.fits(shape)),
        described.pre_tokenizer,
    )


def _config(sizes: Sizes) -> dict[str, int]:
    return {
        "hidden_size": sizes.width,
        "head_dim": sizes.head,
        "intermediate_size": sizes.ff,
        "moe_intermediate_size": sizes.ff,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.heads_kv,
        "num_hidden_layers": 1,
        "num_local_experts": sizes.experts,
    }


def _resized(described: Description, sizes: Sizes) -> Iterator[tuple[str, tuple[str, list[int]]]]:
    """All tensors of one layer and around it but the projections, in these sizes."""
    for name, (kind, shape) in (pair for tensors in described.shards.values() for pair in tensors.items()):
        if name.endswith("_proj.weight") or (name.startswith("model.layers.") and not name.startswith(_LAYER)):
            continue
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            yield name, (kind, [sizes.head])
        elif name.endswith("mlp.gate.weight"):
            yield name, (kind, [sizes.experts, sizes.width])
        else:
            yield name, (kind, [*shape[:-1], sizes.width])


def matrices(variant: Variant) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """The shapes of all matrices of the runs that fit a variant, each once, and values for them."""
    shapes = {shape for family, sizes in RUNS for shape in FAMILY[family].projections(sizes).values()}
    for shape in sorted(filter(variant.fits, shapes)):
        values = np.frombuffer(tensor_bytes(str(shape), "F32", list(shape)), np.float32)
        yield shape, values.reshape(shape)


def digest_of_values(values: Iterable[np.ndarray]) -> str:
    """A digest of float32 values. A zero has no sign in it, because libraries disagree on that."""
    digest = hashlib.sha256()
    for each in values:
        digest.update((each.astype("<f4") + np.float32(0)).tobytes())
    return digest.hexdigest()
