"""llama.cpp itself loads our files and generates from them: xllamacpp has it inside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge.conversion import convert

pytest.importorskip("xllamacpp", reason="there is no xllamacpp for this platform", exc_type=ImportError)

CASES = sorted(folder.name for folder in FAMILIES.iterdir())
TYPES = ("Q4_K_M", "Q8_0", "F16")

# In a process of its own: a file that llama.cpp does not like can end it.
_CLIENT = """
import sys, xllamacpp
for path in sys.argv[1:]:
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup, params.n_parallel = path, 128, False, 1
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    answer = server.handle_completions({"prompt": "Hello", "max_tokens": 6, "temperature": 0, "ignore_eos": True})
    print(answer["usage"]["completion_tokens"])
    del server
"""


@pytest.mark.parametrize("family", CASES)
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
    paths = [str(result.path) for result in results]
    run = subprocess.run([sys.executable, "-c", _CLIENT, *paths], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["6"] * len(types), run.stderr[-3000:]
