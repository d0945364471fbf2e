"""llama.cpp itself loads our files and generates from them: xllamacpp has it inside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from adapters import pairs_for, shapes_of, write_adapter
from checkpoints import tiny_llama
from llama_cpp_client import embedded, generated, next_tokens
from quantized import make_base
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import convert, quantize_gguf
from gguf_forge.planning.splits import Split

pytest.importorskip("xllamacpp", reason="there is no xllamacpp for this platform", exc_type=ImportError)

GIVES = {folder.name: read_description(folder).gives for folder in FAMILIES.iterdir()}
TYPES = ("Q4_K_M", "Q8_0", "F16")


@pytest.mark.parametrize("family", sorted(name for name, gives in GIVES.items() if gives == "embedding"))
def test_llama_cpp_embeds(family: str, tmp_path: Path) -> None:
    results = convert(
        write_checkpoint(FAMILIES / family, tmp_path / "hf"),
        tmp_path / "{ftype}.gguf",
        types=TYPES,
        pre_tokenizer=read_description(FAMILIES / family).pre_tokenizer,
    )
    config = json.loads((FAMILIES / family / "config.json").read_text())
    width = config.get("hidden_size") or config["d_model"]
    assert embedded(*(result.path for result in results)) == [str(width)] * len(TYPES)


@pytest.mark.parametrize("family", sorted(name for name, gives in GIVES.items() if gives == "text"))
def test_llama_cpp_generates(family: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(FAMILIES / family, tmp_path / "hf")
    # experts in MXFP4 are not quantized again, there as here
    types = ("F16",) if family == "gptoss-mxfp4" else TYPES
    results = convert(
        checkpoint,
        tmp_path / "{ftype}.gguf",
        types=types,
        pre_tokenizer=read_description(FAMILIES / family).pre_tokenizer,
    )
    assert generated(*(result.path for result in results)) == ["6"] * len(types)


def test_llama_cpp_generates_from_splits(tmp_path: Path) -> None:
    base = make_base("llama3-bpe", "BF16", tmp_path)
    quantize_gguf(base, tmp_path / "a.gguf", types="Q4_K_M", split=Split(max_tensors=5))
    quantize_gguf(tmp_path / "a-00001-of-00005.gguf", tmp_path / "b.gguf", types="COPY", split=Split(keep=True))
    assert generated(tmp_path / "a-00001-of-00005.gguf", tmp_path / "b-00001-of-00005.gguf") == ["6", "6"]


@pytest.mark.parametrize(("kind", "count"), [("BF16", 5), ("Q4_K_M", 3)])
def test_llama_cpp_generates_from_parts_of_a_checkpoint(kind: str, count: int, tmp_path: Path) -> None:
    (result,) = convert(
        write_checkpoint(FAMILIES / "llama3-bpe", tmp_path / "hf"),
        tmp_path / "out.gguf",
        types=kind,
        pre_tokenizer=read_description(FAMILIES / "llama3-bpe").pre_tokenizer,
        split=Split(max_size=1_000_000, max_tensors=12, no_tensor_first=True),
    )
    assert len(result.file.shards) == count
    assert generated(result.path) == ["6"]


@pytest.mark.parametrize("config", [{}, {"use_rslora": True, "alpha_pattern": {"q_proj": 5}}], ids=str)
def test_an_adapter_beside_its_model_does_what_merging_does(config: dict[str, object], tmp_path: Path) -> None:
    model = tiny_llama(tmp_path, dtype="F32")
    modules = (f"model.layers.{i}.{name}_proj" for i in (0, 1) for name in ("self_attn.q", "self_attn.v", "mlp.down"))
    shapes = {module: shapes_of(model)[f"{module}.weight"] for module in modules}
    adapter = write_adapter(tmp_path / "a", pairs_for(shapes), **config)
    paths = [tmp_path / f"{name}.gguf" for name in ("base", "adapter", "merged")]
    convert(model, paths[0], types="F32")
    convert(adapter, paths[1], base_model=model)
    convert(model, paths[2], types="F32", lora=[adapter])
    base, beside, merged = (next_tokens(*each) for each in ((paths[0],), tuple(paths[:2]), (paths[2],)))
    assert max(abs(beside[token] - merged[token]) for token in merged) < 1e-4
    assert max(abs(beside[token] - base[token]) for token in merged) > 1e-1
