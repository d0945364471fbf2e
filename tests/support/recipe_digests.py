"""Digests of what llama.cpp's tools made of small checkpoints: names, types, keys and order, but no weights.

A digest holds the tensors and keys of a case's base files and, for each quantized file, the options, the
tensors and the keys. `data/files` has some, made by `python tests/support/recipe_digests.py CASE_FOLDER...`; the rest
is read from the conformance corpus where there is one.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
from corpus import manifests

from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, Value, ValueType
from gguf_forge.recipe import (
    FileType,
    ImportanceMatrix,
    Options,
    parse_key_override,
    parse_prune_layers,
    parse_target_type,
    parse_tensor_type,
)
from gguf_forge.types.tensor_type import TENSOR_TYPES

DATA = Path(__file__).parents[1] / "recipe/data/files"
Digest = dict[str, Any]


def stored() -> dict[str, Digest]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(DATA.glob("*.json"))}


def from_corpus() -> dict[str, Digest]:
    folders = sorted({path.parents[1] for path in manifests()})
    return {folder.name: digest for folder in folders if (digest := make_digest(folder))["files"]}


def make_digest(case: Path) -> Digest:
    told = [json.loads(path.read_text()) for path in sorted(case.glob("expected/*.json"))]
    quantized = [m for m in told if "quantize_args" in m]
    wanted = {m["base"].lower() for m in quantized}
    bases = {m["variant"]: m for m in told if m.get("variant") in wanted}
    return {
        "bases": {name: {"kv": _keys(m), "tensors": _tensors(m)} for name, m in bases.items()},
        "imatrix": {path.name: _read_imatrix(path) for path in sorted(case.glob("imatrix.*"))},
        "files": [
            {
                "base": m["base"].lower(),
                "args": m["quantize_args"],
                "kv": _changed(_keys(m), _keys(bases[m["base"].lower()])),
                "tensors": _changed(_tensors(m), _tensors(bases[m["base"].lower()])),
            }
            for m in quantized
        ],
    }


def _keys(manifest: Digest) -> list[list[Any]]:
    """Key, type, element type, value; a long array is known by its first items and its hash."""
    return [
        [e["key"], e["type"], e.get("elem_type"), e["value"] if "value" in e else _known(e)] for e in manifest["kv"]
    ]


def _known(entry: Digest) -> list[Any]:
    """The first items of an array, and its hash as one more item of their kind."""
    hashed = entry.get("sha256")
    is_float = hashed is not None and "FLOAT" in entry["elem_type"]
    return [*entry.get("first", ()), float(int(hashed[:12], 16)) if is_float else hashed]


def _tensors(manifest: Digest) -> list[list[Any]]:
    return [[t["name"], t["type"], *t["shape"]] for t in manifest["tensors"]]


def _changed(entries: list[list[Any]], base: list[list[Any]]) -> list[list[Any] | int]:
    """Entries that the base file has too are given by their number there, to keep digests small."""
    return [base.index(entry) if entry in base else entry for entry in entries]


def expand(entries: list[list[Any] | int], base: list[list[Any]]) -> list[list[Any]]:
    """The inverse of `_changed`."""
    return [base[entry] if isinstance(entry, int) else entry for entry in entries]


def metadata(entries: list[list[Any]]) -> Metadata:
    def value(kind: str, element: str | None, data: Any) -> Value:
        if element is None:
            return Value(ValueType[kind], data)
        return Value(ValueType[kind], tuple(data), ValueType[element])

    return {key: value(*typed) for key, *typed in entries}


def tensors(entries: list[list[Any]]) -> list[TensorInfo]:
    return [TensorInfo(name, tuple(shape), TENSOR_TYPES[kind]) for name, kind, *shape in entries]


def options(args: list[str], digest: Digest) -> Options:
    *flags, name = args
    given: dict[str, list[str]] = {}
    position = 0
    while position < len(flags):
        is_switch = flags[position] in ("--pure", "--leave-output-tensor", "--allow-requantize")
        given.setdefault(flags[position], []).append("" if is_switch else flags[position + 1])
        position += 1 if is_switch else 2
    matrix = None
    for path in given.get("--imatrix", ()):
        matrix = ImportanceMatrix(
            path,
            {name: np.ones(size, np.float32) for name, size in digest["imatrix"][path]["entries"].items()},
            tuple(digest["imatrix"][path]["datasets"]),
            digest["imatrix"][path]["chunks"],
        ).selected(given.get("--include-weights", ()), given.get("--exclude-weights", ()))
    return Options(
        FileType.named(name),
        pure="--pure" in given,
        allow_requantize="--allow-requantize" in given,
        leave_output_tensor="--leave-output-tensor" in given,
        output_tensor_type=next(map(parse_target_type, given.get("--output-tensor-type", ())), None),
        token_embedding_type=next(map(parse_target_type, given.get("--token-embedding-type", ())), None),
        tensor_types=tuple(map(parse_tensor_type, given.get("--tensor-type", ()))),
        key_overrides=tuple(map(parse_key_override, given.get("--override-kv", ()))),
        prune_layers=next(map(parse_prune_layers, given.get("--prune-layers", ())), ()),
        imatrix=matrix,
    )


def _read_imatrix(path: Path) -> Digest:
    return _read_imatrix_gguf(path) if path.suffix == ".gguf" else _read_imatrix_dat(path)


def _read_imatrix_gguf(path: Path) -> Digest:
    import gguf

    reader = gguf.GGUFReader(path)
    sums = (t for t in reader.tensors if t.name.endswith(".in_sum2"))
    return {
        "entries": {t.name.removesuffix(".in_sum2"): int(t.n_elements) for t in sums},
        "datasets": reader.fields["imatrix.datasets"].contents(),
        "chunks": int(reader.fields["imatrix.chunk_count"].contents()),
    }


def _read_imatrix_dat(path: Path) -> Digest:
    raw, at = path.read_bytes(), 0

    def number() -> int:
        nonlocal at
        at += 4
        return int(struct.unpack_from("<i", raw, at - 4)[0])

    def text() -> str:
        nonlocal at
        length = number()
        at += length
        return raw[at - length : at].decode()

    entries = {}
    for _ in range(number()):
        name, _calls, size = text(), number(), number()
        entries[name] = size
        at += 4 * size
    chunks = number()
    return {"entries": entries, "datasets": [text()], "chunks": chunks}


if __name__ == "__main__":
    for folder in map(Path, sys.argv[1:]):
        (DATA / f"{folder.name}.json").write_text(json.dumps(make_digest(folder), separators=(",", ":")) + "\n")
