"""A checkpoint of Qwen3-TTS whose sums are exact in float32, in whatever order they are made.

The embeddings of text go through a small network during conversion. torch sums in an order of its own, which depends on
the machine, so other weights would give other bits.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from synthetic import VOCABULARIES, as_dtype, tensor_bytes, write_safetensors

TEXT, CODES, WIDTH, TEXT_WIDTH, INNER = 512, 1056, 128, 64, 256
_LAYER = "talker.model.layers.{}."
_SPECIAL = {
    "codec_bos_id": 1049,
    "codec_eos_token_id": 1050,
    "codec_pad_id": 1048,
    "codec_language_id": {"chinese": 1030, "english": 1031},
    "spk_id": {},
}
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3TTSForConditionalGeneration"],
    "model_type": "qwen3_tts",
    "talker_config": {
        **_SPECIAL,
        "attention_bias": False,
        "code_predictor_config": {"hidden_size": 64, "num_hidden_layers": 1},
        "head_dim": 32,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "max_position_embeddings": 2048,
        "model_type": "qwen3_tts_talker",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_scaling": {"interleaved": True, "mrope_section": [6, 5, 5], "rope_type": "default", "type": "default"},
        "rope_theta": 1000000,
        "sliding_window": None,
        "text_hidden_size": TEXT_WIDTH,
        "text_vocab_size": TEXT,
        "vocab_size": CODES,
    },
}


def _shapes() -> dict[str, list[int]]:
    shapes = {
        "talker.codec_head.weight": [CODES, WIDTH],
        "talker.code_predictor.lm_head.0.weight": [64, 64],
        "talker.model.codec_embedding.weight": [CODES, WIDTH],
        "talker.model.norm.weight": [WIDTH],
        "speaker_encoder.fc.bias": [64],
    }
    for layer in map(_LAYER.format, range(2)):
        shapes |= {
            f"{layer}input_layernorm.weight": [WIDTH],
            f"{layer}post_attention_layernorm.weight": [WIDTH],
            f"{layer}self_attn.q_proj.weight": [128, WIDTH],
            f"{layer}self_attn.k_proj.weight": [64, WIDTH],
            f"{layer}self_attn.v_proj.weight": [64, WIDTH],
            f"{layer}self_attn.o_proj.weight": [WIDTH, 128],
            f"{layer}self_attn.q_norm.weight": [32],
            f"{layer}self_attn.k_norm.weight": [32],
            f"{layer}mlp.gate_proj.weight": [INNER, WIDTH],
            f"{layer}mlp.up_proj.weight": [INNER, WIDTH],
            f"{layer}mlp.down_proj.weight": [WIDTH, INNER],
        }
    return shapes


def _eighths(name: str, *shape: int) -> NDArray[np.float32]:
    """Multiples of 1/8 between -1 and 1, of which a sum of a hundred products is exact."""
    values = np.frombuffer(tensor_bytes(name, "I8", list(shape)), np.int8).astype(np.float32)
    return (np.fmod(values, 9) / 8).reshape(shape).astype(np.float32)


def _one_in_each_row(rows: int, columns: int) -> NDArray[np.float32]:
    """A matrix with one number in each row, so that no sum is rounded."""
    matrix = np.zeros((rows, columns), np.float32)
    matrix[np.arange(rows), np.arange(rows) * 5 % columns] = np.exp2(np.arange(rows) % 5 - 2)
    return matrix


def write_checkpoint(folder: Path) -> Path:
    """Writes the checkpoint to `folder`, which is made."""
    shutil.copytree(VOCABULARIES / "qwen2", folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    fc1, fc2 = "talker.text_projection.linear_fc1", "talker.text_projection.linear_fc2"
    embeddings = "talker.model.text_embedding.weight"
    exact = {
        embeddings: _eighths(embeddings, TEXT, TEXT_WIDTH),
        f"{fc1}.weight": _eighths(f"{fc1}.weight", TEXT_WIDTH, TEXT_WIDTH),
        f"{fc1}.bias": _eighths(f"{fc1}.bias", TEXT_WIDTH),
        f"{fc2}.weight": _one_in_each_row(WIDTH, TEXT_WIDTH),
        f"{fc2}.bias": _eighths(f"{fc2}.bias", WIDTH),
    }
    tensors = {name: ("BF16", shape, tensor_bytes(name, "BF16", shape)) for name, shape in _shapes().items()}
    tensors |= {name: ("BF16", list(x.shape), as_dtype(x, "BF16").tobytes()) for name, x in exact.items()}
    write_safetensors(folder / "model.safetensors", dict(sorted(tensors.items())))
    return folder
