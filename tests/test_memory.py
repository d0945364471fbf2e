"""The model is never loaded: memory stays far below the size of the checkpoint or GGUF file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import FAMILIES, write_checkpoint

from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import ValueType, array, string, u32
from gguf_forge.tensor_types import BF16

BOUND = 160 << 20

_RUN = """
import re, sys
from gguf_forge.conversion import convert
from gguf_forge.quantization import quantize_gguf
run = convert if sys.argv[1].endswith("hf") else quantize_gguf
result, = run(sys.argv[1], sys.argv[2], types="Q4_0", threads=2)
# not getrusage: its peak survives exec, so it may be that of the test runner
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(result.file.source_bytes, int(peak[1]) << 10)
"""


def write_giant(folder: Path) -> None:
    """A Mixtral of 1.6 GB, stored in a file of holes: its bytes are zeros that take no room."""
    hidden, inner = 2048, 4096
    shapes: dict[str, list[int]] = {"model.embed_tokens.weight": [512, hidden], "model.norm.weight": [hidden]}
    for layer in range(4):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.{name}_proj.weight": [hidden, hidden] for name in "qkvo"}
        shapes |= {f"{at}.{name}_layernorm.weight": [hidden] for name in ("input", "post_attention")}
        shapes[f"{at}.block_sparse_moe.gate.weight"] = [8, hidden]
        for expert in range(8):
            for name, shape in (("w1", [inner, hidden]), ("w2", [hidden, inner]), ("w3", [inner, hidden])):
                shapes[f"{at}.block_sparse_moe.experts.{expert}.{name}.weight"] = shape
    config = {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": 4,
        "num_local_experts": 8,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
    }
    write_checkpoint(FAMILIES / "mixtral", folder, config=config)
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + end)


def write_giant_gguf(path: Path) -> None:
    """A model of 1.6 GB with a vocabulary, its weights holes."""
    metadata = {
        "general.architecture": string("llama"),
        "llama.block_count": u32(12),
        "tokenizer.ggml.tokens": array(ValueType.STRING, [f"token {number}" for number in range(100_000)]),
    }
    infos = [TensorInfo(f"blk.{layer}.ffn_up_exps.weight", (2048, 4096, 8), BF16) for layer in range(12)]
    layout = lay_out(metadata, infos)
    with path.open("wb") as file:
        file.write(layout.header)
        file.truncate(layout.size)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("source", ["hf", "in.gguf"])
def test_peak_memory_is_a_fraction_of_the_source(source: str, tmp_path: Path) -> None:
    write = write_giant if source == "hf" else write_giant_gguf
    write(tmp_path / source)
    command = [sys.executable, "-c", _RUN, str(tmp_path / source), str(tmp_path / "out.gguf")]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    source_bytes, peak = map(int, run.stdout.split())
    (tmp_path / "out.gguf").unlink()
    assert source_bytes > 9 * BOUND
    assert peak < BOUND
