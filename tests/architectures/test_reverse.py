"""The way back to a checkpoint: every family's, and what has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import projectors
import pytest
from corpus import Cases
from led_back import outcome, parts_of_cases
from safetensors import safe_open
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import Request, convert, dequantize_gguf
from gguf_forge.architectures.reverse import lead_back
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
    return lead_back(gguf.typed_metadata, {t.name: t.expression() for t in gguf.tensors}).tensors


def rounded(expr: TensorExpr, kind: str) -> bytes:
    rows = np.ascontiguousarray(expr.rows(0, expr.n_rows))
    if expr.dtype.name == kind:
        return rows.tobytes()
    out = np.empty((rows.shape[0], _FLOATS[kind].row_bytes(rows.shape[1])), np.uint8)
    quantize_rows(rows, _FLOATS[kind], out)
    return out.tobytes()


_UNLIKE = "an equal model comes back: batch norms without mean and variance, which the file has folded in"
_LOST = "the file lacks rows that llama.cpp does not use; they come back as zeros"
_BREAK = "of the embeddings, which belong to the language model's file, the file has one row"
_CUT = "of the learned positions, the file has those of pictures of one size"
# What does not come back as it was, not even with config.json, and the fact about the file that is why.
_OTHERWISE = {
    "bitnet": "matrices are rounded to three values; others come back that are rounded to the same",
    "chameleon": "the file holds the norm of the first head, which stands for all: of random weights they differ",
    "gemma-f16": "1 + weight is rounded to 11 bits",
    "granite-speech": _UNLIKE,
    "granite-speech-plus": _UNLIKE,
    "hunyuan-vl--mmproj": _LOST,
    "jais": "products with a number of the config are rounded to 11 bits, so that different values became equal",
    "kimi-k3": "the file holds the product of a norm and a projection; they come back as ones and this product",
    "lfm2-audio": _UNLIKE,
    "llava-pixtral--mmproj": _BREAK,
    "mistral-native-vl--mmproj--mistral-format": _BREAK,
    "mistral4-vl--mmproj": _BREAK,
    "muse-glimmer--mmproj": "the file holds the sum of the matrices for two frames; each comes back as half of it",
    "nemotron-nano-omni": _CUT,
    "nemotron-nano-vl": _CUT,
    "pixtral": _BREAK,
    "pocket-tts": "refused: the last row of the embeddings went through a matrix that is not in the file",
    "qwen3-tts": "the file holds the codebooks' sums divided by counts; they come back with counts of 1",
    "qwen3moe-mlx-4bit": "the file does not tell that MLX stacks experts: they come back one by one",
    "roberta": _LOST,
    "sarvam-moe": "the file lacks the mean of the router's correction, which changes no choice",
    "xlmroberta": _LOST,
    "xlmroberta-reranker": _LOST,
}


def _check(name: str, request: Request) -> None:
    found = outcome(request)
    assert (found.by == "none") == (name in _OTHERWISE), (found, _OTHERWISE.get(name))


@pytest.mark.parametrize("family", sorted(folder.name for folder in FAMILIES.iterdir()))
def test_every_family_comes_back(family: str, tmp_path: Path) -> None:
    """The names, shapes and values of the checkpoint: by the file alone, or with config.json."""
    source = write_checkpoint(FAMILIES / family, tmp_path / "hf")
    pre_tokenizer = read_description(FAMILIES / family).pre_tokenizer
    _check(family, Request(source=str(source), pre_tokenizer=pre_tokenizer))


@pytest.mark.parametrize("description", projectors.descriptions(), ids=lambda path: path.stem)
def test_every_projector_and_draft_comes_back(description: Path, tmp_path: Path) -> None:
    source = projectors.write(description, tmp_path / "hf")
    _check(description.stem, Request(source=str(source), **projectors.options(description, tmp_path)))


def test_every_case_comes_back(cases: Cases) -> None:
    """All parts of all cases of the conformance corpus."""
    found = {name: outcome(request) for name, request in parts_of_cases(cases)}
    others = {name: one.differs for name, one in found.items() if one.by == "none"}
    assert others.keys() == _OTHERWISE.keys() & found.keys(), others


@pytest.mark.parametrize("family", ["llama3-bpe", "mixtral", "gemma2", "deepseek3", "nemotron-h-moe"])
@pytest.mark.parametrize("kind", ["auto", "F32"])
def test_files_come_back(family: str, kind: str, tmp_path: Path) -> None:
    """Bit for bit, where the file's type holds the checkpoint's."""
    source = write_checkpoint(FAMILIES / family, tmp_path / "hf")
    pre_tokenizer = read_description(FAMILIES / family).pre_tokenizer
    converted = convert(source, tmp_path / "m.gguf", types=kind, pre_tokenizer=pre_tokenizer)[0]
    with open_gguf(converted.path) as gguf, Checkpoint.open(source) as checkpoint:
        found = led_back(gguf)
        assert {n: e.shape for n, e in found.items()} == {n: t.shape for n, t in checkpoint.tensors.items()}
        for name, tensor in checkpoint.tensors.items():
            if tensor.dtype not in _FLOATS or (tensor.dtype == "F32" and (kind == "auto" or name.endswith("A_log"))):
                continue  # rounded on the way
            stored = tensor.source.read(tensor.offset, tensor.nbytes).tobytes()
            assert rounded(found[name], tensor.dtype) == stored, name


def test_the_config_names_the_class(tmp_path: Path) -> None:
    """Llama's file does not tell that its tensors were a part of another model; config.json does."""
    source = write_checkpoint(FAMILIES / "janus-pro", tmp_path / "hf")
    pre_tokenizer = read_description(FAMILIES / "janus-pro").pre_tokenizer
    path = convert(source, tmp_path / "m.gguf", types="F32", pre_tokenizer=pre_tokenizer)[0].path
    for config, prefix in ((None, "model.layers."), (source / "config.json", "model.language_model.layers.")):
        made = dequantize_gguf(path, tmp_path / f"{config is None}", safetensors=True, config=config)
        with safe_open(made.path, "np") as opened:
            names = set(opened.keys())
        assert f"{prefix}0.self_attn.q_proj.weight" in names
    other = write_checkpoint(FAMILIES / "gemma2", tmp_path / "other")
    with pytest.raises(InputError, match="Gemma2ForCausalLM makes no file of architecture llama"):
        dequantize_gguf(path, tmp_path / "third", safetensors=True, config=other)


def test_tensors_of_further_files_are_written_to_these(tmp_path: Path) -> None:
    (description,) = (path for path in projectors.descriptions() if path.stem == "qwen3-tts")
    source = projectors.write(description, tmp_path / "hf")
    made = convert(source, tmp_path / "m.gguf", types="F32", **projectors.options(description, tmp_path))[0].path
    written = dequantize_gguf(made, tmp_path / "back", safetensors=True, config=source)
    files = ("model.safetensors", "speech_tokenizer/model.safetensors")
    assert [shard.path for shard in written.file.shards] == [tmp_path / "back" / name for name in files]
    for name in files:
        with safe_open(tmp_path / "back" / name, "np") as found, safe_open(source / name, "np") as wanted:
            assert set(found.keys()) <= set(wanted.keys())


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
        found = lead_back(gguf.typed_metadata, plain).tensors
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
    assert list(lead_back(LLAMA, {"rope_freqs.weight": numbers(4), "output.weight": numbers(4, 4)}).tensors) == [
        "lm_head.weight"
    ]


def test_experts_are_apart_again() -> None:
    found = lead_back(LLAMA, {"blk.0.ffn_up_exps.weight": numbers(3, 2, 4)}).tensors
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
        lead_back(metadata, tensors)
