"""llama.cpp as a client of our files: xllamacpp has it inside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def generated(*paths: Path) -> list[str]:
    """How many tokens llama.cpp generates from each file."""
    run = subprocess.run([sys.executable, "-c", _CLIENT, *paths], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout.split()
