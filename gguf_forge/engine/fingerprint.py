"""Digests of everything that decides the bytes of a file. A stopped run is resumed only if none of them changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from gguf_forge.engine.batches import Shard
from gguf_forge.storage.source import Source
from gguf_forge.tensors.expression import TensorExpr


def fingerprint(shard: Shard) -> str:
    """`name=digest` words, one for each kind of thing that can change: the program, its inputs, what is made of them.

    Inputs are identified by what their storage reports (such as size and time), everything else by its value.
    """
    inputs = sha256()
    for source in _sources(shard).values():
        inputs.update(source.identity.encode())
    return f"program={program_version()} inputs={inputs.hexdigest()} output={content_digest(shard)}"


def content_digest(shard: Shard) -> str:
    """The digest of what is made of the inputs, and how. It does not depend on the machine or on their times."""
    numbers = {key: number for number, key in enumerate(_sources(shard))}
    digest = sha256(shard.layout.header)
    for part in _parts((shard.layout.size, shard.sources), numbers):
        digest.update(part)
    return digest.hexdigest()


def expression_digest(expr: TensorExpr) -> str:
    """A digest that two expressions of one run share only if they have the same values."""
    sources = {id(source): id(source) for source in expr.sources()}
    digest = sha256()
    for part in _parts(expr, sources):
        digest.update(part)
    return digest.hexdigest()


def _sources(shard: Shard) -> dict[int, Source]:
    return {id(source): source for row in shard.sources for source in row.expr.sources()}


def program_version() -> str:
    try:
        return version("gguf-forge")
    except PackageNotFoundError:  # the package runs from a checkout and is not installed
        return "unknown"


def _parts(value: Any, sources: Mapping[int, int]) -> Iterator[bytes]:
    """The value as bytes that no other value has. A source is represented by its number."""
    if id(value) in sources:
        yield b"source %d;" % sources[id(value)]
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype.str}{value.shape}:".encode()
        yield value.tobytes()
    elif isinstance(value, tuple):
        yield b"(%d:" % len(value)
        for part in value:
            yield from _parts(part, sources)
    elif is_dataclass(value):
        yield f"{type(value).__qualname__}(".encode()
        for field in fields(value):
            yield from _parts(getattr(value, field.name), sources)
    else:
        yield f"{value!r};".encode()
