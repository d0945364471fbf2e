"""Changes to the weights of a checkpoint, the rest of it staying as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_dtypes import bfloat16

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
