"""`--lora`: a file of a checkpoint with adapters merged in is that of the merged checkpoint."""

from __future__ import annotations

import logging
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from adapters import (
    PREFIX,
    Floats,
    adapter_for,
    change_of,
    factor,
    made_of,
    merged,
    pairs_for,
    plus,
    shape_of,
    shapes_of,
    with_tensors,
    write_adapter,
)
from checkpoints import tiny_llama
from quantized_checkpoints import Format, gptq, mlx, quantize_folder
from weights import file_of

from gguf_forge import InputError, UnsupportedError, convert, open_gguf, plan
from gguf_forge.checkpoint import adapter as adapter_module
from gguf_forge.cli import main
from gguf_forge.storage.local.source_file import SourceFile

Q, DOWN, HEAD = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", "lm_head"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path)


def all_types(model: Path, folder: Path, **more: object) -> dict[str, bytes]:
    """The bytes of a checkpoint's files of some types, whatever the name of its folder."""
    folder.mkdir()
    named = folder / "One"
    named.symlink_to(model.resolve())
    made = convert(named, folder / "out/", types=["BF16", "F32", "Q8_0", "Q4_K_M"], **more)
    return {file.path.name: file.path.read_bytes() for file in made}


def test_a_llama_merged_on_the_fly_is_the_merged_llama(model: Path, tmp_path: Path) -> None:
    modules = [f"model.layers.{i}.{name}_proj" for i in (0, 1) for name in ("self_attn.q", "self_attn.k", "mlp.up")]
    tensors = adapter_for(model, tmp_path / "a", *modules)
    whole = merged(model, tmp_path / "m", {f"{name}.weight": change_of(tensors, name, 2.0) for name in modules})
    made = all_types(model, tmp_path / "x", lora=[tmp_path / "a"])
    assert made == all_types(whole, tmp_path / "y")
    assert made != all_types(model, tmp_path / "z")


def test_base_and_adapter_are_read_once(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter_for(model, tmp_path / "a", Q, DOWN)
    read, counted = SourceFile.read, Counter[tuple[str, int]]()

    def counting(self: SourceFile, offset: int, nbytes: int, *, at: int = 0) -> object:
        if threading.current_thread() is not threading.main_thread():  # which reads headers
            counted.update((self.path.name, offset + byte) for byte in range(nbytes))
        return read(self, offset, nbytes, at=at)

    monkeypatch.setattr(SourceFile, "read", counting)
    monkeypatch.setattr("gguf_forge.engine.forge.BATCH_VALUES", 2048)
    convert(model, tmp_path / "o.gguf", types="Q8_0", lora=[tmp_path / "a"])
    assert set(counted.values()) == {1}
    assert len({file for file, _ in counted}) == 2


@pytest.mark.parametrize("family", ["phi3", "qwen3moe", "mixtral", "gptoss-bf16"])
def test_families_that_split_and_stack(family: str, tmp_path: Path) -> None:
    model, how = made_of(family, tmp_path)
    matrices = [name for name, shape in shapes_of(model).items() if len(shape) == 2 and name.endswith(".weight")]
    modules = [name.removesuffix(".weight") for name in matrices if "layers." in name]
    tensors = adapter_for(model, tmp_path / "a", *modules)
    whole = merged(model, tmp_path / "m", {f"{name}.weight": change_of(tensors, name, 2.0) for name in modules})
    assert file_of(model, lora=[tmp_path / "a"], **how) == file_of(whole, **how) != file_of(model, **how)


def test_factors_in_bfloat16_and_weights_in_float16(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path, dtype="F16")
    shape = shape_of(model, f"{Q}.weight")
    b, a = (np.round(factor(seed, *size) * 64) / 64 for seed, size in ((1, (shape[0], 4)), (2, (4, shape[1]))))
    pair = {f"{PREFIX}{Q}.lora_A.weight": a, f"{PREFIX}{Q}.lora_B.weight": b}
    write_adapter(tmp_path / "a", pair, dtype="BF16")
    whole = merged(model, tmp_path / "m", {f"{Q}.weight": plus(2.0, b, a)})
    assert file_of(model, lora=[tmp_path / "a"]) == file_of(whole)


def test_several_adapters_are_rounded_once(model: Path, tmp_path: Path) -> None:
    one = adapter_for(model, tmp_path / "a", Q, DOWN)
    two = adapter_for(model, tmp_path / "b", DOWN, Q, lora_alpha=3, rank=8)
    changes = {
        f"{name}.weight": lambda w, name=name: change_of(two, name, 3 / 8 * -0.25)(change_of(one, name, 2.0 * 0.5)(w))
        for name in (Q, DOWN)
    }
    whole = merged(model, tmp_path / "m", changes)
    lora = [f"{tmp_path / 'a'}:0.5", f"{tmp_path / 'b'}:-0.25"]
    assert file_of(model, lora=lora) == file_of(whole)
    assert file_of(model, lora=lora[::-1]) != file_of(model)


def test_a_stabilized_rank_and_patterns(model: Path, tmp_path: Path) -> None:
    tensors = adapter_for(
        *(model, tmp_path / "a", Q, DOWN), rank=9, use_rslora=True, r=4, alpha_pattern={r"layers\.\d+\.mlp\.down.*": 5}
    )
    scales = {Q: 8 / 3, DOWN: 5 / 3}
    whole = merged(model, tmp_path / "m", {f"{n}.weight": change_of(tensors, n, s) for n, s in scales.items()})
    assert file_of(model, lora=[tmp_path / "a"]) == file_of(whole)


def test_the_first_pattern_that_matches_counts(model: Path, tmp_path: Path) -> None:
    patterns = {"q_pro": 100, "layers.1.self_attn.q_proj": 100, "q_[a-p]roj": 4, "self_attn.q_proj": 100}
    tensors = adapter_for(model, tmp_path / "a", Q, alpha_pattern=patterns)
    whole = merged(model, tmp_path / "m", {f"{Q}.weight": change_of(tensors, Q, 1.0)})
    assert file_of(model, lora=[tmp_path / "a"]) == file_of(whole)


def test_whole_modules_and_biases(tmp_path: Path) -> None:
    model, how = made_of("qwen2", tmp_path)
    pair = pairs_for({Q: shape_of(model, f"{Q}.weight")})
    bias, norm = f"{Q}.bias", "model.layers.0.input_layernorm.weight"
    more = factor(11, *shape_of(model, bias))
    trained = factor(12, *shape_of(model, norm)).astype(np.float16).astype(np.float32)
    held = {**pair, f"{PREFIX}{Q}.lora_B.bias": more, f"{PREFIX}{norm}": trained}
    write_adapter(tmp_path / "a", held, lora_bias=True, modules_to_save=["input_layernorm"])
    b, a = (pair[f"{PREFIX}{Q}.lora_{x}.weight"] for x in "BA")
    changes = {
        f"{Q}.weight": plus(2.0, b, a),
        bias: lambda x: x + more * np.float32(2),
    }

    held = {norm: ("F32", list(trained.shape), trained.tobytes())}
    whole = with_tensors(merged(model, tmp_path / "m", changes), tmp_path / "n", held)
    assert file_of(model, lora=[tmp_path / "a"], **how) == file_of(whole, **how)


def with_dora(folder: Path, seed: int, shape: tuple[int, ...]) -> Callable[..., Floats]:
    """Writes a DoRA adapter for Q, and gives what it makes of a weight; `base`: the one without other adapters."""
    a, b, lengths = factor(seed, 4, shape[1]), factor(seed + 1, shape[0], 4), np.abs(factor(seed + 2, shape[0])) + 1
    held = {f"{PREFIX}{Q}.lora_A.weight": a, f"{PREFIX}{Q}.lora_B.weight": b}
    write_adapter(folder, {**held, f"{PREFIX}{Q}.lora_magnitude_vector": lengths}, use_dora=True)

    def change(weight: Floats, base: Floats | None = None) -> Floats:
        alone = plus(2.0, b, a)(weight if base is None else base)
        squares = np.zeros(len(alone), np.float64)
        for column in alone.T:
            squares += column.astype(np.float64) ** 2
        return plus(2.0, b, a)(weight) * (lengths / np.sqrt(squares).astype(np.float32))[:, None]

    return change


def test_dora(model: Path, tmp_path: Path) -> None:
    change = with_dora(tmp_path / "a", 3, shape_of(model, f"{Q}.weight"))
    whole = merged(model, tmp_path / "m", {f"{Q}.weight": change})
    assert file_of(model, lora=[tmp_path / "a"]) == file_of(whole)


def test_dora_measures_rows_without_other_adapters(model: Path, tmp_path: Path) -> None:
    plain = change_of(adapter_for(model, tmp_path / "plain", Q), Q, 2.0)
    one, two = (with_dora(tmp_path / str(seed), seed, shape_of(model, f"{Q}.weight")) for seed in (3, 6))
    after_dora = merged(model, tmp_path / "m", {f"{Q}.weight": lambda w: two(one(w), w)})
    assert file_of(model, lora=[tmp_path / "3", tmp_path / "6"]) == file_of(after_dora)
    after_plain = merged(model, tmp_path / "n", {f"{Q}.weight": lambda w: one(plain(w), w)})
    assert file_of(model, lora=[tmp_path / "plain", tmp_path / "3"]) == file_of(after_plain)


def test_names_of_another_version_of_transformers(model: Path, tmp_path: Path) -> None:
    tensors = adapter_for(model, tmp_path / "a", Q)
    whole = merged(model, tmp_path / "m", {f"{Q}.weight": change_of(tensors, Q, 2.0)})
    other = {f"{PREFIX}model.language_{name}": values for name, values in tensors.items()}
    write_adapter(tmp_path / "b", other)
    assert file_of(model, lora=[tmp_path / "b"]) == file_of(whole)


def test_a_folder_with_a_colon_in_its_name(model: Path, tmp_path: Path) -> None:
    tensors = adapter_for(model, tmp_path / "a:0.5", Q)
    whole = merged(model, tmp_path / "m", {f"{Q}.weight": change_of(tensors, Q, 2.0)})
    assert file_of(model, lora=[tmp_path / "a:0.5"]) == file_of(whole)


def test_verify_makes_the_file_again(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter_for(model, tmp_path / "a", Q)
    out, lora = str(tmp_path / "o.gguf"), ["--lora", f"{tmp_path / 'a'}:0.5"]
    assert main(["convert", str(model), "-o", out, "-t", "Q4_K_M", *lora]) == 0
    assert main(["verify", out, "--source", str(model), *lora]) == 0
    capsys.readouterr()
    assert main(["verify", out, "--source", str(model)]) == 7
    assert main(["verify", out, "--lora", "a"]) == 2


def test_a_file_that_lacks_the_adapter(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter_for(model, tmp_path / "my-adapter", Q)
    out = str(tmp_path / "o.gguf")
    assert main(["convert", str(model), "-o", out, "-t", "BF16"]) == 0
    capsys.readouterr()
    assert main(["verify", out, "--source", str(model), "--lora", str(tmp_path / "my-adapter")]) == 7
    assert "without the adapter my-adapter" in capsys.readouterr().out


def test_changes_of_another_part_are_a_warning(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = pairs_for({Q: (256, 256)}) | {f"{PREFIX}model.layers.0.self_attn.rotary_emb.inv_freq": factor(1, 32)}
    write_adapter(tmp_path / "a", tensors)

    held = {"model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [32], factor(2, 32).tobytes())}
    other = with_tensors(model, tmp_path / "m", held)
    assert main(["plan", str(other), "--lora", str(tmp_path / "a"), "--summary"]) == 0
    assert "1 of 3 tensors change nothing in this file" in " ".join(capsys.readouterr().err.split())


def test_encoders_of_pictures(tmp_path: Path) -> None:
    model, how = made_of("gemma3-vision", tmp_path)
    encoder = next(
        name for name in shapes_of(model) if name.endswith("layers.0.self_attn.q_proj.weight") and "vis" in name
    )
    module = encoder.removesuffix(".weight")
    tensors = adapter_for(model, tmp_path / "a", module)
    whole = merged(model, tmp_path / "m", {encoder: change_of(tensors, module, 2.0)})
    assert (
        file_of(model, lora=[tmp_path / "a"], mmproj=True) == file_of(whole, mmproj=True) != file_of(model, mmproj=True)
    )
    with pytest.raises(UnsupportedError, match="changes nothing that is in this file"):
        plan(model, lora=[tmp_path / "a"], **how)


def test_a_head_is_no_matter_of_a_projector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = made_of("gemma3-vision", tmp_path)
    shapes = shapes_of(model)
    encoder = next(name for name in shapes if name.endswith("layers.0.self_attn.q_proj.weight") and "vis" in name)
    embeddings = next(name for name in shapes if name.endswith("embed_tokens.weight"))
    module = encoder.removesuffix(".weight")
    write_adapter(tmp_path / "a", pairs_for({module: shapes[encoder], HEAD: shapes[embeddings]}))
    for option in (["--mmproj"], ["--parts", "mmproj"]):
        assert main(["plan", str(model), "--lora", str(tmp_path / "a"), "--summary", *option]) == 0
        said = " ".join(capsys.readouterr().err.split())
        assert "2 of 4 tensors change nothing in this file" in said
        assert "a tensor of its own" not in said


def test_parts_together(tmp_path: Path) -> None:
    model, how = made_of("gemma3-vision", tmp_path)
    layer = next(
        name for name in shapes_of(model) if "vision" not in name and name.endswith("0.self_attn.q_proj.weight")
    )
    module = layer.removesuffix(".weight")
    adapter_for(model, tmp_path / "a", module)
    how |= {"lora": [tmp_path / "a"]}
    both = convert(model, tmp_path / "both/", types=["BF16", "mmproj:BF16"], parts="all", **how)
    (main_part,) = convert(model, tmp_path / "main.gguf", types="BF16", **how)
    sizes = {file.path.name.startswith("mmproj"): file.path for file in both}
    assert sizes[False].read_bytes() == main_part.path.read_bytes()


def test_whole_numbers_beside_trained_weights(model: Path, tmp_path: Path) -> None:
    buffer = "model.layers.0.self_attn.rotary_emb.inv_freq"
    of_model = with_tensors(model, tmp_path / "m", {buffer: ("I64", [2], bytes(16))})
    folder = write_adapter(tmp_path / "a", pairs_for({Q: (256, 256)}))
    other = with_tensors(folder, tmp_path / "b", {f"{PREFIX}{buffer}": ("I64", [2], bytes(16))})
    assert file_of(of_model, lora=[other]) == file_of(model, lora=[folder])


@pytest.mark.parametrize(
    ("config", "make"),
    [
        ({"quantization": {"bits": 4, "group_size": 64}}, mlx(4, 64)),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 64, "sym": True}}, gptq(4, 64)),
    ],
    ids=["mlx", "gptq"],
)
@pytest.mark.parametrize("file_type", ["F32", "Q8_0"])
def test_a_quantized_base(model: Path, tmp_path: Path, config: dict[str, object], make: Format, file_type: str) -> None:
    tensors = adapter_for(model, tmp_path / "a", Q, DOWN)
    packed = tmp_path / "packed"
    shutil.copytree(model, packed)
    values = quantize_folder(packed, config, make)
    for name in (Q, DOWN):
        values[name] = change_of(tensors, name, 2.0)(values[name])
    held = {f"{name}.weight": ("F32", list(x.shape), x.astype(np.float32).tobytes()) for name, x in values.items()}
    whole = with_tensors(model, tmp_path / "whole", held)
    files = [
        convert(source, tmp_path / f"{source.name}.gguf", types=file_type, **more)[0].path
        for source, more in ((packed, {"lora": [tmp_path / "a"]}), (whole, {}))
    ]
    with open_gguf(files[0]) as ours, open_gguf(files[1]) as theirs:
        first, second = ({t.name: t.data().tobytes() for t in file.tensors} for file in (ours, theirs))
    assert first == second


def test_a_job_merges_too(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter_for(model, tmp_path / "a", Q)
    monkeypatch.chdir(tmp_path)
    job = ["job", "plan", "Tiny", "-o", "job.gguf", "-t", "Q8_0", "--tasks", "2", "--lora", "a:0.5"]
    assert main(job) == 0
    for task in ("0", "1"):
        assert main(["job", "work", "plan.json", "--task", task]) == 0
    assert main(["job", "finish", "plan.json"]) == 0
    (whole,) = convert("Tiny", "whole.gguf", types="Q8_0", lora=["a:0.5"])
    assert Path("job.gguf").read_bytes() == whole.path.read_bytes()


def test_an_adapter_that_changes_ends_a_resumed_run(model: Path, tmp_path: Path) -> None:
    adapter_for(model, tmp_path / "a", Q)
    out = tmp_path / "o.gguf"
    convert(model, out, types="Q8_0", lora=[tmp_path / "a"], resume=True)
    before = out.read_bytes()
    write_adapter(tmp_path / "b", pairs_for({Q: (256, 256)}, 4), lora_alpha=64)
    convert(model, out, types="Q8_0", lora=[tmp_path / "b"], resume=True, overwrite=True)
    assert out.read_bytes() != before


def test_a_note_names_each_adapter_and_its_factor(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        adapter_for(model, tmp_path / name, Q)
    with caplog.at_level(logging.INFO):
        plan(model, lora=[tmp_path / "a", f"{tmp_path / 'b'}:0.5"])
    notes = [words for words in caplog.messages if "merged, scaled by" in words]
    assert notes == [f"{tmp_path / 'a'}: merged, scaled by 1", f"{tmp_path / 'b'}: merged, scaled by 0.5"]


def test_the_names_of_an_adapter_are_read_once(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter may have a quarter of a million tensors, and several questions are asked of it."""
    tensors = adapter_for(model, tmp_path / "adapter", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj")
    asked: list[str] = []
    plain = adapter_module._plain
    monkeypatch.setattr(adapter_module, "_plain", lambda name: asked.append(name) or plain(name))
    plan(model, types="F16", lora=(f"{tmp_path / 'adapter'}",))
    assert sorted(asked) == sorted(set(asked))
    assert len(asked) == len(tensors)


def test_adapters_have_together_no_more_tensors_than_a_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        adapter_for(model, tmp_path / name, "model.layers.0.mlp.up_proj")
    monkeypatch.setattr(adapter_module, "MAX_TENSORS", 3)
    plan(model, types="F16", lora=(str(tmp_path / "a"),))
    with pytest.raises(InputError, match="b: with this adapter, all have more than the 3 tensors that are read"):
        plan(model, types="F16", lora=(str(tmp_path / "a"), str(tmp_path / "b")))
