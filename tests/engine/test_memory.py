"""The model is never loaded: memory stays far below the size of the checkpoint or GGUF file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest
from synthetic import FAMILIES, write_checkpoint

from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import ValueType, array, string, u32
from gguf_forge.types.tensor_type import BF16

BOUND = 160 << 20

_RUN = """
import re, sys
from gguf_forge import convert
from gguf_forge import quantize_gguf
run = convert if sys.argv[1].endswith("hf") else quantize_gguf
result, = run(sys.argv[1], sys.argv[2], types="Q4_0", threads=2)
# not getrusage: its peak survives exec, so it may be that of the test runner
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(result.file.source_bytes, int(peak[1]) << 10)
"""


def write_giant(
    folder: Path, family: str, layer: dict[str, tuple[str, list[int]]], n_layers: int, **config: int
) -> None:
    """A checkpoint of `n_layers` equal layers in a file of holes: its bytes are zeros that take no room."""
    hidden = config["hidden_size"]
    tensors = {"model.embed_tokens.weight": ("BF16", [512, hidden]), "model.norm.weight": ("BF16", [hidden])}
    for number in range(n_layers):
        tensors |= {f"model.layers.{number}.{name}": kind for name, kind in layer.items()}
    write_checkpoint(FAMILIES / family, folder, config={**config, "num_hidden_layers": n_layers})
    header: dict[str, object] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + prod(shape) * {"BF16": 2, "U8": 1}[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + end)


def mixtral(folder: Path, n_layers: int) -> None:
    """400 MB a layer, nearly all in experts."""
    hidden, inner = 2048, 4096
    layer = {f"self_attn.{name}_proj.weight": ("BF16", [hidden, hidden]) for name in "qkvo"}
    layer |= {f"{name}_layernorm.weight": ("BF16", [hidden]) for name in ("input", "post_attention")}
    layer["block_sparse_moe.gate.weight"] = "BF16", [8, hidden]
    for expert in range(8):
        for name, shape in (("w1", [inner, hidden]), ("w2", [hidden, inner]), ("w3", [inner, hidden])):
            layer[f"block_sparse_moe.experts.{expert}.{name}.weight"] = "BF16", shape
    heads = {"num_attention_heads": 16, "num_key_value_heads": 16, "num_local_experts": 8}
    write_giant(folder, "mixtral", layer, n_layers, hidden_size=hidden, intermediate_size=inner, **heads)


def queries(folder: Path, n_layers: int) -> None:
    """A Llama of 100 MB a layer, nearly all in the permuted rows of queries and keys."""
    hidden, heads = 512, 384
    attention = {
        name: ("BF16", [heads * 128, hidden]) for name in ("self_attn.q_proj.weight", "self_attn.k_proj.weight")
    }
    layer = {
        **attention,
        "self_attn.v_proj.weight": ("BF16", [heads * 128, hidden]),
        "self_attn.o_proj.weight": ("BF16", [hidden, heads * 128]),
        **{f"mlp.{name}_proj.weight": ("BF16", [256, hidden]) for name in ("gate", "up")},
        "mlp.down_proj.weight": ("BF16", [hidden, 256]),
        **{f"{name}_layernorm.weight": ("BF16", [hidden]) for name in ("input", "post_attention")},
    }
    sizes = {"intermediate_size": 256, "num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": 128}
    write_giant(folder, "llama2-spm", layer, n_layers, hidden_size=hidden, **sizes)


def experts_gguf(path: Path, n_layers: int) -> None:
    """A model of 400 MB a layer with a vocabulary, its weights holes."""
    metadata = {
        "general.architecture": string("llama"),
        "llama.block_count": u32(3 * n_layers),
        "tokenizer.ggml.tokens": array(ValueType.STRING, [f"token {number}" for number in range(100_000)]),
    }
    infos = [TensorInfo(f"blk.{layer}.ffn_up_exps.weight", (2048, 4096, 8), BF16) for layer in range(3 * n_layers)]
    layout = lay_out(metadata, infos)
    with path.open("wb") as file:
        file.write(layout.header)
        file.truncate(layout.size)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(("write", "name"), [(mixtral, "hf"), (queries, "hf"), (experts_gguf, "in.gguf")])
def test_peak_memory_does_not_grow_with_the_source(
    write: Callable[[Path, int], None], name: str, tmp_path: Path
) -> None:
    peaks = {}
    for n_layers in (1, 4):
        (tmp_path / str(n_layers)).mkdir()
        write(tmp_path / str(n_layers) / name, n_layers)
        command = [sys.executable, "-c", _RUN, str(tmp_path / str(n_layers) / name), str(tmp_path / "out.gguf")]
        run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        source_bytes, peaks[n_layers] = map(int, run.stdout.split())
        (tmp_path / "out.gguf").unlink()
    assert peaks[4] < BOUND
    assert source_bytes > 5 * peaks[4]
    # headers and noise
    assert peaks[4] - peaks[1] < source_bytes / 50
