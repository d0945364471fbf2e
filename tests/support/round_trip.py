"""Checkpoints converted, led back to a checkpoint, and converted again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gguf_forge import GgufFile, Request, convert, dequantize_gguf, open_gguf
from gguf_forge.errors import ForgeError
from gguf_forge.types.tensor_type import NVFP4

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".index.json", ".gguf")
_ASKED = ("pre_tokenizer", "target_model_dir", "mistral_format", "mmproj", "mtp", "no_mtp", "dspark")


def round_trip(request: Request, scratch: Path, *, by_config: bool) -> str:
    """Converts a checkpoint, leads the file back, and converts what came back.

    Returns:
        "same" if both files have the same keys and the same tensors; "refused: " and why; or what differs.
    """
    source, options = Path(request.source), {name: getattr(request, name) for name in _ASKED}
    scratch.mkdir()
    made = convert(source, scratch / "a.gguf", types="F32", **options)[0].path
    folder = scratch / source.name
    try:
        dequantize_gguf(made, folder, safetensors=True, config=source if by_config else None)
    except ForgeError as refused:
        return f"refused: {refused}"
    for path in source.rglob("*"):
        if path.is_file() and not path.name.endswith(_WEIGHTS):
            (folder / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / path.relative_to(source))
    try:
        again = convert(folder, scratch / "b.gguf", types="F32", **options)[0].path
    except ForgeError as error:
        return f"not converted again: {error}"
    with open_gguf(made) as first, open_gguf(again) as second:
        differs = next(_differences(first, second), "same")
    shutil.rmtree(scratch)
    return differs


def _differences(first: GgufFile, second: GgufFile) -> Iterator[str]:
    """What differs. The order of tensors in several shards is lost, and blocks come back as floats."""
    keys = first.typed_metadata.keys() | second.typed_metadata.keys()
    others = {key for key in keys if first.typed_metadata.get(key) != second.typed_metadata.get(key)}
    if others - ({"general.file_type"} if any(tensor.type.is_packed for tensor in first.tensors) else set()):
        yield f"keys: {sorted(others)[:4]}"
    blocks = {tensor.name.removesuffix("weight") for tensor in first.tensors if tensor.type == NVFP4}
    scales = {stem + end for stem in blocks for end in ("scale", "input_scale")}
    mine, other = ({t.name: t for t in file.tensors if t.name not in scales} for file in (first, second))
    if mine.keys() != other.keys():
        yield f"names: {sorted(mine.keys() ^ other.keys())[:4]}"
    for name in mine:
        one, two = mine[name].expression(), other[name].expression()
        if one.dtype == two.dtype and not _equal(one, two):
            yield f"values: {name}"


def _equal(one: Any, two: Any) -> bool:
    return one.shape == two.shape and np.array_equal(one.rows(0, one.n_rows), two.rows(0, two.n_rows))
