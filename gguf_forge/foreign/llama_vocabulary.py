"""The token ids that llama.cpp gives to texts. It runs in a child process (`limited.py`).

llama.cpp may end the process on a file that it does not like, so only this module loads it. It imports nothing of the
package. llama.cpp comes inside of the package `xllamacpp`, whose server answers on this machine alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.request import Request, urlopen


def token_ids(request: Mapping[str, Any]) -> list[list[int]]:
    """The ids of each text, without the tokens around it; special tokens in the text are recognized.

    Args:
        request: `file`, the path of a GGUF file that llama.cpp loads, and `texts`.

    Raises:
        ModuleNotFoundError: xllamacpp is not installed.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup, params.n_parallel = request["file"], 128, False, 1
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    return [_ids(server.listening_address, text) for text in request["texts"]]


def _ids(address: str, text: str) -> list[int]:
    body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
    request = Request(f"{address}/tokenize", body, {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        ids: list[int] = json.load(answer)["tokens"]
    return ids
