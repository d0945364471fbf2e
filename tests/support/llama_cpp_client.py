"""llama.cpp as a client of our files: xllamacpp has it inside."""

from __future__ import annotations

import json
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


_NEXT = """
import json, sys, urllib.request, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.warmup, params.n_parallel = sys.argv[1], 128, False, 1
params.cpuparams.n_threads = 1
params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in sys.argv[2:]]
server = xllamacpp.Server(params)
body = json.dumps({"prompt": "Hello, this is a", "n_predict": 6, "n_probs": 100000, "temperature": 0}).encode()
headers = {"Content-Type": "application/json"}
request = urllib.request.Request(server.listening_address + "/completion", body, headers)
answer = json.load(urllib.request.urlopen(request))
print(json.dumps({each["id"]: each["logprob"] for each in answer["completion_probabilities"][0]["top_logprobs"]}))
"""


def next_tokens(model: Path, *adapters: Path) -> dict[str, float]:
    """The logarithm of the probability that llama.cpp gives each token after a text."""
    run = subprocess.run([sys.executable, "-c", _NEXT, model, *adapters], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    found: dict[str, float] = json.loads(run.stdout)
    return found
