"""Files that were GGUF files: fields with other numbers in them, and the coarser kinds of damage."""

from __future__ import annotations

import random
from pathlib import Path

from raw_gguf import header_again, recorded_fields

from gguf_forge.cli.shown import json_value, value_text
from gguf_forge.errors import ForgeError
from gguf_forge.gguf_file.opened import GgufFile, open_gguf
from gguf_forge.toolbox.inspect.inspect import overview_of

_POWERS = [1 << bit for bit in (4, 5, 8, 16, 30, 31, 32, 40, 62, 63, 64)]
_TELLING = sorted({0, 1, 2, 3, *(power + off for power in _POWERS for off in (-32, -8, -1, 0, 1))})


def fields_of(path: Path) -> list[tuple[int, int]]:
    """(offset, size) of every number in the header of an intact file."""
    with recorded_fields() as found, open_gguf(path, lenient=True):
        return list(found)


def mutated(raw: bytes, fields: list[tuple[int, int]], random: random.Random) -> bytes:
    """`raw` with one to four pieces of damage; fields are where its numbers were before the first."""
    damaged = bytearray(raw)
    for _ in range(random.choice([1, 1, 1, 2, 3, 4])):
        kind = random.choice(["field", "field", "field", "field", "byte", "cut", "drop", "double", "swap"])
        at = random.randrange(len(damaged) + 1)
        size = random.choice([1, 4, 8, 24, 100])
        if kind == "field":
            at, size = random.choice(fields)
            order = random.choice(["little", "little", "little", "big"])
            old = int.from_bytes(damaged[at : at + size], "little")
            near = [old - 1, old + 1, old * 2, len(damaged), len(damaged) - at, len(damaged) - at - 8]
            number = random.choice([*near, *_TELLING]) % (1 << 8 * size)
            damaged[at : at + size] = number.to_bytes(size, order)  # type: ignore[arg-type]
        elif kind == "byte" and at < len(damaged):
            damaged[at] = random.randrange(256)
        elif kind == "cut":
            del damaged[at:]
        elif kind == "drop":
            del damaged[at : at + size]
        elif kind == "double":
            damaged[at:at] = damaged[at : at + size]
        elif kind == "swap":
            other, (there, size) = random.choice(fields)[0], random.choice(fields)
            damaged[there : there + size] = damaged[other : other + size]
    return bytes(damaged)


def open_and_use(path: Path) -> None:
    """Everything that a reader of the file may do with it, strictly and leniently.

    Raises:
        ForgeError: the strict reader refuses the file.
    """
    try:
        with open_gguf(path, lenient=True) as opened:
            broken = opened.broken
            _use(opened)
    except ForgeError as error:
        broken, refusal = (), error
    else:
        refusal = None
    try:
        with open_gguf(path) as opened:
            _use(opened)
            assert len(opened.paths) > 1 or not opened.tensors or header_again(opened)[:4] == b"GGUF"
            assert not broken
            assert refusal is None
    except ForgeError as error:
        # The two readers agree on what is wrong.
        assert str(error) == str(refusal or broken[0].everywhere())
        raise


def _use(opened: GgufFile) -> None:
    for value in [*opened.typed_metadata.values(), *(value for _, value in opened.repeated)]:
        repr(value_text(value))
        json_value(value)
    overview = overview_of(opened)
    assert overview.bits_per_weight >= 0
    assert overview.types or not overview.tensors
    for tensor in opened.tensors:
        if not tensor.is_whole:
            continue
        data = tensor.data()
        assert len(data) == tensor.nbytes
        if len(data):
            assert max(data[0], data[-1]) < 256
