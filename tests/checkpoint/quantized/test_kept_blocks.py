"""`--keep-quantized`: blocks of quantized checkpoints become ggml's blocks, and none of their values changes.

The values that the formats stand for are computed here with NumPy, and those of the files by gguf-py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import NARROW
from command_line import Forge
from gguf import GGMLQuantizationType, GGUFReader, dequantize
from jobs import run
from ml_dtypes import bfloat16, float8_e4m3fn
from quantized_checkpoints import (
    Format,
    Made,
    awq,
    compressed,
    gptq,
    int8_channel,
    mlx,
    mxfp4,
    on_grid,
    quantize_folder,
    quantized_llama,
    quanto,
)
from quantized_variants import VARIANTS
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import InputError, Request, UnsupportedError, UsageError, convert, plan, report, verify_gguf
from gguf_forge.checkpoint.safetensors_file import header_size
from gguf_forge.cli.demo_checkpoint import Shape
from gguf_forge.planning.file_plan import WrittenFile
from gguf_forge.storage.local.source_file import SourceFile

WIDE = Shape(n_embd=512, n_ff=640, n_layer=1, n_head=8, n_head_kv=4, n_ctx=128)


def config_of(method: str, **more: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, **more}}


def config_groups(**weights: Any) -> dict[str, Any]:
    return config_of("compressed-tensors", config_groups={"group_0": {"weights": weights}})


GPTQ, AWQ, QUARK = config_of("gptq", bits=4), config_of("awq", bits=4), config_of("quark")
INT4, INT8 = config_groups(num_bits=4), config_groups(num_bits=8)


def mlx_config(bits: int, group: int, mode: str = "affine") -> dict[str, Any]:
    return {"quantization": {"bits": bits, "group_size": group, "mode": mode}}


def kept(made: Made, out: Path, kind: str = "Q4_K_M") -> WrittenFile:
    (written,) = convert(made.folder, out, types=kind, keep_quantized=True)
    return written


def values_of(path: Path) -> dict[str, tuple[str, np.ndarray]]:
    """The type and the float32 values of each tensor, as gguf-py reads them."""
    return {
        tensor.name: (
            GGMLQuantizationType(tensor.tensor_type).name,
            dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1]),
        )
        for tensor in GGUFReader(path).tensors
    }


def assert_kept(made: Made, file: WrittenFile, kind: str) -> None:
    """All projections are blocks of a type, with the very values of the source, the sign of zeros included."""
    found = values_of(file.path)
    assert set(file.file.kept or ()) == set(made.values)
    for name, values in made.values.items():
        assert found[name][0] in kind.split()
        if kind in ("MXFP4", "NVFP4"):  # its blocks have one zero, and the formats have two
            np.testing.assert_array_equal(found[name][1], values)
        else:
            np.testing.assert_array_equal(found[name][1].view(np.uint32), values.view(np.uint32))


CASES = [
    # format, config, the types of its blocks
    (gptq(4, 32), GPTQ, "Q4_0"),
    (gptq(4, 128), GPTQ, "Q4_0"),
    (gptq(4, 64, symmetric=False), GPTQ, "Q5_0"),
    (gptq(3, 32), GPTQ, "Q4_0"),
    (gptq(2, 64), GPTQ, "Q4_0"),
    (gptq(8, 32), GPTQ, "Q8_0"),
    (awq(128), AWQ, "Q5_0"),
    (awq(32), AWQ, "Q5_0"),
    (compressed(4, 32), INT4, "Q4_0"),
    (compressed(4, 128, np.float16), INT4, "Q4_0"),
    (compressed(4, 256, np.float16), INT4, "Q4_0"),  # one group for each row
    (compressed(4, 64, symmetric=False), INT4, "Q4_1 Q5_0"),
    (compressed(8, 128), INT8, "Q8_0"),
    (compressed(5, 32), config_groups(num_bits=5), "Q5_0"),
    (compressed(6, 32), config_groups(num_bits=6), "Q8_0"),
    (int8_channel(), INT8, "Q8_0"),
    (mlx(4, 64), mlx_config(4, 64), "Q4_1"),
    (mlx(4, 32, np.float16), mlx_config(4, 32), "Q4_1"),
    (mlx(2, 32), mlx_config(2, 32), "Q4_1"),
    (mlx(5, 64), mlx_config(5, 64), "Q5_1"),
    (mlx(4, 64, centered=True), mlx_config(4, 64), "Q4_0"),
    (mlx(8, 64, centered=True), mlx_config(8, 64), "Q8_0"),
    (quanto(4, 128), config_of("quanto"), "Q4_1"),
    (quanto(2, 64), config_of("quanto"), "Q4_1"),
    (mxfp4(".weight_packed", ".weight_scale"), INT4, "MXFP4"),
    (mxfp4(".weight", ".weight_scale"), QUARK, "MXFP4"),
    (mxfp4(".weight", ".scales", np.uint32), mlx_config(4, 32, "mxfp4"), "MXFP4"),
    (VARIANTS["MLX NVFP4"].make, mlx_config(4, 16, "nvfp4"), "NVFP4"),
    (on_grid(), {}, "Q4_0"),
    (on_grid(lowest=-7), {}, "Q4_0"),
]


def test_a_gemma_3_that_was_trained_for_q4_0_keeps_it(tmp_path: Path) -> None:
    source = write_checkpoint(FAMILIES / "gemma3-text", tmp_path / "hf")
    hint = read_description(FAMILIES / "gemma3-text").pre_tokenizer
    values = quantize_folder(source, {}, on_grid(lowest=-7, scale_bits=11))
    (file,) = convert(source, tmp_path / "m.gguf", types="Q4_K_M", keep_quantized=True, pre_tokenizer=hint)
    assert len(file.file.kept or ()) == len(values)
    assert {values_of(file.path)[name][0] for name in file.file.kept or ()} == {"Q4_0"}


@pytest.mark.parametrize(("make", "config", "kind"), CASES)
def test_the_values_are_those_of_the_source(make: Format, config: dict[str, Any], kind: str, tmp_path: Path) -> None:
    made = quantized_llama(tmp_path, config, make)
    assert_kept(made, kept(made, tmp_path / "m.gguf"), kind)


@pytest.mark.parametrize(
    ("make", "config", "kind"),
    [(gptq(4, 32), GPTQ, "Q4_0"), (compressed(4, 128), INT4, "Q4_0"), (mlx(4, 64), mlx_config(4, 64), "Q4_1")],
)
def test_other_shapes_keep_their_blocks(make: Format, config: dict[str, Any], kind: str, tmp_path: Path) -> None:
    made = quantized_llama(tmp_path, config, make, WIDE)
    assert_kept(made, kept(made, tmp_path / "m.gguf", "Q6_K"), kind)


@pytest.mark.parametrize(
    ("make", "config", "kind"), [(gptq(4, 32), GPTQ, "Q4_0"), (compressed(4, 64), INT4, "Q4_0"), (awq(64), AWQ, "Q5_0")]
)
def test_experts_keep_their_blocks(make: Format, config: dict[str, Any], kind: str, tmp_path: Path) -> None:
    folder = write_checkpoint(FAMILIES / "qwen3moe", tmp_path / "hf")
    values = quantize_folder(folder, config, make)
    pre_tokenizer = read_description(FAMILIES / "qwen3moe").pre_tokenizer
    (file,) = convert(folder, tmp_path / "m.gguf", types="Q4_K_M", keep_quantized=True, pre_tokenizer=pre_tokenizer)
    found = values_of(file.path)
    for role in ("gate", "up", "down"):
        experts = [stem for stem in values if stem.startswith("model.layers.1.") and stem.endswith(f".{role}_proj")]
        stacked = np.stack([values[f"model.layers.1.mlp.experts.{n}.{role}_proj"] for n in range(len(experts))])
        assert found[f"blk.1.ffn_{role}_exps.weight"][0] == kind
        np.testing.assert_array_equal(
            found[f"blk.1.ffn_{role}_exps.weight"][1].view(np.uint32), stacked.view(np.uint32)
        )
    np.testing.assert_array_equal(found["blk.0.attn_q.weight"][1], values["model.layers.0.self_attn.q_proj"])


def test_an_expert_that_no_block_holds_is_a_reason_to_quantize_all(tmp_path: Path) -> None:
    def make(stem: str, values: np.ndarray) -> Any:
        kind = np.float32 if stem == "model.layers.1.mlp.experts.2.up_proj" else np.float16
        return compressed(4, 32, kind, symmetric="experts.1.gate" not in stem)(stem, values)

    folder = write_checkpoint(FAMILIES / "qwen3moe", tmp_path / "hf")
    quantize_folder(folder, INT4, make)
    pre_tokenizer = read_description(FAMILIES / "qwen3moe").pre_tokenizer
    (file,) = plan(folder, tmp_path / "m.gguf", types="Q4_K_M", keep_quantized=True, pre_tokenizer=pre_tokenizer)
    types = {info.name: info.type.name for info in file.tensors}
    assert types["blk.1.ffn_up_exps.weight"] == "Q4_K"
    assert types["blk.1.ffn_gate_exps.weight"] == "Q5_0"  # one expert has zero points
    assert types["blk.1.ffn_down_exps.weight"] == "Q4_0"


def test_columns_of_a_group_may_lie_apart_in_whole_blocks(tmp_path: Path) -> None:
    order = np.repeat(np.random.default_rng(0).permutation(8), 32)
    made = quantized_llama(tmp_path, GPTQ, gptq(4, 32, order=order))
    assert_kept(made, kept(made, tmp_path / "m.gguf"), "Q4_0")


def test_scattered_columns_of_a_group_are_quantized_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    order = np.random.default_rng(0).permutation(np.arange(256) // 32)
    made = quantized_llama(tmp_path, GPTQ, gptq(4, 32, order=order))
    with caplog.at_level("WARNING"):
        file = kept(made, tmp_path / "m.gguf")
    assert file.file.kept == ()
    assert "14 quantized tensors have values that no blocks hold exactly" in caplog.text
    (plain,) = convert(made.folder, tmp_path / "plain.gguf", types="Q4_K_M")
    assert file.path.read_bytes() == plain.path.read_bytes()


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (compressed(4, 32, np.float32), INT4),  # scales that float16 does not hold
        (mlx(8, 64), mlx_config(8, 64)),  # no type has 8 bits and a minimum
        (compressed(4, 16), INT4),  # two scales for one block
    ],
)
def test_what_no_block_holds_is_quantized_again(make: Format, config: dict[str, Any], tmp_path: Path) -> None:
    made = quantized_llama(tmp_path, config, make)
    file = kept(made, tmp_path / "m.gguf")
    assert file.file.kept == ()
    (plain,) = convert(made.folder, tmp_path / "plain.gguf", types="Q4_K_M")
    assert file.path.read_bytes() == plain.path.read_bytes()


def test_one_tensor_may_be_left_alone(tmp_path: Path) -> None:
    def make(stem: str, values: np.ndarray) -> Any:
        return compressed(4, 32, np.float32 if "layers.1.mlp.up" in stem else np.float16)(stem, values)

    made = quantized_llama(tmp_path, INT4, make)
    file = kept(made, tmp_path / "m.gguf")
    left = made.values.pop("blk.1.ffn_up.weight")
    assert_kept(made, file, "Q4_0")
    kind, values = values_of(file.path)["blk.1.ffn_up.weight"]
    assert kind == "Q4_K"
    assert not np.array_equal(values, left)


def test_the_rest_gets_what_it_gets_without_the_option(tmp_path: Path) -> None:
    made = quantized_llama(tmp_path, INT4, compressed(4, 32))
    file = kept(made, tmp_path / "m.gguf", "Q5_K_M")
    (plain,) = convert(made.folder, tmp_path / "plain.gguf", types="Q5_K_M")
    ours, theirs = (GGUFReader(path) for path in (file.path, plain.path))
    for mine, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert mine.name == other.name
        if mine.name not in made.values:
            assert mine.tensor_type == other.tensor_type
            assert mine.data.tobytes() == other.data.tobytes()
    keys = [{name: field.contents() for name, field in reader.fields.items()} for reader in (ours, theirs)]
    assert keys[0].pop("GGUF.tensor_count") == keys[1].pop("GGUF.tensor_count")
    assert keys[0] == keys[1]


def test_float_types_keep_blocks_too(tmp_path: Path) -> None:
    made = quantized_llama(tmp_path, INT4, compressed(4, 32))
    file = kept(made, tmp_path / "m.gguf", "F16")
    assert_kept(made, file, "Q4_0")
    assert values_of(file.path)["token_embd.weight"][0] == "F16"
    assert GGUFReader(file.path).fields["general.file_type"].contents() == 1


def test_a_type_that_the_user_names_for_a_tensor_is_given(tmp_path: Path) -> None:
    made = quantized_llama(tmp_path, INT4, compressed(4, 32))
    (file,) = convert(
        made.folder, tmp_path / "m.gguf", types="Q4_K_M", keep_quantized=True, tensor_type=("ffn_down=q6_k",)
    )
    (plain,) = convert(made.folder, tmp_path / "plain.gguf", types="Q4_K_M", tensor_type=("ffn_down=q6_k",))
    mine, other = (
        {tensor.name: tensor for tensor in GGUFReader(path).tensors}["blk.0.ffn_down.weight"]
        for path in (file.path, plain.path)
    )
    assert mine.tensor_type == other.tensor_type == GGMLQuantizationType.Q6_K
    assert mine.data.tobytes() == other.data.tobytes()


def test_products_that_bf16_rounded_are_on_the_grid(tmp_path: Path) -> None:
    made = quantized_llama(tmp_path, {}, on_grid(lowest=-7, scale_bits=11))
    file = kept(made, tmp_path / "m.gguf")
    assert set(file.file.kept or ()) == set(made.values)
    found = values_of(file.path)
    for name, values in made.values.items():
        assert found[name][0] == "Q4_0"
        np.testing.assert_array_equal(found[name][1].astype(bfloat16), values.astype(bfloat16))
    assert verify_gguf(file.path, made.folder).ok


def test_rows_off_the_grid_that_no_sample_met_are_refused(tmp_path: Path) -> None:
    def make(stem: str, values: np.ndarray) -> Any:
        parts, weights = on_grid()(stem, values)
        if "layers.1.mlp.down" in stem:
            parts[".weight"][3, 7] = 0.12345  # row 3 is not one of the 16 that are looked at
        return parts, weights

    made = quantized_llama(tmp_path, {}, make)
    with pytest.raises(InputError, match=r"blk\.1\.ffn_down\.weight: row 3 is not on the grid of Q4_0"):
        kept(made, tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


def test_ternary_weights_and_plain_ones_are_quantized(tmp_path: Path) -> None:
    def ternary(stem: str, values: np.ndarray) -> Any:
        weights = np.sign(values) * np.float32(0.5)
        return {".weight": weights.astype(np.float16)}, weights

    made = quantized_llama(tmp_path, {}, ternary)
    assert kept(made, tmp_path / "m.gguf").file.kept == ()


def test_rows_of_no_whole_blocks_are_quantized_again(tmp_path: Path) -> None:
    shape = Shape(n_embd=48, n_ff=96, n_layer=1, n_head=2, n_head_kv=2, n_ctx=128)
    made = quantized_llama(tmp_path, INT8, int8_channel(), shape)
    file = kept(made, tmp_path / "m.gguf", "Q8_0")
    assert file.file.kept == ("blk.0.ffn_down.weight",)
    narrow = quantized_llama(tmp_path / "narrow", INT8, int8_channel(), NARROW)
    assert_kept(narrow, kept(narrow, tmp_path / "n.gguf", "Q8_0"), "Q8_0")


@pytest.mark.parametrize(
    ("make", "config", "kind"),
    [
        (gptq(4, 32), GPTQ, "Q4_0"),
        (awq(128), AWQ, "Q4_K_M"),
        (mlx(4, 64), mlx_config(4, 64), "Q6_K"),
        (mxfp4(".weight_packed", ".weight_scale"), INT4, "Q4_K_M"),
        (on_grid(lowest=-7), {}, "Q4_0"),
    ],
)
def test_verify_finds_that_blocks_were_kept(make: Format, config: dict[str, Any], kind: str, tmp_path: Path) -> None:
    made = quantized_llama(tmp_path, config, make)
    file = kept(made, tmp_path / "m.gguf", kind)
    assert verify_gguf(file.path, made.folder).ok
    (plain,) = convert(made.folder, tmp_path / "plain.gguf", types=kind)
    assert verify_gguf(plain.path, made.folder).ok
    raw = bytearray(file.path.read_bytes())
    tensor = next(t for t in GGUFReader(file.path).tensors if t.name == "blk.1.ffn_up.weight")
    raw[tensor.data_offset + 700] ^= 0x10
    file.path.write_bytes(raw)
    found = verify_gguf(file.path, made.folder)
    assert not found.ok
    assert found.first is not None
    assert found.first.info.name == "blk.1.ffn_up.weight"
    assert [check.info.name for check in found.tensors if check.verdict.name != "IDENTICAL"] == ["blk.1.ffn_up.weight"]


def test_a_job_makes_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = quantized_llama(tmp_path, INT4, compressed(4, 32))
    monkeypatch.chdir(tmp_path)
    assert run(Request(source="Tiny", out="job.gguf", types=("Q4_K_M",), keep_quantized=True), 3) == 3
    assert (tmp_path / "job.gguf").read_bytes() == kept(made, tmp_path / "m.gguf").path.read_bytes()


def test_a_report_shows_that_nothing_was_lost(tmp_path: Path) -> None:
    made = quantized_llama(tmp_path, INT4, compressed(4, 32))
    told = report(kept(made, tmp_path / "m.gguf").path, tmp_path / "m.html", source=made.folder)
    errors = {tensor.name: tensor.error for tensor in told.tensors}
    assert all(error is not None for error in errors.values())
    equal = {name for name, error in errors.items() if error is not None and error.worst is None}
    assert equal >= set(made.values)
    assert "output.weight" not in equal


def test_the_size_of_the_source_is_that_of_its_codes_and_scales(tmp_path: Path) -> None:
    made = quantized_llama(tmp_path, GPTQ, gptq(4, 32))
    file = made.folder / "model.safetensors"
    stored = file.stat().st_size - header_size(SourceFile(file))
    (planned,) = plan(made.folder, tmp_path / "m.gguf", types="Q4_K_M")
    assert planned.source_bytes == stored


def test_what_is_shown_says_how_many_blocks_are_kept(tmp_path: Path, forge: Forge) -> None:
    made = quantized_llama(tmp_path, INT4, compressed(4, 32))
    options = (str(made.folder), "-t", "Q4_K_M", "--keep-quantized", "-o", str(tmp_path / "m.gguf"))
    assert "14 of 21 tensors" in forge("plan", *options).out
    assert forge("plan", *options, "--json").json["files"][0]["kept"] == sorted(made.values)
    assert "14 Q4_0" in forge("convert", *options).out


def test_the_option_is_refused_where_it_makes_no_sense(tmp_path: Path) -> None:
    made = quantized_llama(tmp_path, INT4, compressed(4, 32))
    with pytest.raises(UsageError, match="exclude each other"):
        convert(made.folder, tmp_path / "m.gguf", types="Q4_K_M", keep_quantized=True, allow_requantize=True)
    file = kept(made, tmp_path / "m.gguf")
    with pytest.raises(UsageError, match="keep_quantized=True: not for a GGUF file"):
        convert(file.path, tmp_path / "n.gguf", types="Q8_0", keep_quantized=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scales_that_are_no_numbers_are_told_while_planning(bad: float, tmp_path: Path) -> None:
    def make(stem: str, values: np.ndarray) -> Any:
        parts, weights = compressed(4, 32)(stem, values)
        if "layers.1.mlp.up" in stem:
            parts[".weight_scale"][200, 3] = bad
        return parts, weights

    made = quantized_llama(tmp_path, INT4, make)
    with pytest.raises(InputError, match=r"blk\.1\.ffn_up\.weight: a scale or zero point is infinite or not a number"):
        plan(made.folder, tmp_path / "m.gguf", types="Q4_K_M", keep_quantized=True)


def test_a_scale_of_mxfp4_that_is_no_number_is_told(tmp_path: Path) -> None:
    def make(stem: str, values: np.ndarray) -> Any:
        parts, weights = mxfp4(".weight", ".weight_scale")(stem, values)
        if "layers.0.mlp.up" in stem:
            parts[".weight_scale"][9, 1] = 255
        return parts, weights

    made = quantized_llama(tmp_path, QUARK, make)
    with pytest.raises(InputError, match=r"blk\.0\.ffn_up\.weight: a scale is not a number"):
        plan(made.folder, tmp_path / "m.gguf", types="Q4_K_M", keep_quantized=True)


def test_blocks_of_nvfp4_stay_in_a_quantized_file(tmp_path: Path) -> None:
    def nvfp4(stem: str, values: np.ndarray) -> Any:
        codes = np.random.default_rng(0).integers(0, 256, (values.shape[0], values.shape[1] // 2), np.uint8)
        scales = np.full((values.shape[0], values.shape[1] // 16), 0x38, np.uint8)  # 1 in e4m3
        return {".weight_packed": codes, ".weight_scale": scales.view(float8_e4m3fn)}, values

    made = quantized_llama(tmp_path, INT4, nvfp4)
    with pytest.raises(UnsupportedError, match="keep_quantized=True keeps what is in NVFP4"):
        convert(made.folder, tmp_path / "m.gguf", types="Q4_K_M")
    file = kept(made, tmp_path / "m.gguf")
    found = values_of(file.path)
    assert {found[name][0] for name in made.values} == {"NVFP4"}
    assert found["output.weight"][0] == "Q6_K"
    assert GGUFReader(file.path).fields["general.file_type"].contents() == 15
    assert verify_gguf(file.path, made.folder).ok
