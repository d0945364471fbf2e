"""The epsilon of ModernBERT's norms, without which llama.cpp does not load a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.families.modern_bert import modern_bert
from gguf_forge.architectures.site import Site
from gguf_forge.storage.local.folder import LocalFolder

EPSILON = "attention.layer_norm_epsilon"


def epsilons(*choices: str, **config: Any) -> list[float]:
    site = Site(
        Config.of({"num_hidden_layers": 2, "vocab_size": 8, "local_attention": 4, **config}),
        LocalFolder(Path()),
        block_count=2,
        choices=frozenset(choices),
    )
    return [value.data for line in modern_bert.metadata for key, value in line(site) if key == EPSILON]


@pytest.mark.parametrize(
    ("config", "expected", "of_reference"),
    [
        ({"norm_eps": 1e-3}, [1e-3], []),
        ({"norm_eps": 1e-3, "layer_norm_eps": 1e-6}, [1e-6], [1e-6]),
        ({"layer_norm_eps": 1e-6}, [1e-6], [1e-6]),
        ({}, [1e-5], []),
    ],
)
def test_every_file_has_the_epsilon(config: dict[str, float], expected: list[float], of_reference: list[float]) -> None:
    assert epsilons(**config) == [np.float32(each) for each in expected]
    assert epsilons("as_reference", **config) == [np.float32(each) for each in of_reference]
