from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from synthetic import FAMILIES, write_checkpoint

from gguf_forge import UnsupportedError, plan
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.families.llama import llama3_rope_factors
from gguf_forge.architectures.site import Site
from gguf_forge.storage.local.folder import LocalFolder


# Source: the reference's converter, run with torch 2.13 on x86-64.
@pytest.mark.parametrize(
    ("head_dim", "factor", "sha256"),
    [
        (128, 8.0, "8b516af9cb5db26e"),  # Llama 3.1 8B, 70B and 405B
        (64, 32.0, "d25a6d176d931306"),  # Llama 3.2 1B
        (80, 8.0, "b657a71db794f1bb"),
    ],
)
def test_rope_factors_are_those_that_torch_computes(head_dim: int, factor: float, sha256: str) -> None:
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": factor, "original_max_position_embeddings": 8192}
    config = Config({"head_dim": head_dim, "rope_parameters": rope})
    ((name, factors),) = llama3_rope_factors(Site(config, LocalFolder(Path())))
    assert name == "rope_freqs.weight"
    assert hashlib.sha256(factors.tobytes()).hexdigest()[:16] == sha256


def test_a_vocabulary_that_code_of_the_model_makes_is_refused(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(FAMILIES / "llama3-bpe", tmp_path / "hf")
    (checkpoint / "tokenizer_config.json").write_text('{"tokenizer_class": "HybridDNATokenizer"}')
    with pytest.raises(UnsupportedError, match="six letters at a time") as error:
        plan(checkpoint, pre_tokenizer="llama-bpe")
    assert "gguf-forge quantize" in (error.value.hint or "")
