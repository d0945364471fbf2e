"""Draft models: what they need of their target, and tables of tokens that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from synthetic import FAMILIES, write_checkpoint, write_safetensors

from gguf_forge import InputError, UnsupportedError, UsageError
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.operations import target_tokens
from gguf_forge.architectures.site import Site
from gguf_forge.checkpoint import Checkpoint
from gguf_forge.planning.model_plan import plan_model
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import StoredElements, Widened
from gguf_forge.types.element_type import ELEMENT_TYPES

HIDDEN, TOKENS = 256, 512
CONFIG = {
    "architectures": ["DSparkDraftModel"],
    "model_type": "qwen3",
    "hidden_size": HIDDEN,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": TOKENS,
    "mask_token_id": 500,
    "target_layer_ids": [0],
}


def draft(tmp_path: Path, **config: object) -> Path:
    folder = tmp_path / "draft"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    layer = {
        **{f"self_attn.{part}_proj": [HIDDEN, HIDDEN] for part in "qkvo"},
        **{f"mlp.{part}_proj": [HIDDEN, HIDDEN] for part in ("gate", "up", "down")},
        **{name: [HIDDEN] for name in ("input_layernorm", "post_attention_layernorm")},
    }
    shapes = {f"layers.0.{name}.weight": shape for name, shape in layer.items()}
    shapes |= {"fc.weight": [HIDDEN, HIDDEN], "hidden_norm.weight": [HIDDEN], "norm.weight": [HIDDEN]}
    tensors = {name: ("F32", shape, bytes(4 * int(np.prod(shape)))) for name, shape in sorted(shapes.items())}
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def keys(source: Path, target: Path | None) -> dict[str, object]:
    with Checkpoint.open(source) as checkpoint:
        found = plan_model(checkpoint, pre_tokenizer="qwen2", target=target and LocalFolder(target))
        return {key: value.data for key, value in found.metadata.items()}


def test_a_draft_has_the_vocabulary_of_its_target(tmp_path: Path) -> None:
    source = draft(tmp_path)
    with pytest.raises(UsageError, match="a draft model needs what its model has"):
        keys(source, None)
    with pytest.raises(InputError, match="the file is missing"):
        keys(source, tmp_path)
    found = keys(source, write_checkpoint(FAMILIES / "qwen3", tmp_path / "target"))
    assert found["tokenizer.ggml.mask_token_id"] == 500
    assert len(found["tokenizer.ggml.tokens"]) == TOKENS  # type: ignore[arg-type]
    assert found["dflash.target_layers"] == (1,)


@pytest.mark.parametrize(
    ("config", "error", "problem"),
    [
        ({"markov_head_type": "gated"}, UnsupportedError, "Markov head 'gated'"),
        ({"draft_vocab_size": TOKENS + 1}, InputError, "larger than vocab_size"),
        ({"draft_vocab_size": TOKENS - 1}, InputError, "d2t is missing"),
        ({"dflash_config": 3}, InputError, "dflash_config is 3"),
        ({"layer_types": 3, "use_sliding_window": True, "sliding_window": 64}, InputError, "layer_types is 3"),
        ({"target_layer_ids": ["x"]}, InputError, "not a list of layers"),
    ],
)
def test_configs_that_cannot_be(
    config: dict[str, object], error: type[Exception], problem: str, tmp_path: Path
) -> None:
    target = write_checkpoint(FAMILIES / "qwen3", tmp_path / "target")
    with pytest.raises(error, match=problem):
        keys(draft(tmp_path, **config), target)


def test_distances_become_tokens(tmp_path: Path) -> None:
    def table(*distances: int) -> TensorExpr:
        stored = np.array(distances, "<i8")
        (tmp_path / "d2t").write_bytes(stored.tobytes())
        source = SourceFile(tmp_path / "d2t")
        return Widened(StoredElements("d2t", source, 0, stored.shape, ELEMENT_TYPES["I64"]))

    site = Site(Config({}), LocalFolder(Path()))
    tokens = target_tokens(8)(site, table(0, 2, 5))
    assert tokens.rows(0, 1).view("<i8").tolist() == [[0, 3, 7]]
    for wrong in ((0, 2, 6), (-1, 2), (1, 0)):
        with pytest.raises(InputError, match="names tokens twice, or beyond the 8"):
            target_tokens(8)(site, table(*wrong))
