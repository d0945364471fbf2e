"""Checkpoints in Mistral's own form: params.json in place of config.json, and names of their own."""

from __future__ import annotations

from typing import Any

from gguf_forge.errors import UnsupportedError
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.json_file import read_json_object

# The file of parameters. Its name is also used in place of the class, which such a checkpoint does not name.
PARAMS = "params.json"


def has_mistral_form(folder: Folder) -> bool:
    """Whether the folder is in Mistral's form, and not also in that of transformers."""
    return folder.has(PARAMS) and not folder.has("config.json")


def read_params(folder: Folder) -> dict[str, Any]:
    """The parameters, with what a config.json would also have: a class name, and how the weights are quantized.

    Raises:
        UnsupportedError: they are quantized in another way than to FP8.
        InputError: the file is missing or broken.
    """
    params = {**read_json_object(folder, PARAMS), "architectures": [PARAMS]}
    quantization = params.get("quantization")
    if quantization is None:
        return params
    kind = quantization.get("qformat_weight") if isinstance(quantization, dict) else quantization
    if kind != "fp8_e4m3":
        raise UnsupportedError(f"weights quantized to {kind!r:.40} are not known", file=folder.path / PARAMS)
    return {**params, "quantization_config": {"quant_method": "fp8", "weight_block_size": None}}
