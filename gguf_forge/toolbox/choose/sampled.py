"""What file types lose in a model's own weights, estimated from a few rows of some of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gguf_forge.engine.batches import RowSource
from gguf_forge.engine.threads import Progress
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.kernels.binding import quantizable_types, types_needing_importance
from gguf_forge.kernels.rows import as_float32, dequantize, quantize
from gguf_forge.planning.file_plan import FilePlan
from gguf_forge.tensors.expression import by_matrix
from gguf_forge.toolbox.inspect.rows_of import in_order
from gguf_forge.types.tensor_type import TensorType

# The tensors of a role that are read, which is one in each of so many layers, and the values that are read of each.
_LAYERS, _VALUES = 6, 1 << 14

Role: TypeAlias = str


@dataclass(frozen=True)
class _Sums:
    """Of the values of a role that were read: how many, the sum of their squares, and for each type that of its errors.

    An error of None says that the type cannot be made without an importance matrix.
    """

    count: int
    power: float
    noise: Mapping[TensorType, float | None]


def sampled_errors(
    files: Sequence[FilePlan], *, threads: int | None = None, progress: Progress = lambda n_values: None
) -> tuple[float | None, ...]:
    """The error that each file is expected to have: root mean square error of its matrices by their root mean square.

    Vectors are left out: every type keeps them as they are. The rows that are read are spread over their tensors, and
    these over the layers; they are the same in each run.

    Args:
        files: Plans of one model, of different file types; their sources are open.
        threads: Defaults to the processors this process may use.
        progress: Is told how many values of tensors were read.

    Returns:
        One number for each file; None for a type that cannot be made without an importance matrix.

    Raises:
        InputError: a tensor cannot be read.
    """
    wanted = _types_of_roles(files)
    pairs = (pair for file in files for pair in zip(file.tensors, file.sources, strict=True))
    sources = {info.name: source for info, source in pairs if _role(info.name) in wanted}
    chosen = [(role, name) for role, names in _names_of_roles(sources).items() for name in _spread(names, _LAYERS)]

    def measured(item: tuple[Role, str]) -> _Sums:
        role, name = item
        return _sums(sources[name], wanted[role])

    found: dict[Role, list[_Sums]] = {}
    for (role, _), sums in zip(chosen, in_order(measured, chosen, threads=threads), strict=True):
        found.setdefault(role, []).append(sums)
        progress(sums.count)
    roles = {role: _together(every) for role, every in found.items()}
    return tuple(_error(file, roles) for file in files)


def _role(name: str) -> Role:
    """A tensor's name without its layer: `blk.3.ffn_up.weight` and `blk.4.ffn_up.weight` have the same."""
    return re.sub(r"\.\d+\.", ".N.", name)


def _types_of_roles(files: Sequence[FilePlan]) -> dict[Role, set[TensorType]]:
    found: dict[Role, set[TensorType]] = {}
    for file in files:
        for info in _matrices(file):
            found.setdefault(_role(info.name), set()).add(info.type)
    return found


def _matrices(file: FilePlan) -> Iterator[TensorInfo]:
    return (info for info in file.tensors if len(info.shape) > 1)


def _names_of_roles(names: Mapping[str, RowSource]) -> dict[Role, list[str]]:
    found: dict[Role, list[str]] = {}
    for name in names:
        found.setdefault(_role(name), []).append(name)
    return found


def _spread(items: Sequence[str], most: int) -> list[str]:
    """At most `most` items, at even distances."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).astype(int)
    return [items[place] for place in places]


def _sums(source: RowSource, types: set[TensorType]) -> _Sums:
    expr = source.expr
    wanted = max(1, _VALUES // expr.shape[-1])
    rows = np.unique(np.linspace(0, expr.n_rows - 1, min(expr.n_rows, wanted)).astype(np.int64))
    values = as_float32(expr.take(rows), expr.dtype)
    power = float(np.square(values, dtype=np.float64).sum())
    return _Sums(values.size, power, {kind: _noise(values, rows, kind, source) for kind in types})


def _noise(values: NDArray[np.float32], rows: NDArray[np.int64], kind: TensorType, source: RowSource) -> float | None:
    """The sum of squared errors of some rows in a type; None if it cannot be made without importance."""
    if kind not in quantizable_types():
        return 0.0  # it is copied
    if source.importance is None and kind in types_needing_importance():
        return None
    total = 0.0
    for part in _alike(values, rows, source):
        stored = dequantize(quantize(part.values, kind, importance=part.importance), kind)
        total += float(np.square(part.values - stored, dtype=np.float64).sum())
    return total


class _RowsOfMatrix(NamedTuple):
    values: NDArray[np.float32]
    importance: NDArray[np.float32] | None


def _alike(values: NDArray[np.float32], rows: NDArray[np.int64], source: RowSource) -> Iterator[_RowsOfMatrix]:
    """The rows of each matrix (expert), with the importance that they share."""
    first = 0
    for matrix, within in by_matrix(rows, source.expr.matrix_rows):
        last = first + len(within)
        yield _RowsOfMatrix(values[first:last], source.importance_of(matrix * source.expr.matrix_rows))
        first = last


def _together(every: Sequence[_Sums]) -> _Sums:
    noise: dict[TensorType, float | None] = {}
    for kind in every[0].noise:
        parts = [sums.noise[kind] for sums in every]
        known = [part for part in parts if part is not None]
        noise[kind] = sum(known) if len(known) == len(parts) else None
    return _Sums(sum(sums.count for sums in every), sum(sums.power for sums in every), noise)


def _error(file: FilePlan, roles: Mapping[Role, _Sums]) -> float | None:
    noise = power = 0.0
    for info in _matrices(file):
        sums = roles[_role(info.name)]
        loss = sums.noise[info.type]
        if loss is None:
            return None
        share = info.n_elements / sums.count
        noise, power = noise + loss * share, power + sums.power * share
    return float(np.sqrt(noise / power)) if power else 0.0
