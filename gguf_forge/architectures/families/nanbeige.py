"""Nanbeige: a Llama that may run through its layers several times."""

from __future__ import annotations

from gguf_forge.architectures.families.llama import llama, llama_vocabulary
from gguf_forge.architectures.metadata import flag, u32

nanbeige = llama.derive(
    "nanbeige",
    hf=("NanbeigeForCausalLM",),
    metadata=(
        *llama.metadata,
        u32("num_loops", lambda site: site.config.find("num_loops") or 1),
        flag("skip_loop_final_norm", lambda site: bool(site.config.find("skip_loop_final_norm"))),
    ),
    tokenizer=llama_vocabulary("nanbeige"),
    rules=(),
)
