"""Makes gguf_forge/tokenizer/builtin_vocabularies/*.json.xz from a llama.cpp tree.

    python tools/refresh_builtin_vocabularies.py LLAMA_CPP_TREE

The sources are models/ggml-vocab-gpt-neox.gguf and models/ggml-vocab-llama-spm.gguf, which llama.cpp's converter reads
for models without tokenizer files (`_set_vocab_builtin`). Entries are [key, type, value] in the order in which the
converter writes them.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path

from reference_tree import ROOT, reference_tree

from gguf_forge.gguf_file.opened import open_gguf

FOLDER = ROOT / "gguf_forge/tokenizer/builtin_vocabularies"
DEFAULT_PRE_TOKENIZERS = {"gpt-neox": "mpt", "llama-spm": "default"}
KEYS = {
    "model": "STRING",
    "pre": "STRING",
    "tokens": "STRING",
    "scores": "FLOAT32",
    "token_type": "INT32",
    "merges": "STRING",
    "bos_token_id": "UINT32",
    "eos_token_id": "UINT32",
    "unknown_token_id": "UINT32",
    "padding_token_id": "UINT32",
    "add_bos_token": "BOOL",
    "add_eos_token": "BOOL",
}


def entries(file: Path, default_pre_tokenizer: str) -> list[tuple[str, str, object]]:
    found = {"tokenizer.ggml.pre": default_pre_tokenizer, **open_gguf(file).metadata}
    keys = {f"tokenizer.ggml.{name}": type for name, type in KEYS.items()}
    return [(key, type, _plain(found[key])) for key, type in keys.items() if key in found]


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float) else list(value)


if __name__ == "__main__":
    tree = reference_tree(__doc__)
    for name, pre in DEFAULT_PRE_TOKENIZERS.items():
        found = entries(tree / f"models/ggml-vocab-{name}.gguf", pre)
        text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        data = lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)
        (FOLDER / f"{name}.json.xz").write_bytes(data)
