"""llama.cpp's own tokenizer, which xllamacpp has inside: the token ids that a GGUF file gives to texts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: a file that llama.cpp does not like can end it.
_CLIENT = """
import json, sys, urllib.request, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.warmup, params.n_parallel = sys.argv[1], 128, False, 1
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
answers = []
for text in json.load(sys.stdin):
    body = json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()
    request = urllib.request.Request(server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
    answers.append(json.load(urllib.request.urlopen(request))["tokens"])
print(json.dumps(answers))
"""


def token_ids(file: Path, texts: list[str]) -> list[list[int]]:
    """The ids of each text, with the special tokens that the file says. The model must be one that llama.cpp loads."""
    pytest.importorskip("xllamacpp", reason="there is no xllamacpp for this platform", exc_type=ImportError)
    command = [sys.executable, "-c", _CLIENT, str(file)]
    run = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    ids: list[list[int]] = json.loads(run.stdout)
    return ids
