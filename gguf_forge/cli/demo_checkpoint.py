"""Makes a small Llama checkpoint out of nothing: random weights, a tokenizer, the same bytes every time.

It is a folder as the hub has them, so the main job can be seen on a machine without a model or a network.
"""

from __future__ import annotations

import json
import string
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from ml_dtypes import bfloat16
from numpy.typing import NDArray

# Frequent English words. They make the random output of the model easier to read than single letters would.
_WORDS = """
the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not
what all were we when your can said there use an each which she do how their if will up other about out many then
them these so some her would make like him into time has look two more write go see number no way could people my
than first water been call who oil its now find long down day did get come made may part over new sound take only
little work know place year live me back give most very after thing our just name good sentence man think say great
where help through much before line right too mean old any same tell boy follow came want show also around form
three small set put end does another well large must big even such because turn here why ask went men read need
land different home us move try kind hand picture again change off play spell air away animal house point page
letter mother answer found study still learn should world
"""


@dataclass(frozen=True)
class Shape:
    """The size of a Llama model; the default has 17 million weights, in rows that every type's blocks divide.

    Attributes:
        n_vocab: Rows of the embeddings. If the tokenizer has more pieces than this, there is a row for each piece.
    """

    n_embd: int = 512
    n_ff: int = 1536
    n_layer: int = 5
    n_head: int = 8
    n_head_kv: int = 4
    n_ctx: int = 2048
    n_vocab: int = 0

    @property
    def n_kv(self) -> int:
        return self.n_embd // self.n_head * self.n_head_kv


def make_model(folder: Path, shape: Shape = Shape(), *, dtype: str = "BF16") -> None:
    """Writes a Llama checkpoint: config.json, tokenizer.model, tokenizer_config.json, model.safetensors.

    Args:
        folder: The folder to write to. It is created, and files in it are replaced.
        shape: The size of the model.
        dtype: The type of the weights: F32, F16 or BF16.

    Raises:
        OSError: the folder cannot be written.

    Example:
        >>> make_model(Path("Tiny-Llama"), Shape(n_layer=1))  # doctest: +SKIP
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = pieces()
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(vocabulary))
    _write_json(folder / "tokenizer_config.json", _TOKENIZER_CONFIG)
    n_vocab = max(shape.n_vocab, len(vocabulary))
    _write_json(folder / "config.json", _config(shape, n_vocab, dtype))
    write_weights(folder / "model.safetensors", tensor_shapes(shape, n_vocab), dtype)


_TOKENIZER_CONFIG = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "tokenizer_class": "LlamaTokenizer",
}
_DTYPES = {
    "F32": ("float32", np.dtype(np.float32)),
    "F16": ("float16", np.dtype(np.float16)),
    "BF16": ("bfloat16", np.dtype(bfloat16)),
}


def _config(shape: Shape, n_vocab: int, dtype: str) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": n_vocab,
        "hidden_size": shape.n_embd,
        "intermediate_size": shape.n_ff,
        "num_hidden_layers": shape.n_layer,
        "num_attention_heads": shape.n_head,
        "num_key_value_heads": shape.n_head_kv,
        "max_position_embeddings": shape.n_ctx,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": _DTYPES[dtype][0],
    }


def tensor_shapes(shape: Shape, n_vocab: int) -> dict[str, tuple[int, ...]]:
    """Name and shape (rows, columns) of each tensor of the checkpoint."""
    layer = {
        "self_attn.q_proj": (shape.n_embd, shape.n_embd),
        "self_attn.k_proj": (shape.n_kv, shape.n_embd),
        "self_attn.v_proj": (shape.n_kv, shape.n_embd),
        "self_attn.o_proj": (shape.n_embd, shape.n_embd),
        "mlp.gate_proj": (shape.n_ff, shape.n_embd),
        "mlp.up_proj": (shape.n_ff, shape.n_embd),
        "mlp.down_proj": (shape.n_embd, shape.n_ff),
        "input_layernorm": (shape.n_embd,),
        "post_attention_layernorm": (shape.n_embd,),
    }
    layers = {f"model.layers.{i}.{name}.weight": dims for i in range(shape.n_layer) for name, dims in layer.items()}
    matrix = (n_vocab, shape.n_embd)
    ends = {"model.norm.weight": (shape.n_embd,), "lm_head.weight": matrix}
    return {"model.embed_tokens.weight": matrix, **layers, **ends}


def write_weights(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "BF16") -> None:
    """A safetensors file of random weights: matrices of standard deviation 0.02, norms of ones.

    Source of the format: safetensors' README.
    """
    kind = _DTYPES[dtype][1]
    header, offset = {}, 0
    for name, dims in shapes.items():
        end = offset + prod(dims) * kind.itemsize
        header[name] = {"dtype": dtype, "shape": dims, "data_offsets": (offset, end)}
        offset = end
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for number, dims in enumerate(shapes.values()):
            values = _normal(number, prod(dims)) if len(dims) > 1 else np.ones(dims, np.float32)
            file.write(values.astype(kind).view(np.uint8).data)


# The deviation of four uniform 16-bit numbers' sum is 2 * 65536 / sqrt(12).
_SPREAD = np.float32(0.02 * 12**0.5 / 2 / 65536)


def _normal(seed: int, n: int) -> NDArray[np.float32]:
    """Nearly normal values with standard deviation 0.02: sums of four 16-bit numbers, exact on every machine.

    NumPy promises that the raw stream of PCG64 never changes; it does not promise it of its distributions.
    """
    uniform = np.random.PCG64(seed).random_raw(n).view(np.uint16).reshape(n, 4)
    sums = uniform.sum(axis=1, dtype=np.int32) - 2 * 0xFFFF
    values: NDArray[np.float32] = sums.astype(np.float32) * _SPREAD
    return values


def pieces() -> tuple[tuple[str, float, int], ...]:
    """The vocabulary as (text, score, kind of piece): special ones, bytes, letters, and the words' beginnings."""
    starts = dict.fromkeys(start for word in _WORDS.split() for start in _beginnings("▁" + word))
    characters = dict.fromkeys("▁" + string.ascii_letters + string.digits + string.punctuation)
    special = (("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3))
    single_bytes = tuple((f"<0x{byte:02X}>", 0.0, 6) for byte in range(256))
    normal = [text for text in (*characters, *starts) if len(text) == 1] + list(starts)
    return (*special, *single_bytes, *((text, -float(rank), 1) for rank, text in enumerate(normal)))


def _beginnings(word: str) -> Iterator[str]:
    # Every beginning of a word is a piece, so that merges of two pieces at a time can build each word.
    return (word[:length] for length in range(2, len(word) + 1))


def sentencepiece_model(vocabulary: tuple[tuple[str, float, int], ...]) -> bytes:
    """A SentencePiece model (protobuf) of type BPE with these pieces. Source: sentencepiece_model.proto."""
    trainer = _field(3, 2) + _field(35, 1)  # model_type: BPE; byte_fallback
    normalizer = _field(1, b"identity") + _field(3, 1) + _field(4, 0) + _field(5, 1)
    encoded = (
        _field(1, text.encode()) + _key(2, 5) + struct.pack("<f", score) + _field(3, kind)
        for text, score, kind in vocabulary
    )
    return b"".join(_field(1, piece) for piece in encoded) + _field(2, trainer) + _field(3, normalizer)


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _key(number, 0) + _varint(value)
    return _key(number, 2) + _varint(len(value)) + value


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    low = bytearray()
    while value > 0x7F:
        low.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(low) + bytes([value])


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
