"""Checkpoints whose only tokenizer file is tekken.json."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from synthetic import FAMILIES, write_checkpoint
from tokenizer_folders import edit

SPECIAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
_TOKENS = [*(bytes([byte]) for byte in range(256)), b"th", b"the", b" the"]


def write_tekken(folder: Path, special: Sequence[str] = SPECIAL) -> Path:
    """A Mistral whose vocabulary has the bytes and three words after its special tokens."""
    write_checkpoint(FAMILIES / "mistral", folder)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    count = size - len(_TOKENS)
    tekken = {
        "config": {
            "pattern": "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}",
            "num_vocab_tokens": len(_TOKENS),
            "default_vocab_size": size,
            "default_num_special_tokens": count,
            "version": "v7",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
            for rank, token in enumerate(_TOKENS)
        ],
        "special_tokens": [{"rank": rank, "token_str": text, "is_control": True} for rank, text in enumerate(special)],
    }
    (folder / "tekken.json").write_text(json.dumps(tekken))
    edit(folder / "config.json", lambda config: config.update(bos_token_id=1, eos_token_id=2))
    return folder
