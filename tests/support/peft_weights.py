"""Weights and adapters of real sizes, the same on every machine, for merging them with PEFT and with gguf-forge.

A base's weights are about N(0, 0.02). One factor is as PEFT begins it (uniform for layers and experts, N(0, 1) for
embeddings), and the other one small, as training makes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
DTYPES = ("BF16", "F16", "F32")
RANKS = (8, 16, 64)
EXPERTS = 4


@dataclass(frozen=True)
class Kind:
    """A kind of module that PEFT merges into.

    Attributes:
        shape: Of its weight.
        a, b: The shapes of the factors; -1 stands for the rank, and for stacks for the rank times the experts.
        parameter: The name of its weight.
        ends: What an adapter's file calls the factors.
        config: The keys of adapter_config.json beside rank and alpha.
    """

    shape: tuple[int, ...]
    a: tuple[int, ...]
    b: tuple[int, ...]
    parameter: str = "weight"
    ends: tuple[str, str] = ("lora_A.weight", "lora_B.weight")
    config: Mapping[str, object] | None = None

    @property
    def is_embedding(self) -> bool:
        return "embedding" in self.ends[0]

    @property
    def is_stack(self) -> bool:
        return self.parameter != "weight"


_OF_STACK: Mapping[str, object] = {"target_modules": [], "target_parameters": ["layer.down_proj"]}
KINDS = {
    "linear": Kind((512, 384), (-1, 384), (512, -1)),
    "transposed": Kind((384, 512), (-1, 384), (512, -1), config={"fan_in_fan_out": True}),
    "convolution": Kind((384, 3, 8, 8), (-1, 3, 8, 8), (384, -1, 1, 1)),
    "embedding": Kind((512, 256), (-1, 512), (256, -1), ends=("lora_embedding_A", "lora_embedding_B")),
    "experts": Kind((EXPERTS, 128, 96), (-1, 96), (128, -1), "down_proj", config=_OF_STACK),
    "turned": Kind((EXPERTS, 96, 128), (-1, 96), (128, -1), "down_proj", config=_OF_STACK),
}


@dataclass(frozen=True)
class Case:
    """A module of one kind, with a base of one type and an adapter of one rank."""

    kind: str
    dtype: str
    rank: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.dtype}-{self.rank}"

    @property
    def config(self) -> dict[str, object]:
        usual = {"r": self.rank, "lora_alpha": 2 * self.rank, "target_modules": ["layer"]}
        return {**usual, **(KINDS[self.kind].config or {})}

    def weights(self) -> Floats:
        """The base's, before they are rounded to its type."""
        return 0.02 * _normal(1, KINDS[self.kind].shape)

    def factors(self) -> tuple[Floats, Floats]:
        kind = KINDS[self.kind]
        n_rows = self.rank * (EXPERTS if kind.is_stack else 1)
        a, b = (tuple(n_rows if size < 0 else size for size in shape) for shape in (kind.a, kind.b))
        if kind.is_embedding:
            return 0.002 * _normal(2, a), _normal(3, b)
        bound = 1 / np.sqrt(np.prod(a[1:]))
        return _uniform(2, a) * np.float32(bound), 0.002 * _normal(3, b)


def cases() -> Iterator[Case]:
    yield from (Case(kind, dtype, rank) for kind in KINDS for dtype in DTYPES for rank in RANKS)


def _normal(seed: int, shape: tuple[int, ...]) -> Floats:
    """Numbers that are nearly normal: sums of eight uniform ones, which integers make."""
    sums = np.random.RandomState(seed).randint(0, 1 << 16, (8, *shape)).sum(axis=0) - 4 * 65535
    return (sums / (65536 * np.sqrt(8 / 12))).astype(np.float32)


def _uniform(seed: int, shape: tuple[int, ...]) -> Floats:
    return ((np.random.RandomState(seed).randint(0, 1 << 16, shape) - 32767.5) / 32768).astype(np.float32)
