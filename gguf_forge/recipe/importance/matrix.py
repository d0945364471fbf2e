"""An importance matrix in memory: how much an error in each column of each tensor counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from gguf_forge.errors import UsageError
from gguf_forge.gguf_file.tensor_info import TensorInfo


@dataclass(frozen=True)
class ImportanceMatrix:
    """An importance matrix: `importance[name]` holds `n_per_row` values for each matrix (expert) of tensor `name`.

    `file`, `datasets` and `chunks` are recorded in the output as provenance; `chunks` is 0 when unknown. `calls[name]`
    says how often each matrix of a tensor was used. `left_out` has the names of entries that the user did not want.
    """

    file: str
    importance: Mapping[str, npt.NDArray[np.float32]]
    datasets: tuple[str, ...] = ()
    chunks: int = 0
    calls: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<ImportanceMatrix {self.file}: {len(self.importance)} tensors>"

    def fits(self, info: TensorInfo) -> bool:
        """Whether there is one number for each column of a tensor, counted over all its matrices."""
        n_matrices = info.shape[2] if len(info.shape) > 2 else 1
        return self.importance[info.name].size == info.n_per_row * n_matrices

    def selected(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> ImportanceMatrix:
        """Only the entries whose name contains one of `include`, or none of `exclude`.

        Raises:
            UsageError: both are given.
        """
        if include and exclude:
            raise UsageError("--include-weights and --exclude-weights cannot be used together")
        kept = {
            name: importance
            for name, importance in self.importance.items()
            if not any(part in name for part in exclude) and (not include or any(part in name for part in include))
        }
        return replace(self, importance=kept, left_out=frozenset(self.importance.keys() - kept.keys()))
