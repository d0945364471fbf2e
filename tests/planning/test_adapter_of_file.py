"""The way back of adapter files: the folder that PEFT loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import PREFIX, factor, held_of, pairs_for, shapes_of, write_adapter
from checkpoints import tiny_llama
from corpus import CORPUS, Cases, manifests, read_manifest
from synthetic import FAMILIES, write_checkpoint
from weights import Held

from gguf_forge import InputError, UnsupportedError, UsageError, convert, dequantize_gguf, edit_gguf, open_gguf
from gguf_forge.cli import main

# What PEFT calls the tensors of adapters, as reference/make_peft_names.py writes it.
PEFT_NAMES: dict[str, Any] = json.loads((Path(__file__).parent / "peft_names.json").read_text())
ADAPTERS = [path for path in manifests() if path.stem.startswith("lora-")]
Q, V = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"


def back(file: Path, base: Path, folder: Path, **more: object) -> dict[str, Held]:
    """The tensors of the folder that a file becomes."""
    dequantize_gguf(file, folder, safetensors=True, config=base, **more)
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    return held_of(folder)


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return config


def file_of(adapter: Path, base: Path, out: Path, types: str = "F32") -> Path:
    (made,) = convert(adapter, out, types=types, base_model=base)
    return made.path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path)


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_a_file_comes_back_as_the_folder_it_was_made_of(path: Path, cases: Cases, tmp_path: Path) -> None:
    manifest = read_manifest(path)
    options = manifest["forge_args"]
    case = cases.folder_of(path.parents[1], options[options.index("--base") + 1].split("/")[1])
    source, of_base = case / "hf", case / options[options.index("--base") + 1]
    file = file_of(source, of_base, tmp_path / "1.gguf", manifest["forge_type"])
    held = back(file, of_base, tmp_path / "hf")
    assert (
        file_of(tmp_path / "hf", of_base, tmp_path / "2.gguf", manifest["forge_type"]).read_bytes() == file.read_bytes()
    )
    if manifest["forge_type"] == "F32":
        assert {name: (shape, data) for name, (_, shape, data) in held.items()} == {
            name: (shape, np.frombuffer(data, np.float32).tobytes())
            for name, (_, shape, data) in held_of(source).items()
        }


def test_all_adapters_of_the_corpus_are_led_back() -> None:
    assert len(ADAPTERS) == (6 if CORPUS.is_dir() else 0)


@pytest.mark.parametrize(
    "family",
    [
        "bailingmoe3",  # experts, latent attention
        "chameleon",
        "deepseek3",  # keys and values cut out of one matrix for each head
        "gptoss-bf16",
        "grok2",
        "jamba",
        "llama3-bpe",  # permuted rows
        "mimo2",
        "kimi-linear",
        "mixtral",
        "phi3",
        "plamo3",
        "qwen3moe",
        "qwen35",  # reordered heads
        "qwen3vlmoe",
        "rwkv7",
        "t5-encoder",
        "xlmroberta-reranker",
    ],
)
def test_families(family: str, tmp_path: Path) -> None:
    model = write_checkpoint(FAMILIES / family, tmp_path / "model")
    others = ("embed", "norm", "conv", "visual")
    shapes = {
        name.removesuffix(".weight"): shape
        for name, shape in shapes_of(model).items()
        if len(shape) == 2 and name.endswith(".weight") and not any(word in name for word in others)
    }
    modules = {name: shape for name, shape in shapes.items() if any(part.isdecimal() for part in name.split("."))}
    write_adapter(tmp_path / "a", pairs_for(modules))
    file = file_of(tmp_path / "a", model, tmp_path / "1.gguf")
    assert back(file, model, tmp_path / "b" / "a") == held_of(tmp_path / "a")
    assert file_of(tmp_path / "b" / "a", model, tmp_path / "2.gguf").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("case", PEFT_NAMES)
def test_names_and_settings_are_those_of_peft(case: str, tmp_path: Path) -> None:
    described = PEFT_NAMES[case]
    base = tmp_path / "base"
    base.mkdir()
    told = described["base"]
    config = json.dumps(told) if isinstance(told, dict) else (FAMILIES / told / "config.json").read_text()
    (base / "config.json").write_text(config)
    tensors = {name: factor(seed, *shape) for seed, (name, shape) in enumerate(described["shapes"].items())}
    write_adapter(tmp_path / "a", tensors, **described["config"])
    file = file_of(tmp_path / "a", base, tmp_path / "1.gguf")
    assert back(file, base, tmp_path / "b" / "a") == held_of(tmp_path / "a")
    assert file_of(tmp_path / "b" / "a", base, tmp_path / "2.gguf").read_bytes() == file.read_bytes()
    settings = config_of(tmp_path / "b" / "a")
    assert settings["task_type"] == "CAUSAL_LM"
    assert settings["fan_in_fan_out"] is described["config"].get("fan_in_fan_out", False)
    assert {key: settings[key] for key in ("r", "lora_alpha", "peft_type")} == {
        "r": 4,
        "lora_alpha": 8,
        "peft_type": "LORA",
    }
    modules = {name.removeprefix(PREFIX).removesuffix(".weight").partition(".lora_")[0] for name in tensors}
    whole = {name for name in modules if "norm" in name}
    assert set(settings.get("modules_to_save", ())) == whole
    stacks = {name.removesuffix(".base_layer") for name in modules if "experts" in name}
    assert set(settings["target_modules"]) == {name for name in modules - whole if "experts" not in name}
    parameters = {f"{module}.{name}" for module in stacks for name in ("gate_up_proj", "down_proj")}
    assert set(settings.get("target_parameters", ())) == parameters
    ranks = {name.removesuffix(".weight"): shape[0] for name, (_, shape, _) in held_of(tmp_path / "a").items()}
    in_pairs = {
        name.removeprefix(PREFIX).removesuffix(".lora_A"): rank for name, rank in ranks.items() if "lora_A" in name
    }
    assert settings["rank_pattern"] == {name: rank for name, rank in in_pairs.items() if rank not in (4, 16)}


def test_scales_that_the_file_has_in_its_factors(base: Path, tmp_path: Path) -> None:
    tensors = pairs_for({Q: (256, 256)}, 9) | pairs_for({V: (128, 256)}, 4)
    write_adapter(tmp_path / "a", tensors, use_rslora=True, r=9, alpha_pattern={"v_proj": 6})
    file = file_of(tmp_path / "a", base, tmp_path / "1.gguf")
    back(file, base, tmp_path / "b" / "a")
    config = config_of(tmp_path / "b" / "a")
    assert (config["lora_alpha"], config["r"], config["rank_pattern"]) == (24, 9, {V: 4})
    assert file_of(tmp_path / "b" / "a", base, tmp_path / "2.gguf").read_bytes() == file.read_bytes()


def test_an_alpha_of_zero_is_a_scale_of_one(base: Path, tmp_path: Path) -> None:
    """As in llama.cpp, which multiplies the product by alpha / rank only where alpha is another number."""
    write_adapter(tmp_path / "a", pairs_for({Q: (256, 256)}, 4) | pairs_for({V: (128, 256)}, 2))
    file = file_of(tmp_path / "a", base, tmp_path / "1.gguf")
    edited = edit_gguf(file, tmp_path / "e.gguf", set={"adapter.lora.alpha": 0.0}).path
    back(edited, base, tmp_path / "b")
    config = config_of(tmp_path / "b")
    assert config["lora_alpha"] == config["r"]
    assert config["rank_pattern"] == config["alpha_pattern"] != {}


def test_the_tokens_of_an_invocation(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", pairs_for({Q: (256, 256)}), alora_invocation_tokens=[5, 7])
    back(file_of(tmp_path / "a", base, tmp_path / "1.gguf"), base, tmp_path / "b")
    assert config_of(tmp_path / "b")["alora_invocation_tokens"] == [5, 7]


@pytest.mark.parametrize(("types", "stored"), [("F16", "F16"), ("BF16", "BF16"), ("F32", "F32"), ("Q8_0", "F32")])
def test_the_type_of_the_tensors(base: Path, tmp_path: Path, types: str, stored: str) -> None:
    write_adapter(tmp_path / "a", pairs_for({Q: (256, 256)}, 32))
    held = back(file_of(tmp_path / "a", base, tmp_path / "1.gguf", types), base, tmp_path / "b")
    assert {dtype for dtype, _, _ in held.values()} == {stored}
    held = back(tmp_path / "1.gguf", base, tmp_path / "c", file_type="F16")
    assert {dtype for dtype, _, _ in held.values()} == {"F16"}


def test_the_base_model_that_the_file_names(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_adapter(tmp_path / "a", pairs_for({Q: (256, 256)}))
    (tmp_path / "a" / "README.md").write_text("---\nbase_model: example/base\n---\n")
    file = file_of(tmp_path / "a", base, tmp_path / "1.gguf")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(InputError, match="lacks what its base model's config says") as caught:
        dequantize_gguf(file, tmp_path / "b", safetensors=True)
    assert "hf download example/base config.json" in str(caught.value.hint)
    snapshot = tmp_path / "hub" / "models--example--base" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (base / "config.json").rename(snapshot / "config.json")
    assert main(["dequantize", str(file), "--safetensors", "-o", str(tmp_path / "b")]) == 0
    assert config_of(tmp_path / "b")["base_model_name_or_path"] == "example/base"
    assert "copy config.json" not in capsys.readouterr().out


def test_parts_of_one_matrix_that_no_pair_changes(tmp_path: Path) -> None:
    """Another program may give the gates and the ups of experts factors A of their own."""
    model = write_checkpoint(FAMILIES / "gptoss-bf16", tmp_path / "model")
    described = PEFT_NAMES["gptoss"]
    tensors = {name: factor(seed, *shape) for seed, (name, shape) in enumerate(described["shapes"].items())}
    write_adapter(tmp_path / "a", tensors, **described["config"])
    file = file_of(tmp_path / "a", model, tmp_path / "1.gguf")
    with open_gguf(file) as gguf:
        tensor = gguf["blk.0.ffn_up_exps.weight.lora_a"]
        at = tensor.offset
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    with pytest.raises(UnsupportedError, match="factors A that differ") as caught:
        dequantize_gguf(file, tmp_path / "b", safetensors=True, config=model)
    assert "gate_up_proj" in str(caught.value.tensor)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"drop_tensor": [r"blk\.0\.attn_q\.weight\.lora_a"]}, InputError, "one of the two factors is missing"),
        (
            {"drop_tensor": [r"attn_v\.weight\.lora_a"], "rename_tensor": {r"attn_v\.weight\.lora_b": "attn_q.bias"}},
            UnsupportedError,
            "neither a factor of a pair nor a norm",
        ),
        ({"rename_tensor": {r"blk\.0\.": "blk.9."}}, InputError, "the base model has 2 layers"),
        ({"rename_tensor": {r"attn_q\.weight": "attn_other.weight"}}, UnsupportedError, "cannot be led back"),
        ({"set": {"adapter.type": "other"}}, UnsupportedError, "only LoRA is led back"),
        ({"set": {"adapter.lora.task_name": "x"}}, UnsupportedError, "no place for adapter.lora.task_name"),
        ({"set": {"general.architecture": "qwen3"}}, InputError, "makes no file of architecture qwen3"),
    ],
    ids=str,
)
def test_what_does_not_come_back(
    base: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    write_adapter(tmp_path / "a", pairs_for({Q: (256, 256), V: (128, 256)}))
    file = file_of(tmp_path / "a", base, tmp_path / "1.gguf")
    edited = edit_gguf(file, tmp_path / "e.gguf", **changes).path
    with pytest.raises(error, match=words):
        dequantize_gguf(edited, tmp_path / "b", safetensors=True, config=base)


def test_other_types_of_a_file(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_adapter(tmp_path / "a", pairs_for({Q: (256, 256)}))
    file = str(file_of(tmp_path / "a", base, tmp_path / "1.gguf"))
    for command in (["quantize", file, "-t", "Q4_K_M"], ["dequantize", file, "-t", "F16"], ["types", file]):
        assert main(command) == 3
        said = " ".join(capsys.readouterr().err.split())
        assert "this is a LoRA adapter" in said
        assert "--safetensors" in said
    assert main(["quantize", file, "-t", "COPY", "-o", str(tmp_path / "2.gguf")]) == 0


def test_an_adapter_is_one_file(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", pairs_for({Q: (256, 256)}))
    with pytest.raises(UsageError, match="an adapter is one file"):
        back(file_of(tmp_path / "a", base, tmp_path / "1.gguf"), base, tmp_path / "b", max_size=10**6)
