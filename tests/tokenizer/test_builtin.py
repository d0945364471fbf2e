from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizer_folders import entries

from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import bpe, builtin, first_of, no_vocabulary, read_vocabulary, with_rounded_size

# Digests of what gguf-py's reader finds in llama.cpp's models/ggml-vocab-*.gguf, cut to these numbers of tokens.
EXPECTED = {
    "gpt-neox": (
        50280,
        ["tokenizer.ggml.model", "STRING", "gpt2"],
        ["tokenizer.ggml.pre", "STRING", "mpt"],
        ["tokenizer.ggml.tokens", "ARRAY", "STRING", 50280,
         "8cc4fc0926c5a233be87cc766811b76876fea9beeb3b5d77ecd4d211de098da2"],
        ["tokenizer.ggml.token_type", "ARRAY", "INT32", 50280,
         "e02b8820a53fe2289a7df785b5c085729f9df1510baa996e7f0284cc3fc1e916"],
        ["tokenizer.ggml.merges", "ARRAY", "STRING", 50009,
         "bc7902105e960847d1c182de11e5ebd8f69434eb5f1584135d67d1aef13b3868"],
        ["tokenizer.ggml.bos_token_id", "UINT32", 0],
        ["tokenizer.ggml.eos_token_id", "UINT32", 0],
        ["tokenizer.ggml.unknown_token_id", "UINT32", 0],
    ),
    "llama-spm": (
        32000,
        ["tokenizer.ggml.model", "STRING", "llama"],
        ["tokenizer.ggml.pre", "STRING", "default"],
        ["tokenizer.ggml.tokens", "ARRAY", "STRING", 32000,
         "621e8daacd0e30060399ba04fb9bcdb58f8d185b4992ca43b4f9e2d1a86eebc9"],
        ["tokenizer.ggml.scores", "ARRAY", "FLOAT32", 32000,
         "22d236f7d0f4505e240f48f220dc410d8b96b471e3df11c17be9f7fbf6375ac2"],
        ["tokenizer.ggml.token_type", "ARRAY", "INT32", 32000,
         "669bb0f5a2b043975aeb7c39bdb03ca87c00eb5e206cf2a20569c86dbfb04874"],
        ["tokenizer.ggml.bos_token_id", "UINT32", 1],
        ["tokenizer.ggml.eos_token_id", "UINT32", 2],
        ["tokenizer.ggml.unknown_token_id", "UINT32", 0],
        ["tokenizer.ggml.add_bos_token", "BOOL", True],
        ["tokenizer.ggml.add_eos_token", "BOOL", False],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["gpt-neox", "llama-spm"])
def test_builtin_vocabularies_are_those_of_llama_cpp(tmp_path: Path, name: Any) -> None:
    size, *wanted = EXPECTED[name]
    assert entries(read_vocabulary(LocalFolder(tmp_path), {"vocab_size": size}, builtin(name))) == wanted


@pytest.mark.parametrize(("config", "size"), [({}, 50280), ({"pad_vocab_size_multiple": 16}, 50288)])
def test_a_rounded_size(tmp_path: Path, config: dict[str, Any], size: int) -> None:
    reader = with_rounded_size(first_of(bpe, builtin("gpt-neox")), 8)
    found = read_vocabulary(LocalFolder(tmp_path), {"vocab_size": 50277, **config}, reader)
    assert len(found["tokenizer.ggml.tokens"].data) == size


@pytest.mark.parametrize("multiple", [0, -8, "8", 1.5, 1 << 40])
def test_an_absurd_multiple(tmp_path: Path, multiple: object) -> None:
    config = {"vocab_size": 50277, "pad_vocab_size_multiple": multiple}
    with pytest.raises(InputError, match="pad_vocab_size_multiple"):
        read_vocabulary(LocalFolder(tmp_path), config, with_rounded_size(builtin("gpt-neox"), 8))


def test_no_vocabulary(tmp_path: Path) -> None:
    assert entries(read_vocabulary(LocalFolder(tmp_path), {}, no_vocabulary)) == [
        ["tokenizer.ggml.model", "STRING", "none"]
    ]
