"""Files for big-endian machines, against llama.cpp's converter and gguf-py's gguf_convert_endian.py.

The expected digests in tests/big_endian.json were made by reference/make_big_endian.py; none comes from this project.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantized import digest
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import Split, convert, open_gguf, verify_gguf
from gguf_forge.errors import UsageError

RUNS = json.loads((Path(__file__).parents[1] / "big_endian.json").read_text())


def converted(family: str, scratch: Path, name: str = "m.gguf", **how: Any) -> Path:
    checkpoint = scratch / "hf"
    if not checkpoint.exists():
        write_checkpoint(FAMILIES / family, checkpoint)
    pre_tokenizer = read_description(FAMILIES / family).pre_tokenizer
    return convert(checkpoint, scratch / name, pre_tokenizer=pre_tokenizer, **{"bigendian": True, **how})[0].path


def pinned(file: dict[str, Any]) -> list[Any]:
    return [file["size"], file["sha256"]]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run['family']} {run['type']}")
def test_the_files_are_those_of_the_reference(run: dict[str, Any], tmp_path: Path) -> None:
    how = {"types": run["type"], **{option.removeprefix("--"): True for option in run.get("options", [])}}
    as_reference = converted(run["family"], tmp_path, "as.gguf", as_reference=True, **how)
    assert digest(as_reference.read_bytes()) == pinned(run["file"])
    if run["type"] != "TQ1_0":  # which gguf-py cannot turn
        right = converted(run["family"], tmp_path, "right.gguf", **how)
        assert digest(right.read_bytes()) == pinned(run.get("right", run["file"]))


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_the_values_are_those_of_the_little_endian_file(kind: str, tmp_path: Path) -> None:
    big = converted("qwen3", tmp_path, "big.gguf", types=kind)
    little = converted("qwen3", tmp_path, "little.gguf", types=kind, bigendian=False)
    with open_gguf(big) as one, open_gguf(little) as other:
        assert (one.byte_order, other.byte_order) == (">", "<")
        assert dict(one.metadata) == dict(other.metadata)
        for ours, theirs in zip(one.tensors, other.tensors, strict=True):
            assert np.array_equal(ours.values().view(np.uint32), theirs.values().view(np.uint32))


def test_ternary_blocks_hold_the_values_that_the_converter_gives_them(tmp_path: Path) -> None:
    """gguf-py has no code to turn TQ1_0, but the scale is the only number of a block that is longer than a byte."""
    with open_gguf(converted("qwen3", tmp_path, types="TQ1_0")) as gguf:
        one = {tensor.name: tensor for tensor in gguf.tensors}
        two_path = converted("qwen3", tmp_path, "two.gguf", types="TQ2_0")
        with open_gguf(two_path) as two:
            for other in two.tensors:
                assert np.array_equal(one[other.name].values(), other.values())


def test_a_file_in_parts_is_big_endian_in_all(tmp_path: Path) -> None:
    first = converted("qwen3", tmp_path, types="Q8_0", split=Split(max_tensors=9))
    parts = sorted(tmp_path.glob("m-0000*-of-*.gguf"))
    assert first == parts[0] and len(parts) > 1
    assert {part.read_bytes()[4:8] for part in parts} == {b"\0\0\0\3"}
    with open_gguf(first) as gguf:
        assert all(np.isfinite(tensor.values()).all() for tensor in gguf.tensors)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "TQ2_0"])
def test_verify_takes_it_for_right(kind: str, tmp_path: Path) -> None:
    path = converted("qwen3", tmp_path, types=kind)
    pre_tokenizer = read_description(FAMILIES / "qwen3").pre_tokenizer
    assert verify_gguf(path, tmp_path / "hf", pre_tokenizer=pre_tokenizer).ok


def test_a_complete_file_is_known_again(tmp_path: Path) -> None:
    path = converted("qwen3", tmp_path, types="BF16")
    before = path.stat().st_mtime_ns
    converted("qwen3", tmp_path, types="BF16", resume=True)
    assert path.stat().st_mtime_ns == before


def test_types_that_only_a_big_endian_machine_can_make_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="type Q4_K_M can only be made on a big-endian machine") as caught:
        converted("qwen3", tmp_path, types=["F16", "Q4_K_M"])
    assert "machine can make Q4_K_M" in str(caught.value.hint)


def test_a_mix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pure=True: no effect on a file of type Q8_0") as caught:
        converted("qwen3", tmp_path, types="Q8_0", pure=True)
    assert caught.value.hint == "leave it out"


def test_a_gguf_file_is_not_turned(tmp_path: Path) -> None:
    path = converted("qwen3", tmp_path, types="F16", bigendian=False)
    with pytest.raises(UsageError, match="bigendian=True is for model folders"):
        convert(path, tmp_path / "q.gguf", types="Q8_0", bigendian=True)
