"""What decides the bytes of a file, as digests: a stopped run goes on only where none of it has changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from gguf_forge.engine.tasks import Shard


def fingerprint(shard: Shard) -> str:
    """`name=digest` words, one for each kind of thing that can change: the program, its inputs, what is made of them.

    Inputs are known by size, time of change and inode, all else by its value.
    """
    sources = {id(source): source for row in shard.sources for source in row.expr.sources()}
    numbers = {key: number for number, key in enumerate(sources)}
    inputs, output = sha256(), sha256(shard.layout.header)
    for source in sources.values():
        inputs.update(repr(tuple(source.identity)).encode())
    for part in _parts((shard.layout.size, shard.sources), numbers):
        output.update(part)
    return f"program={_version()} inputs={inputs.hexdigest()} output={output.hexdigest()}"


def _version() -> str:
    try:
        return version("gguf-forge")
    except PackageNotFoundError:  # a checkout that is not installed
        return "unknown"


def _parts(value: Any, sources: Mapping[int, int]) -> Iterator[bytes]:
    """The value as bytes that no other value has; a source is its number."""
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
