"""Checkpoints made from a description: the same bytes on every machine, so that their conversions can be pinned.

A description is a folder with the small files of a checkpoint and `checkpoint.json`, which says for each shard the
type and shape of its tensors. Its `case.json` may name a folder of tests/vocabularies: tokenizer files that several
checkpoints have. The weights come from integer arithmetic and correctly rounded operations only.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_dtypes import float8_e4m3fn
from numpy.typing import NDArray

FAMILIES = Path(__file__).parents[1] / "families"
VOCABULARIES = Path(__file__).parents[1] / "vocabularies"
_INTEGERS = {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64}
_DESCRIPTION = ("case.json", "checkpoint.json", "expected.json")
Tensors = dict[str, tuple[str, list[int]]]


@dataclass(frozen=True)
class Description:
    """A checkpoint, as checkpoint.json and case.json say it.

    Attributes:
        shards: Shard -> tensor -> (type, shape).
        pre_tokenizer: The pre-tokenizer that its vocabulary needs.
        vocabulary: The folder of tests/vocabularies with its tokenizer files; None where it has its own.
        types: The file types that expected.json pins, some with an importance matrix; None for all.
        fault: What the reference gets wrong in its files, which are made with --as-reference; None for none.
        gives: What llama.cpp makes of a prompt: "text" or an "embedding"; "nothing" where it takes none.
    """

    shards: dict[str, Tensors]
    pre_tokenizer: str | None
    vocabulary: str | None = None
    types: tuple[str, ...] | None = None
    gives: str = "text"
    fault: str | None = None

    def small_files(self, folder: Path) -> Mapping[Path, Path]:
        """The files of the checkpoint beside its weights, by their names in it; those in `folder` come before shared
        ones."""
        folders = [folder] if self.vocabulary is None else [VOCABULARIES / self.vocabulary, folder]
        files = {file.relative_to(each): file for each in folders for file in each.rglob("*") if file.is_file()}
        return {name: file for name, file in files.items() if name.name not in _DESCRIPTION}


def read_description(folder: Path) -> Description:
    return Description(
        json.loads((folder / "checkpoint.json").read_text()), **json.loads((folder / "case.json").read_text())
    )


def small_files(family: str) -> Mapping[Path, Path]:
    """The files of a family's checkpoint beside its weights, shared ones too, by their names in it."""
    return read_description(FAMILIES / family).small_files(FAMILIES / family)


def write_checkpoint(
    description: Path,
    folder: Path,
    *,
    change: Callable[[Tensors], object] = lambda tensors: None,
    config: Mapping[str, object] | None = None,
) -> Path:
    """Writes the checkpoint that `description` describes to `folder`, which is made.

    `change` may edit the tensors of the first shard; `config` goes over config.json.
    """
    folder.mkdir(parents=True)
    described = read_description(description)
    for name, file in described.small_files(description).items():
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(file, folder / name)
    if config:
        values = json.loads((description / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**values, **config}))
    change(next(iter(described.shards.values())))
    for shard, tensors in described.shards.items():
        write_safetensors(
            folder / shard,
            {name: (dtype, shape, tensor_bytes(name, dtype, shape)) for name, (dtype, shape) in tensors.items()},
        )
    return folder


def write_safetensors(path: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    """Tensors as (type, shape, bytes), in the given order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    encoded = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.writelines(data for _, _, data in tensors.values())


def any_bytes(name: str, shape: list[int]) -> NDArray[np.uint8]:
    """Bytes of all values, that depend on the name."""
    return _hashes(zlib.crc32(name.encode()), int(np.prod(shape))).astype(np.uint8)


def tensor_bytes(name: str, dtype: str, shape: list[int]) -> bytes:
    """Weights of a tensor, a function of its name: near 1 for norms, else of deviation 0.02 with some outliers."""
    hashes = _hashes(zlib.crc32(name.encode()), int(np.prod(shape)))
    if dtype in ("U8", "F8_E8M0"):
        # exponents of MXFP4 that give weights of usual size, or any nibbles
        are_exponents = dtype == "F8_E8M0" or name.endswith(("_scales", "_scale"))
        return (hashes % 8 + 116).astype(np.uint8).tobytes() if are_exponents else any_bytes(name, shape).tobytes()
    sums = sum((hashes >> np.uint64(shift)) & np.uint64(0xFFFF) for shift in (0, 16, 32, 48))
    values = (np.asarray(sums, np.float64) - 131070) * 2.0**-16 * 0.035
    values *= np.where(hashes % np.uint64(4099) == 0, 25.0, 1.0)
    if "norm" in name:
        values += 1.0
    if name.endswith(".running_var"):
        values[:] = 1.0  # torch rounds the square roots of most other values otherwise on other processors
    return as_dtype(values.astype(np.float32), dtype).tobytes()


def as_dtype(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    if dtype == "BF16":
        bits = values.view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)
    if dtype == "F64":
        return values.astype(np.float64) * (1 + 2.0**-25)  # no float32 any more
    if dtype in _INTEGERS:
        return np.rint(values * np.float32(1000)).clip(-128, 127).astype(_INTEGERS[dtype])
    if dtype == "F8_E4M3":
        return values.clip(-448, 448).astype(float8_e4m3fn)
    return values.astype({"F32": np.float32, "F16": np.float16}[dtype])


def _hashes(seed: int, count: int) -> NDArray[np.uint64]:
    """SplitMix64 of seed and index."""
    x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed << 32)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
