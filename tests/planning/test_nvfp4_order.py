"""NVFP4 of DeepSeek's models: the reference does not count their experts, and writes them after its other blocks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from synthetic import FAMILIES, any_bytes, read_description, tensor_bytes, write_checkpoint, write_safetensors

from gguf_forge import convert

_BLOCKS = (".experts.", ".shared_experts.", "layers.0.mlp.", "o_proj")
_ALGORITHM = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
# Of the file that llama.cpp's converter makes of the same folder.
_DIGEST = "dcfab3a4f52580b0a405ebd1b114f7df798ae19a0db3717ba6604d5474b12dba"


def as_nvfp4(folder: Path) -> None:
    """Stores the matrices of experts and some others as ModelOpt does."""
    for path in folder.glob("*.safetensors"):
        raw = path.read_bytes()
        begin = 8 + int.from_bytes(raw[:8], "little")
        stored: dict[str, tuple[str, list[int], bytes]] = {}
        for name, entry in json.loads(raw[8:begin]).items():
            if name == "__metadata__":
                continue
            start, stop = entry["data_offsets"]
            if not name.endswith("_proj.weight") or not any(part in name for part in _BLOCKS):
                stored[name] = entry["dtype"], entry["shape"], raw[begin + start : begin + stop]
                continue
            rows, columns = entry["shape"]
            stem = name.removesuffix(".weight")
            scales = any_bytes(f"{name}_scale", [rows, columns // 16]) % 16 + 0x30
            stored[name] = "U8", [rows, columns // 2], tensor_bytes(name, "U8", [rows, columns // 2])
            stored[f"{name}_scale"] = "F8_E4M3", [rows, columns // 16], scales.tobytes()
            stored[f"{name}_scale_2"] = "F32", [], np.float32(len(name) / 4096).tobytes()
            stored[f"{stem}.input_scale"] = "F32", [], np.float32(0.25).tobytes()
        write_safetensors(path, stored)
    for index in folder.glob("*.index.json"):
        index.unlink()


def test_experts_come_after_the_other_blocks(tmp_path: Path) -> None:
    folder = write_checkpoint(FAMILIES / "deepseek3", tmp_path / "hf", config={"quantization_config": _ALGORITHM})
    as_nvfp4(folder)
    pre_tokenizer = read_description(FAMILIES / "deepseek3").pre_tokenizer
    (file,) = convert(folder, tmp_path / "m.gguf", types="auto", pre_tokenizer=pre_tokenizer)
    assert hashlib.sha256(file.path.read_bytes()).hexdigest() == _DIGEST
