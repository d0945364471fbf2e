"""A model of 1.3 TB: planned whole and a slice of it converted, in memory that a laptop has to spare.

The shapes are those of DeepSeek-V3 in 16 bits; its files are holes, but for one expert.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import pytest
from ml_dtypes import bfloat16
from synthetic import FAMILIES, read_description, tensor_bytes, write_checkpoint

from gguf_forge import Request, Split, plan, quantize
from gguf_forge.distributed.job import open_job
from gguf_forge.option import parse_size

BOUND = 256 << 20

SIZES = {
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "first_k_dense_replace": 3,
    "n_routed_experts": 256,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
}
N_SHARDS = 163
EXPERT = "model.layers.30.mlp.experts.100.up_proj.weight"
EXPERT_SHAPE = [2048, 7168]


def tensors() -> Iterator[tuple[str, list[int]]]:
    hidden, heads, rank, rope = 7168, 128, 512, 64
    yield "model.embed_tokens.weight", [129280, hidden]
    for layer in range(61):
        name = f"model.layers.{layer}"
        for norm, size in (("input", hidden), ("post_attention", hidden)):
            yield f"{name}.{norm}_layernorm.weight", [size]
        yield f"{name}.self_attn.q_a_proj.weight", [1536, hidden]
        yield f"{name}.self_attn.q_a_layernorm.weight", [1536]
        yield f"{name}.self_attn.q_b_proj.weight", [heads * (128 + rope), 1536]
        yield f"{name}.self_attn.kv_a_proj_with_mqa.weight", [rank + rope, hidden]
        yield f"{name}.self_attn.kv_a_layernorm.weight", [rank]
        yield f"{name}.self_attn.kv_b_proj.weight", [heads * (128 + 128), rank]
        yield f"{name}.self_attn.o_proj.weight", [hidden, heads * 128]
        if layer < 3:
            yield from mlp(f"{name}.mlp", 18432)
            continue
        yield f"{name}.mlp.gate.weight", [256, hidden]
        yield f"{name}.mlp.gate.e_score_correction_bias", [256]
        yield from mlp(f"{name}.mlp.shared_experts", 2048)
        for expert in range(256):
            yield from mlp(f"{name}.mlp.experts.{expert}", 2048)
    yield "model.norm.weight", [hidden]
    yield "lm_head.weight", [129280, hidden]


def mlp(name: str, inner: int) -> Iterator[tuple[str, list[int]]]:
    yield f"{name}.gate_proj.weight", [inner, 7168]
    yield f"{name}.up_proj.weight", [inner, 7168]
    yield f"{name}.down_proj.weight", [7168, inner]


def write_giant(folder: Path) -> int:
    """The checkpoint; gives the bytes of its tensors."""
    write_checkpoint(FAMILIES / "deepseek3", folder, config=SIZES)
    for file in folder.glob("model*"):
        file.unlink()
    every = list(tensors())
    total = sum(2 * prod(shape) for _, shape in every)
    weight_map: dict[str, str] = {}
    done = 0
    shards: list[dict[str, list[int]]] = [{} for _ in range(N_SHARDS)]
    for name, shape in every:
        shard = min(N_SHARDS * done // total, N_SHARDS - 1)
        shards[shard][name] = shape
        weight_map[name] = f"model-{shard + 1:05}-of-{N_SHARDS:06}.safetensors"
        done += 2 * prod(shape)
    for shard in shards:
        write_holes(folder / weight_map[next(iter(shard))], shard)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def write_holes(path: Path, shard: dict[str, list[int]]) -> None:
    header: dict[str, object] = {}
    end, expert_at = 0, None
    for name, shape in shard.items():
        begin, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
        if name == EXPERT:
            expert_at = begin
    encoded = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.truncate(8 + len(encoded) + end)
        if expert_at is not None:
            file.seek(8 + len(encoded) + expert_at)
            file.write(tensor_bytes(EXPERT, "BF16", EXPERT_SHAPE))


_PEAK = """
import re
from pathlib import Path
# not getrusage: its peak survives exec, so it may be that of the test runner
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10)
"""


def peak_of(code: str, folder: Path) -> int:
    """The most memory that a process held which ran `code` in `folder`."""
    command = [sys.executable, "-c", f"from gguf_forge import *\n{code}\n{_PEAK}"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_giant_is_planned_and_a_slice_of_it_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source_bytes = write_giant(tmp_path / "DeepSeek-V3")
    assert source_bytes > 1.3e12
    split = "50G"
    pre_tokenizer = read_description(FAMILIES / "deepseek3").pre_tokenizer
    request = Request(
        source="DeepSeek-V3", out="m.gguf", types=("Q4_K_M",), split_max_size=split, pre_tokenizer=pre_tokenizer
    )
    assert peak_of(f"plan_work({request}, tasks=8000)", tmp_path) < BOUND

    (file,) = plan(
        "DeepSeek-V3",
        "m.gguf",
        types="Q4_K_M",
        pre_tokenizer=pre_tokenizer,
        split=Split(max_size=parse_size(split)),
    )
    job = open_job("plan.json")
    assert file.source_bytes == source_bytes
    assert sum(output.size for output in job.plan.outputs) == file.size > 400e9

    output, placed = next(
        (number, placed)
        for number, shard in enumerate(file.shards)
        for placed in shard.layout.tensors
        if placed.info.name == "blk.30.ffn_up_exps.weight"
    )
    nbytes = placed.info.nbytes // 256
    start = placed.offset + 100 * nbytes
    tasks = [
        task
        for task, pieces in enumerate(job.plan.tasks)
        if any(piece.output == output and piece.start < start + nbytes and piece.stop > start for piece in pieces)
    ]
    for task in tasks:
        assert peak_of(f"work('plan.json', {task}, threads=2)", tmp_path) < BOUND
    parts = [part for task in tasks for part in job.parts(task) if part.piece.output == output]
    made = b"".join(part.path.read_bytes() for part in parts)[start - parts[0].piece.start :][:nbytes]
    values = np.frombuffer(tensor_bytes(EXPERT, "BF16", EXPERT_SHAPE), np.uint16).view(bfloat16).reshape(EXPERT_SHAPE)
    assert made == quantize(values, placed.info.type).tobytes()
