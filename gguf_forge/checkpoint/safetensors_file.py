"""Reads the header of a .safetensors file, and checks everything in it before it is used.

The rules are checked here rather than by the safetensors library, because that does not tell where the bytes
of a tensor are, gives no BF16 to NumPy, and says less about what is wrong.
Source: the format section of its README.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import Any

from numpy.typing import NDArray

from gguf_forge.errors import InputError, UnsupportedError, printable
from gguf_forge.storage.json_file import IMPOSTOR_BYTES, refuse_impostor
from gguf_forge.storage.memory import check_memory, json_cost
from gguf_forge.storage.source import Source
from gguf_forge.types.element_type import ELEMENT_TYPES

MAX_HEADER = 100_000_000  # the limit of the safetensors library
MAX_DIMS = 32
MAX_TENSORS = 1 << 18  # of all shards together; the largest real models have 150,000
# What the objects of a tensor take in addition to those of its entry in the header.
_COST_OF_TENSOR = 512
_MAX_SIZE = 2**63 - 1
_LONGEST_NAME = 1000

_CUT = "the file is cut short, or another one: download it again"
_BROKEN = (
    "the file is damaged, or was written so: if its checksum is the published one, save the model again with the "
    "safetensors library; if not, download it again"
)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as it is stored: `nbytes` bytes at `offset` of `source`; `shape` has the row length last."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: Source
    offset: int
    nbytes: int

    def array(self) -> NDArray[Any]:
        """The tensor as an array of `shape`; elements of less than a byte come packed, as one dimension of uint8."""
        stored_as = ELEMENT_TYPES[self.dtype]
        flat = self.source.read(self.offset, self.nbytes).view(stored_as.dtype)
        return flat if stored_as.is_packed else flat.reshape(self.shape)


def read_safetensors_header(source: Source) -> dict[str, StoredTensor]:
    """The tensors of a .safetensors file, sorted by name.

    Nothing in the header is trusted: names are unique, every range is inside the file and as long as its
    shape and type say, and together the ranges cover the file's data without gap or overlap.

    Raises:
        InputError: the file breaks a rule of the format; the message tells which, and the tensor.
        UnsupportedError: a type that this version does not know.
    """
    header, data_start = _read_header(source)
    _check_metadata(header.pop("__metadata__", None), source)
    tensors = [_tensor(name, entry, source, data_start) for name, entry in header.items()]
    _check_coverage(tensors, data_start, source)
    return {tensor.name: tensor for tensor in sorted(tensors, key=lambda tensor: tensor.name)}


def header_size(source: Source) -> int:
    """Where the data of tensors begins, in a file whose header was read."""
    return 8 + int.from_bytes(source.read(0, 8).tobytes(), "little")


def _read_header(source: Source) -> tuple[dict[str, Any], int]:
    if source.size == 0:
        raise _broken(source, "the file is empty", hint=_CUT)
    refuse_impostor(source.read(0, min(source.size, IMPOSTOR_BYTES)).tobytes(), source.path)
    if source.size < 8:
        raise _broken(source, f"the file has only {source.size} bytes", hint=_CUT)
    length = header_size(source) - 8
    if length > MAX_HEADER:
        raise _broken(source, f"the header claims {length} bytes; the format allows {MAX_HEADER}")
    if 8 + length > source.size:
        raise _broken(source, f"the header claims {length} bytes, but the file has {source.size} in all", hint=_CUT)
    return _parse_header(source.read(8, length).tobytes(), source), 8 + length


def _parse_header(raw: bytes, source: Source) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise _broken(source, "the header does not start with '{', so this is not a safetensors file")
    count = raw.count(b'"data_offsets"')
    if count > MAX_TENSORS:
        raise _broken(source, f"the header has {count:,} tensors, and {MAX_TENSORS:,} are read")
    check_memory(json_cost(raw) + _COST_OF_TENSOR * count, "its header", source.path)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise _broken(source, f"the header is not valid UTF-8 at byte {8 + error.start}") from error
    except json.JSONDecodeError as error:
        raise _broken(source, f"the header is not valid JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise _broken(source, "the header is nested too deeply") from error
    except ValueError as error:
        raise _broken(source, f"the header is not valid: {error}") from error
    return dict(header)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!r:.100} is there twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _check_metadata(metadata: object, source: Source) -> None:
    is_texts = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    if metadata is not None and not is_texts:
        raise _broken(source, "__metadata__ is not an object of texts")


def _tensor(name: str, entry: object, source: Source, data_start: int) -> StoredTensor:
    if any("\ud800" <= char <= "\udfff" for char in name):
        raise _broken(source, "the tensor's name is not valid Unicode", name)
    if len(name) > _LONGEST_NAME:
        raise _broken(source, f"the name of a tensor has {len(name):,} characters; {_LONGEST_NAME:,} are read", name)
    if not isinstance(entry, dict) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
        raise _broken(source, "the entry lacks dtype, shape or data_offsets", name)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ELEMENT_TYPES:
        raise UnsupportedError(
            f"unknown type {dtype!r:.40}",
            file=source.path,
            tensor=printable(name),
            hint=f"known types: {', '.join(ELEMENT_TYPES)}",
        )
    if not _is_sizes(shape) or len(shape) > MAX_DIMS:
        raise _broken(source, f"shape {shape!r:.100} is not a list of at most {MAX_DIMS} sizes", name)
    if not _is_sizes(offsets) or len(offsets) != 2:
        raise _broken(source, f"data_offsets {offsets!r:.100} is not a pair of offsets", name)
    begin, end = offsets
    if begin > end:
        raise _broken(source, f"the data begins at {begin}, after its end at {end}", name)
    if data_start + end > source.size:
        raise _broken(
            source,
            f"the data ends at byte {data_start + end}, but the file has only {source.size}: it is cut short",
            name,
            hint=_CUT,
        )
    if prod(shape) * ELEMENT_TYPES[dtype].bits != 8 * (end - begin):
        raise _broken(source, f"{end - begin} bytes cannot be {dtype} of shape {shape}", name)
    return StoredTensor(name, dtype, tuple(shape), source, data_start + begin, end - begin)


def _is_sizes(value: object) -> bool:
    """Whether `value` is a list of integers that a file could have; JSON's true is an int to Python."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= _MAX_SIZE for item in value)


def _check_coverage(tensors: list[StoredTensor], data_start: int, source: Source) -> None:
    in_order = sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes))
    end = data_start
    for tensor in in_order:
        if tensor.offset < end:
            raise _broken(source, "the data overlaps that of another tensor", tensor.name)
        if tensor.offset > end:
            raise _broken(source, f"{tensor.offset - end} bytes before the data belong to no tensor", tensor.name)
        end = tensor.offset + tensor.nbytes
    if end != source.size:
        raise _broken(source, f"the last {source.size - end} bytes belong to no tensor")


def _broken(source: Source, problem: str, tensor: str | None = None, *, hint: str = _BROKEN) -> InputError:
    shown = None if tensor is None else printable(tensor)
    return InputError(problem, file=source.path, tensor=shown, hint=hint)
