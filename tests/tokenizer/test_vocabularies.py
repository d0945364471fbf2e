"""Whole vocabularies against those of llama.cpp's converter: expected.json has the tokenizer keys of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from corpus import CORPUS, read_manifest
from synthetic import FAMILIES, read_description
from tokenizer_folders import copy_folder, entries

from gguf_forge.architectures import find_architecture
from gguf_forge.architectures.config import Config
from gguf_forge.gguf_file.values import u32
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import (
    Reader,
    add_bos_token,
    add_eos_token,
    add_sep_token,
    add_space_prefix,
    any_vocabulary,
    bpe,
    bpe_as_marked,
    bundled_chat_template,
    chatglm,
    configured_space_prefix,
    first_of,
    gemma3n_sentencepiece,
    gemma4,
    glm,
    glm_edge,
    has_vocab_size,
    hunyuan,
    hunyuan_moe,
    hunyuan_vl,
    in_order,
    internlm2,
    internlm3,
    kimi,
    kimi_k3,
    mistral,
    phi3,
    plamo,
    read_vocabulary,
    rwkv_world,
    sentencepiece,
    special_ids,
    suppressed_tokens,
    t5,
    token_type_count,
    when,
    with_rounded_size,
    wordpiece,
    xlm_roberta,
)

EXPECTED = json.loads((Path(__file__).parent / "expected.json").read_text())


@pytest.mark.parametrize("family", sorted(EXPECTED))
def test_vocabulary_of_each_family(family: str, tmp_path: Path) -> None:
    folder = copy_folder(family, tmp_path / "hf")
    raw = json.loads((folder / "config.json").read_text())
    reader = find_architecture(raw).tokenizer
    if family == "phi":
        # Phi's declaration gives this key among its parameters, before the vocabulary.
        reader = in_order(add_bos_token(False), reader)
    description = read_description(FAMILIES / family)
    found = read_vocabulary(
        LocalFolder(folder),
        Config.of(raw),
        reader,
        pre_tokenizer=description.pre_tokenizer,
        as_reference=description.fault is not None,
    )
    assert entries(found) == EXPECTED[family]


_LLAMA = in_order(configured_space_prefix, any_vocabulary, when(has_vocab_size(49152), add_bos_token(False)))
_GEMMA = in_order(sentencepiece, add_space_prefix(False))
_READERS: dict[Reader, str] = {
    _LLAMA: "apertus arcee granite granitemoe granite-swa llava-pixtral ministral3 real-llama3-vocab smollm3 smolvlm",
    _GEMMA: "gemma3-vl embeddinggemma",
    first_of(sentencepiece, bpe): "bitnet ernie45 ernie45moe grok1 jamba minicpm minicpm3 nanbeige paddleocr-vl",
    in_order(sentencepiece, special_ids({"pad": 0, "unk": 1})): "nemotron",
    phi3: "phimoe",
    wordpiece: "bert distilbert distilbert-seqcls nomicbert-v15",
    in_order(bpe, token_type_count): "roberta",
    xlm_roberta: "xlmroberta jina-v3 nomicbert-v2-moe",
    t5: "t5",
    in_order(gemma3n_sentencepiece, add_space_prefix(False)): "gemma3n gemma3n-text",
    gemma4: "gemma4-text gemma4-assistant",
    rwkv_world: "rwkv6",
    plamo: "plamo2",
    internlm2: "internlm2",
    internlm3: "internlm3",
    in_order(add_bos_token(False), chatglm): "chatglm4",
    glm: "glm4moe glm5next",
    glm_edge: "glm4 glm-ocr",
    hunyuan: "hunyuan-dense",
    hunyuan_vl: "hunyuan-vl",
    hunyuan_moe: "hunyuan-moe",
    kimi: "kimi-k25",
    kimi_k3: "kimi-k3",
    mistral("llama"): "mistral-native-vl",
    in_order(add_bos_token(True), add_eos_token(True), add_sep_token(True), bpe): "modernbert",
    bpe: "bloom cohere cohere2 dbrx exaone4 falcon40b-style falconh1 falconmamba gpt2 gptneox granitemoehybrid "
    "lfm2 llama4-text mamba mamba2 minimax-m2 mpt nemotronh olmo olmo2 olmoe qwen2-gptq4 qwen25vl "
    "qwen3-fp8 qwen35-text qwen35moe-text qwen3next seedoss stablelm starcoder2 arwkv7 bailingmoe2 deepseek-moe "
    "deepseek32 dots-ocr exaone3 exaone45 jais lfm2-colbert lighton-ocr llama-embed minimax-m3 mistral4-vl "
    "muse-glimmer qwen35-mtp qwen35moe-vl-mtp qwen4exp refact sarvam-moe smallthinker spark25 step35 talkie youtu",
    bpe_as_marked: "llada",
    # Dream's declaration gives this key among its parameters, before the vocabulary.
    in_order(lambda _: {"tokenizer.ggml.mask_token_id": u32(500)}, bpe_as_marked): "dream",
    with_rounded_size(bpe, 8): "mamba-ssm",
    in_order(bundled_chat_template("deepseek-v4"), bpe): "deepseek4",
    in_order(suppressed_tokens, gemma4): "gemma4-unified",
}
_CASES = [
    pytest.param(case, reader, id=case.name)
    for reader, names in _READERS.items()
    for name in names.split()
    for case in sorted(CORPUS.glob(f"*/{name}"))
]


@pytest.mark.parametrize(("case", "reader"), _CASES)
def test_vocabulary_of_families_to_come(case: Path, reader: Reader) -> None:
    manifest = next(path for name in ("f16", "vocab-only") if (path := case / f"expected/{name}.json").exists())
    config = case / "hf/config.json"
    raw = json.loads(config.read_text()) if config.exists() else {}
    name = json.loads((case / "case.json").read_text())["pre_monkeypatch"]
    found = read_vocabulary(LocalFolder(case / "hf"), Config.of(raw), reader, pre_tokenizer=name)
    wanted = [_entry(entry) for entry in read_manifest(manifest)["kv"] if entry["key"].startswith("tokenizer.")]
    found = {key: value for key, value in found.items() if key.startswith("tokenizer.")}
    assert entries(found) == wanted


def _entry(entry: dict[str, Any]) -> list[Any]:
    content = ("elem_type", "length", "sha256") if entry["type"] == "ARRAY" else ("value",)
    return [entry["key"], entry["type"], *(entry[name] for name in content)]
