"""Files of image and video models have tensors of five dimensions on purpose: they are whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Forge
from raw_gguf import STRING, RawTensor, key, raw_gguf, text, write

from gguf_forge import InputError

Made = Callable[..., Path]
SHAPE = [2, 2, 1, 16, 256]


def test_inspect_lists_both_tensors(made: Made, forge: Forge) -> None:
    file = made() / "five-dims.gguf"
    found = forge("inspect", file, "--json").json["tensors"]
    assert {name: (entry["shape"], entry["type"], entry["nbytes"]) for name, entry in found.items()} == {
        "patch_embedding.weight": (SHAPE, "F16", 32768),
        "blocks.0.self_attn.q.weight": ([256, 256], "F16", 131072),
    }
    assert "2 x 2 x 1 x 16 x 256" in forge("inspect", file).out
    assert forge("inspect", file, "--tensor", "patch_embedding.weight").code == 0


def test_edit_keeps_every_byte_of_the_tensors(made: Made, forge: Forge) -> None:
    file = made() / "five-dims.gguf"
    before = file.read_bytes()
    assert forge("edit", file, "--set", "general.name=str:Wan").code == 0
    assert file.read_bytes()[-163840:] == before[-163840:]
    assert forge("inspect", file, "--json").json["tensors"]["patch_embedding.weight"]["shape"] == SHAPE


def test_commands_that_cannot_say_whom_the_file_is_for(made: Made, forge: Forge) -> None:
    run = forge("quantize", made() / "five-dims.gguf", "Q8_0")
    assert run.code == InputError.exit_code
    assert "5 dimensions; ggml has 4" in run.err
    assert "ComfyUI-GGUF or stable-diffusion.cpp" in run.err
    assert "download" not in run.err


@pytest.mark.parametrize("dims", [5, 6, 8])
def test_other_shapes_and_names(dims: int, tmp_path: Path, forge: Forge) -> None:
    """A video model of another tool, with a name that ggml cannot hold."""
    name = b"model.diffusion_model." + b"very_long_name_of_a_block." * 3 + b"weight"
    tensors = [RawTensor(name, (2,) * 5 + (1,) * (dims - 5), 0), RawTensor(b"b", (4,), 0, 128)]
    keys = [key(b"general.architecture", STRING, text(b"hyvid"))]
    file = write(tmp_path, raw_gguf(keys, tensors, bytes(range(144))))
    shown = forge("inspect", file, "--json").json
    assert [rule["rule"] for rule in shown["broken_rules"]] == ["long name", "dimensions"]
    assert len(shown["tensors"][name.decode()]["shape"]) == dims
    assert forge("edit", file, "-o", "out.gguf", "--set", "general.name=str:x").code == 0
    assert Path("out.gguf").read_bytes().endswith(bytes(range(144)))


def test_verify_and_compare_take_it(made: Made, forge: Forge) -> None:
    file = made() / "five-dims.gguf"
    run = forge("verify", file, "--write-sums", "sums", "--json")
    assert (run.code, run.json["problems"], run.json["broken_rules"][0]["rule"]) == (0, [], "dimensions")
    assert forge("verify", file, "--check-sums", "sums").code == 0
    assert forge("compare", file, file).code == 0
    other = Path("other.gguf")
    other.write_bytes(file.read_bytes()[:-2] + b"\0\0")
    run = forge("compare", file, other, "--json")
    assert [each["likeness"] for each in run.json["tensors"]] == ["same", "different"]


def test_dropping_the_tensor_makes_an_ordinary_file(made: Made, forge: Forge) -> None:
    file = made() / "five-dims.gguf"
    run = forge("edit", file, "-o", "out.gguf", "--drop-tensor", "^patch_embedding")
    assert (run.code, run.err) == (0, "")
    assert forge("verify", "out.gguf").code == 0
