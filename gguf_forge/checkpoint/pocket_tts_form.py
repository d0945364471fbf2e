"""Checkpoints of Pocket TTS, which have no config.json: the shapes of their tensors stand for it.

Source: the loader of parameters in llama.cpp's conversion/pockettts.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any

from gguf_forge.checkpoint.safetensors_file import StoredTensor, read_safetensors_header
from gguf_forge.checkpoint.shards import shard_names
from gguf_forge.errors import ForgeError, InputError
from gguf_forge.storage.folder import Folder

# A tensor that no other model has, and one that some models have, both of which become tokens.
MARK, VOICE = "flow_lm.bos_emb", "flow_lm.bos_before_voice"
# The key of the tokens that stand behind those of text.
LEARNED = "learned_tokens"
_EMBEDDINGS = "flow_lm.conditioner.embed.weight"
_FLOW, _MIMI = "flow_lm.transformer.layers.", "mimi.encoder_transformer.transformer.layers."
# All models of the line have heads of this width. The checkpoint does not say it.
_HEAD = 64


def config_of_shapes(folder: Folder) -> dict[str, Any] | None:
    """What a config.json would say of a model of Pocket TTS; None if the folder has one, or holds another model.

    Raises:
        InputError: the file lacks a tensor that says a size, or has it in a shape that cannot be.
    """
    shards = shard_names(folder.names())
    if folder.has("config.json") or len(shards) != 1:
        return None
    tensors: Mapping[str, StoredTensor] = {}
    # Of a broken file nobody knows whose it is. That config.json is missing is said first.
    with suppress(ForgeError), closing(folder.open(shards[0])) as file:
        tensors = read_safetensors_header(file)
    if MARK not in tensors:
        return None
    rows, width = _shape(tensors, _EMBEDDINGS, 2)
    learned = ["<|pad|>", *(["<|bos_before_voice|>"] if VOICE in tensors else []), "<|audio_bos|>"]
    return {
        "architectures": ["PocketTTSModel"],
        "model_type": "pockettts",
        **_transformer(tensors, _FLOW),
        "hidden_size": width,
        "max_position_embeddings": 4096,
        "vocab_size": rows + len(learned) - 1,  # the embeddings have a row for <|pad|>
        LEARNED: learned,
        "rope_theta": 10000.0,
        "layer_norm_eps": 1e-5,
        "audio_config": _transformer(tensors, _MIMI),
    }


def _transformer(tensors: Mapping[str, StoredTensor], prefix: str) -> dict[str, int]:
    """The sizes of one of the transformers."""
    norm = re.compile(re.escape(prefix) + r"[0-9]{1,6}\.norm1\.weight")
    (width,) = _shape(tensors, f"{prefix}0.norm1.weight", 1)
    inner, _ = _shape(tensors, f"{prefix}0.linear1.weight", 2)
    if width % _HEAD:
        raise InputError(f"has the width {width}, which is not heads of {_HEAD}", tensor=f"{prefix}0.norm1.weight")
    return {
        "num_hidden_layers": sum(norm.fullmatch(name) is not None for name in tensors),
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": width // _HEAD,
    }


def _shape(tensors: Mapping[str, StoredTensor], name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor that says a size of the model."""
    found = tensors.get(name)
    if found is None:
        hint = "a model of Pocket TTS is one file with all its parts: download model.safetensors again"
        raise InputError("is missing, and without config.json only it says a size of the model", tensor=name, hint=hint)
    if len(found.shape) != axes or 0 in found.shape:
        raise InputError(f"has the shape {list(found.shape)}, not {axes} sizes above 0", tensor=name)
    return found.shape
