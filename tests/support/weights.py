"""Changes to the weights of a checkpoint, the rest of it staying as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ml_dtypes import bfloat16
from safetensors import deserialize
from synthetic import write_safetensors

from gguf_forge import convert

Change = Callable[[str, np.ndarray], np.ndarray]


def changed(source: Path, folder: Path, change: Change) -> Path:
    """A copy of a checkpoint in bf16, `change(name, values)` in the place of each tensor's values."""
    shutil.copytree(source, folder)
    path = folder / "model.safetensors"
    raw = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(raw[:8], "little")
    for name, entry in json.loads(raw[8:begin]).items():
        if name != "__metadata__":
            start, stop = (begin + at for at in entry["data_offsets"])
            values = np.frombuffer(bytes(raw[start:stop]), bfloat16).astype(np.float32)
            raw[start:stop] = change(name, values).astype(bfloat16).tobytes()
    path.write_bytes(raw)
    return folder


# Type, shape and bytes of a tensor, as a safetensors file holds it.
Held = tuple[str, list[int], bytes]


def rewritten(source: Path, folder: Path, change: Callable[[dict[str, Held]], dict[str, Held]]) -> Path:
    """A copy of a checkpoint with other tensors in its file, without its index: `change` gets all tensors, by name."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    path = folder / "model.safetensors"
    held = {name: (one["dtype"], one["shape"], bytes(one["data"])) for name, one in deserialize(path.read_bytes())}
    write_safetensors(path, change(held))
    return folder


def file_of(folder: Path, **more: object) -> bytes:
    """The bytes of the BF16 file that a checkpoint becomes, whatever the name of its folder."""
    with TemporaryDirectory(dir=folder.parent) as scratch:
        named = Path(scratch) / "One"
        named.symlink_to(folder.resolve())
        (made,) = convert(named, Path(scratch) / "one.gguf", types="BF16", **more)
        return made.path.read_bytes()
