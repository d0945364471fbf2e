"""The way back to a checkpoint: every family's, and what has none."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import pytest
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import convert
from gguf_forge.architectures.reverse import checkpoint_tensors
from gguf_forge.checkpoint import Checkpoint
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.gguf_file.opened import GgufFile, open_gguf
from gguf_forge.gguf_file.values import Metadata, string, u32
from gguf_forge.kernels.binding import quantize_rows
from gguf_forge.tensors.expression import Stripe, TensorExpr, Unary
from gguf_forge.tensors.joined import Joined
from gguf_forge.tensors.row_maps import permute_rope
from gguf_forge.tensors.stored import Constant
from gguf_forge.types.tensor_type import TENSOR_TYPES

_FLOATS = {name: TENSOR_TYPES[name] for name in ("F32", "F16", "BF16")}


def led_back(gguf: GgufFile) -> Mapping[str, TensorExpr]:
    return checkpoint_tensors(gguf.typed_metadata, {t.name: t.expression() for t in gguf.tensors})


def rounded(expr: TensorExpr, kind: str) -> bytes:
    rows = np.ascontiguousarray(expr.rows(0, expr.n_rows))
    if expr.dtype.name == kind:
        return rows.tobytes()
    out = np.empty((rows.shape[0], _FLOATS[kind].row_bytes(rows.shape[1])), np.uint8)
    quantize_rows(rows, _FLOATS[kind], out)
    return out.tobytes()


_STATES = "the tensors of a state space come back in the shapes of the file"
_OTHERWISE = {
    **dict.fromkeys(
        ("bailingmoe3", "bailingmoe3-vl"), "which layers attend follows from the size of a group, which the file lacks"
    ),
    **dict.fromkeys(("bamba", "granite-unmixed"), "the file says Granite, whose checkpoints have other names"),
    "bert": "the pooler, which llama.cpp does not use, is not in the file",
    "falcon-h1": "the multipliers of its config are not in the file",
    "granite-vision": "the language model comes back by itself: its file does not tell of the other part",
    "gemma3-vision": "the language model comes back by itself: its file does not tell of the other part",
    "nemotron-h-moe": _STATES,
    "nemotron-puzzle": _STATES,
    "gptoss-mxfp4": "blocks of MXFP4 come back as numbers: tested below",
    "chameleon": "of the heads' norms, which are all the same, the file holds the first",
    "bert-classifier": "the last layer of a head comes back under RoBERTa's name for it",
    **dict.fromkeys(
        ("llama-base", "qwen2-base"), "the names come back with the outermost module, which a whole model has"
    ),
    "dots3-note": "what the two kinds of attention are cut into is not in the file under the names of its config",
    "hy4": "the layer that predicts further tokens is not in the file",
    "janus-pro": "the file says Llama, and does not tell of the other parts",
    "sarashina2.2-vision": "the file says Llama, and does not tell of the other parts",
    "unlimited-ocr": "the language model comes back by itself: its file does not tell of the encoders",
    "glm": "the file says ChatGLM, whose checkpoints have other names",
    "granite-moe-swa": "checkpoints hold gate and up of the experts under two names, and the file does not tell which",
    "granite-switch": "adapters of tokens, in the file, are behind an empty one, which has no name in a checkpoint",
    "minimax-text-01": "the last module of attention is called otherwise in layers of linear attention",
    **dict.fromkeys(
        ("qrwkv6", "rwkv7"),
        "of what mixes a token with the one before, the file holds one tensor where they have several",
    ),
    "lfm25-audio-tokenizer": "the window and codes of sound, which llama.cpp does not use, are not in the file",
    "rugpt3xl": "the file says GPT-2, whose checkpoints have other names",
    **dict.fromkeys(
        ("minicpmv46", "qwen3vl"),
        "the language model comes back by itself: its file does not tell of the other part",
    ),
    "qwen3vlmoe": "the language model comes back by itself, with one tensor for each expert",
    "xlmroberta-reranker": "the positions before the first that is used are not in the file",
}
_REVERSIBLE = sorted(folder.name for folder in FAMILIES.iterdir() if folder.name not in _OTHERWISE)


@pytest.mark.parametrize("family", _REVERSIBLE)
@pytest.mark.parametrize("kind", ["auto", "F32"])
def test_every_family_comes_back(family: str, kind: str, tmp_path: Path) -> None:
    """The names, shapes and bits of the checkpoint."""
    source = write_checkpoint(FAMILIES / family, tmp_path / "hf")
    converted = convert(
        source, tmp_path / "m.gguf", types=kind, pre_tokenizer=read_description(FAMILIES / family).pre_tokenizer
    )[0]
    with open_gguf(converted.path) as gguf, Checkpoint.open(source) as checkpoint:
        found = led_back(gguf)
        assert {n: e.shape for n, e in found.items()} == {n: t.shape for n, t in checkpoint.tensors.items()}
        for name, tensor in checkpoint.tensors.items():
            if tensor.dtype not in _FLOATS or (tensor.dtype == "F32" and kind == "auto"):
                continue  # rounded on the way
            if family == "gemma-f16" and name.endswith("norm.weight"):
                continue  # 1 + weight is rounded to 11 bits
            stored = tensor.source.read(tensor.offset, tensor.nbytes).tobytes()
            if name.endswith("A_log"):  # -exp(weight) near 0 has lost bits: 1e-5 becomes the float32 beside -1
                again = np.frombuffer(rounded(found[name], tensor.dtype), f"<u{tensor.nbytes // prod(tensor.shape)}")
                as_stored = np.frombuffer(stored, again.dtype)
                assert np.count_nonzero(again != as_stored) < again.size / 100, name
                continue
            assert rounded(found[name], tensor.dtype) == stored, name


def test_blocks_of_a_checkpoint_come_back_as_numbers(tmp_path: Path) -> None:
    source = write_checkpoint(FAMILIES / "gptoss-mxfp4", tmp_path / "hf")
    pre_tokenizer = read_description(FAMILIES / "gptoss-mxfp4").pre_tokenizer
    path = convert(source, tmp_path / "m.gguf", types="auto", pre_tokenizer=pre_tokenizer)[0].path
    with open_gguf(path) as gguf:
        tensors = {t.name: t.expression() for t in gguf.tensors}
        plain = {
            name: expr if expr.dtype.is_float else Constant(np.zeros(expr.shape, np.float32))
            for name, expr in tensors.items()
        }
        found = checkpoint_tensors(gguf.typed_metadata, plain)
    assert found["model.layers.0.mlp.experts.gate_up_proj"].shape == (4, 64, 128)
    assert found["model.layers.0.mlp.experts.down_proj"].shape == (4, 64, 64)
    assert found["model.layers.0.mlp.experts.gate_up_proj_bias"].shape == (4, 128)


@pytest.mark.parametrize("family", ["llama3-bpe", "mixtral", "gptoss-bf16", "deepseek3"])
def test_rows_come_in_any_order(family: str, tmp_path: Path) -> None:
    """As tasks take them: some here, some there."""
    source = write_checkpoint(FAMILIES / family, tmp_path / "hf")
    pre_tokenizer = read_description(FAMILIES / family).pre_tokenizer
    path = convert(source, tmp_path / "m.gguf", types="BF16", pre_tokenizer=pre_tokenizer)[0].path
    random = np.random.default_rng(1)
    with open_gguf(path) as gguf:
        for expr in led_back(gguf).values():
            rows = random.integers(0, expr.n_rows, 7)
            assert np.array_equal(expr.take(rows), expr.rows(0, expr.n_rows)[rows])
            assert list(expr.sources())
            assert expr.working_set(7) >= expr.take(np.arange(min(7, expr.n_rows))).nbytes


def numbers(*shape: int) -> Constant:
    return Constant(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))


@pytest.mark.parametrize("shape", [(24, 5), (24,)])
@pytest.mark.parametrize("n_head", [1, 2, 3])
def test_rotary_rows_are_put_back(shape: tuple[int, ...], n_head: int) -> None:
    x = numbers(*shape)
    permuted = permute_rope(x, n_head)
    assert isinstance(permuted, Unary)
    back = permuted.inverse(permuted)
    assert np.array_equal(back.rows(0, back.n_rows), x.rows(0, x.n_rows))


@pytest.mark.parametrize("axis", [-1, -2])
def test_pieces_are_put_together(axis: int) -> None:
    x = np.arange(2 * 6 * 4, dtype=np.float32).reshape(2, 6, 4)
    size = x.shape[axis]
    cuts = [(0, size, 2), (1, size, 2)]
    pieces = [
        Stripe(*cut, Constant(np.ascontiguousarray(x[:, slice(*cut)] if axis == -2 else x[:, :, slice(*cut)])))
        for cut in cuts
    ]
    whole = Joined(tuple(pieces), axis, size)
    assert whole.shape == x.shape
    assert np.array_equal(whole.rows(0, 12), x.reshape(12, 4))
    assert np.array_equal(whole.take(np.array([7, 2])), x.reshape(12, 4)[[7, 2]])


LLAMA: Metadata = {
    "general.architecture": string("llama"),
    "llama.block_count": u32(1),
    "llama.attention.head_count": u32(2),
    "llama.attention.head_count_kv": u32(1),
}


def test_generated_tensors_are_left_out() -> None:
    assert list(checkpoint_tensors(LLAMA, {"rope_freqs.weight": numbers(4), "output.weight": numbers(4, 4)})) == [
        "lm_head.weight"
    ]


def test_experts_are_apart_again() -> None:
    found = checkpoint_tensors(LLAMA, {"blk.0.ffn_up_exps.weight": numbers(3, 2, 4)})
    names = [f"model.layers.0.block_sparse_moe.experts.{expert}.w3.weight" for expert in range(3)]
    assert list(found) == names
    assert found[names[1]].rows(0, 2).tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]


@pytest.mark.parametrize(
    ("metadata", "tensors", "problem"),
    [
        (
            {},
            {},
            "the way back to a checkpoint is not known for architecture None; it is for [a-z0-9_, -]*qwen2",
        ),
        ({"general.architecture": string("mamba\x1b")}, {}, r"architecture mamba\\x1b;"),
        (
            LLAMA,
            {"blk.0.odd.weight": numbers(2, 2), "blk.1.odd.weight": numbers(2, 2)},
            r"blk\.\{0\.\.1\}\.odd\.weight",
        ),
        (LLAMA, {"blk.0.ffn_up_exps.weight": numbers(100_001, 1, 1)}, r"ffn_up_exps"),
        (
            {"general.architecture": string("gpt-oss")},
            {"blk.0.ffn_gate_exps.weight": numbers(2, 4, 4), "blk.0.ffn_up_exps.weight": numbers(0, 4, 4)},
            r"ffn_gate_exps(.|\n)*ffn_up_exps",
        ),
        (LLAMA, {"blk.0.ffn_up_exps.weight": numbers(2)}, r"ffn_up_exps"),
        (LLAMA, {"blk.0.attn_q.weight": numbers(6, 2)}, "6 rows are not 2 heads of an even size"),
        ({"general.architecture": string("llama")}, {"blk.0.attn_q.weight": numbers(6, 2)}, "num_attention_heads"),
        (
            {"general.architecture": string("gpt-oss")},
            {"blk.0.ffn_gate_exps.weight": numbers(2, 4, 4)},
            r"1 tensors of this gpt-oss model cannot be led back.*\n.*ffn_gate_exps",
        ),
    ],
)
def test_what_cannot_be_led_back(metadata: Metadata, tensors: Mapping[str, TensorExpr], problem: str) -> None:
    with pytest.raises((UnsupportedError, InputError), match=problem):
        checkpoint_tensors(metadata, tensors)
