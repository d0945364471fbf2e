"""The vocabulary of every case of the conformance corpus beside the tokenizer that it is made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from corpus import CORPUS

import gguf_forge
from gguf_forge.errors import UnsupportedError, UsageError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.toolbox.tokens import SAMPLE, check_tokens
from gguf_forge.toolbox.tokens.sample import PLAIN

_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "tokenizer_config.json", "vocab.json", "merges.txt")
_LINES, _WIDE = "\n\nlines", "zero\u200bwidth"
# Texts, by their beginnings, that become other tokens, and why.
_NEWLINES = ((_LINES,), "the made-up tokenizer.json has a token of two newlines and no merge that leads to it")
_ZERO_WIDTH = ((_WIDE,), "llama.cpp drops a zero-width space, for which `tokenizers` gives the unknown token")
KNOWN = {
    **dict.fromkeys(("gemma4-text", "gemma4-assistant", "gemma4-unified"), _NEWLINES),
    **dict.fromkeys(("xlmroberta", "jina-v3"), _ZERO_WIDTH),
}


def _distinct() -> dict[str, Path]:
    """One case for each vocabulary: many cases share one."""
    found: dict[str, Path] = {}
    for folder in sorted(path.parent for path in CORPUS.glob("*/*/hf/config.json")):
        parts = [(folder / name).read_bytes() for name in _FILES if (folder / name).exists()]
        told = json.loads((folder.parent / "case.json").read_text()).get("pre_monkeypatch") or ""
        found.setdefault(hashlib.sha256(b"".join([told.encode(), *parts])).hexdigest(), folder)
    return found


@pytest.mark.parametrize("folder", _distinct().values(), ids=lambda folder: folder.parent.name)
def test_the_tokens(folder: Path) -> None:
    """Vocabularies that were told another's rules for splitting are compared over text that all rules split alike."""
    pytest.importorskip("xllamacpp", reason="there is no xllamacpp for this platform", exc_type=ImportError)
    told = json.loads((folder.parent / "case.json").read_text()).get("pre_monkeypatch")
    try:
        # some keys of Apertus are made of weights
        vocab_only = folder.parent.name != "apertus"
        (file,) = gguf_forge.plan(folder, types="auto", vocab_only=vocab_only, pre_tokenizer=told)
        found = check_tokens(file.metadata, LocalFolder(folder), PLAIN if told else SAMPLE)
    except (UnsupportedError, UsageError) as error:
        pytest.skip(f"not compared: {error.problem}")
    beginnings, _ = KNOWN.get(folder.parent.name, ((), ""))
    assert [each.text for each in found.differences if not each.text.startswith(beginnings or ("\0",))] == []
    assert len(found.differences) == len(beginnings)
