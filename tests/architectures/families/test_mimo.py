"""MiMo V2's queries, keys and values, which FP8 checkpoints hold in shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.families.mimo import mimo2
from gguf_forge.architectures.operations import Operation
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.row_maps import reshaped
from gguf_forge.tensors.stored import Constant

_CONFIG = {
    "num_hidden_layers": 1,
    "hybrid_layer_pattern": [0],
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 2,
    "v_head_dim": 1,
    "swa_num_attention_heads": 8,
    "swa_num_key_value_heads": 4,
    "swa_head_dim": 2,
    "swa_v_head_dim": 1,
}
_SITE = Site(Config.of(_CONFIG), LocalFolder(Path("model")), layer=0)
# of 4 shards, each has 2 queries, 1 key and 1 value: 4 + 2 + 1 rows
_ROWS = np.arange(28, dtype=np.float32)[:, None]
_WANTED = [
    *(7 * s + r for s in range(4) for r in range(4)),
    *(7 * s + r for s in range(4) for r in (4, 5)),
    6,
    13,
    20,
    27,
]


def ungrouped() -> Operation:
    return next(rule.operation for rule in mimo2.rules if rule.target == "blk.{i}.attn_qkv.weight")


def scales(*shape: int) -> Constant:
    return Constant(np.ones(shape, np.float32))


def test_shards_are_put_together() -> None:
    stacked = Scaled(Constant(_ROWS.reshape(4, 7, 1)), scales(4, 2, 1), 4, 4)
    found = ungrouped()(_SITE, reshaped(stacked, (28, 1)))
    assert found.rows(0, 28)[:, 0].tolist() == _WANTED
    # blocks that end with a shard do not show how many there are; their number does
    aligned = Scaled(Constant(_ROWS), scales(4, 1), 7, 1)
    assert ungrouped()(_SITE, aligned).rows(0, 28)[:, 0].tolist() == _WANTED


def test_other_types_are_whole_already() -> None:
    x = Constant(_ROWS)
    assert ungrouped()(_SITE, x) is x


def test_what_is_not_in_shards_is_refused() -> None:
    with pytest.raises(InputError, match="10 rows of scales are not those of 8 or 4 shards"):
        ungrouped()(_SITE, Scaled(Constant(_ROWS), scales(10, 1), 3, 1))
    narrow = Site(Config.of({**_CONFIG, "num_attention_heads": 6, "swa_num_attention_heads": 6}), _SITE.folder, layer=0)
    with pytest.raises(InputError, match="28 rows are not"):
        ungrouped()(narrow, Scaled(Constant(_ROWS), scales(4, 1), 7, 1))
