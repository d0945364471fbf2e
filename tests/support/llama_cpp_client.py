"""llama.cpp as a client of our files: xllamacpp has it inside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_SECONDS = 200

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
    return _printed(_CLIENT, *paths).split()


_EMBEDDER = """
import sys, xllamacpp
for path in sys.argv[1:]:
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup, params.n_parallel = path, 128, False, 1
    params.cpuparams.n_threads, params.embedding = 1, True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    answer = server.handle_embeddings({"input": "Hello"})
    print(len(answer["data"][0]["embedding"]))
    del server
"""


def embedded(*paths: Path) -> list[str]:
    """How many numbers llama.cpp's embedding of a text has, from each file."""
    return _printed(_EMBEDDER, *paths).split()


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
    found: dict[str, float] = json.loads(_printed(_NEXT, model, *adapters))
    return found


# Arguments: the model, then a JSON object: "mmproj" and "mtp" are paths or null, "questions" are contents of messages.
_ASKED = """
import json, sys, xllamacpp
params, request = xllamacpp.CommonParams(), json.loads(sys.argv[2])
params.model.path, params.n_ctx, params.warmup, params.n_parallel = sys.argv[1], 2048, False, 1
params.cpuparams.n_threads = 1
if request["mmproj"]:
    params.mmproj.path = request["mmproj"]
if request["mtp"]:
    params.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_MTP]
    params.speculative.draft.mparams.path = request["mtp"]
    params.speculative.draft.n_max = 2
server = xllamacpp.Server(params)
how = {"max_tokens": 8, "temperature": 0, "ignore_eos": True, "logprobs": True, "cache_prompt": False}
for question in request["questions"]:
    answer = server.handle_chat_completions({"messages": [{"role": "user", "content": question}], **how})
    tokens = answer["choices"][0].get("logprobs", {}).get("content", [])
    print("ANSWER", json.dumps({
        "tokens": [token["id"] for token in tokens],
        "first": tokens[0]["logprob"] if tokens else None,
        "prompt": answer["usage"]["prompt_tokens"],
        "drafted": answer["timings"].get("draft_n", 0),
    }))
"""


def answers(
    model: Path, questions: list[Any], *, mmproj: Path | None = None, mtp: Path | None = None
) -> list[dict[str, Any]]:
    """What llama.cpp answers to contents of a user's message: the tokens, the logarithm of the first one's probability,
    and the numbers of tokens of the prompt and of drafted ones."""
    request = {"mmproj": mmproj and str(mmproj), "mtp": mtp and str(mtp), "questions": questions}
    printed = _printed(_ASKED, model, json.dumps(request))
    lines = (line.partition("ANSWER ")[2] for line in printed.splitlines())
    return [json.loads(line) for line in lines if line]


def _printed(program: str, *arguments: object) -> str:
    """What a program prints. llama.cpp's server sometimes hangs when it starts, so there are three tries."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    for tries_left in (2, 1, 0):
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            if not tries_left:
                raise
            continue
        assert run.returncode == 0, run.stderr[-3000:]
        return run.stdout
    raise AssertionError("no try was made")
