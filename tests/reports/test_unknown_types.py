"""Files with tensor types that nobody here knows can be looked at and changed; their values are not touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Forge
from raw_gguf import STRING, RawTensor, key, raw_gguf, text, write

from gguf_forge import InputError, UnsupportedError, convert

SIZES = {"token_embd.weight": ("F16", 32768), "output_norm.weight": ("F32", 1024)}


@pytest.mark.parametrize(("label", "number"), [("iq2_kt", 153), ("future", 60)])
def test_inspect_shows_keys_types_and_bytes(label: str, number: int, made: Callable[..., Path], forge: Forge) -> None:
    file = made() / f"{label}.gguf"
    shown = forge("inspect", file, "--json").json
    found = {name: (entry["type"], entry["nbytes"]) for name, entry in shown["tensors"].items()}
    assert found == {**SIZES, "blk.0.ffn_down.weight": (f"type {number}", 4608)}
    assert shown["metadata"]["general.name"]["value"] == "Forked"
    assert f"type {number}" in forge("inspect", file).out
    assert forge("inspect", file, "--no-tensors").code == 0
    assert forge("inspect", file, "--key", "tokenizer.chat_template").out == "{{ messages }}\n"


def test_a_number_that_a_fork_took_is_named(made: Callable[..., Path], forge: Forge) -> None:
    file = made() / "taken-number.gguf"
    run = forge("inspect", file, "--json")
    assert run.json["tensors"]["blk.0.ffn_down.weight"]["type"] == "type 42"
    assert run.json["tensors"]["blk.0.ffn_down.weight"]["nbytes"] == 256
    with pytest.raises(InputError) as caught:
        convert(file, file.parent / "out.gguf", types="Q8_0")
    assert caught.value.hint is not None
    assert "a fork of llama.cpp may use number 42" in caught.value.hint
    assert "download" not in caught.value.hint


def test_commands_that_need_values_name_the_tensors(made: Callable[..., Path], forge: Forge) -> None:
    file = made() / "iq2_kt.gguf"
    for arguments in (("quantize", file, "Q8_0"), ("dequantize", file), ("inspect", file, "--tensor", "blk.*")):
        run = forge(*arguments)
        assert run.code == UnsupportedError.exit_code
        assert "blk.0.ffn_down.weight" in run.err
        assert "type 153" in run.err
        assert "download" not in run.err


def test_commands_that_need_none_work(made: Callable[..., Path], forge: Forge) -> None:
    file = made() / "iq2_kt.gguf"
    before = file.read_bytes()
    assert forge("verify", file, "--write-sums", "sums").code == 0
    assert forge("verify", file, "--check-sums", "sums").code == 0
    assert forge("edit", file, "-o", "renamed.gguf", "--set", "general.name=Mine").code == 0
    assert Path("renamed.gguf").read_bytes().endswith(before[-38400:])
    assert forge("compare", file, "renamed.gguf", "--only-tensors").code == 0
    other = bytearray(before)
    other[-2000] ^= 1
    Path("other.gguf").write_bytes(other)
    run = forge("compare", file, "other.gguf", "--json")
    assert [each["likeness"] for each in run.json["tensors"]] == ["same", "not readable", "same"]


def test_split_and_merge_copy_what_nobody_can_read(made: Callable[..., Path], forge: Forge) -> None:
    file = made() / "iq2_kt.gguf"
    run = forge("split", file, "part", "--split-max-tensors", "1")
    assert (run.code, "type 153 is not known" in run.err) == (0, True)
    assert Path("part-00002-of-00003.gguf").read_bytes().endswith(b"\x11" * 4608)
    assert forge("merge", "part-00001-of-00003.gguf", "whole.gguf").code == 0
    assert forge("compare", file, "whole.gguf", "--only-tensors").code == 0
    assert Path("whole.gguf").read_bytes()[-38400:] == file.read_bytes()[-38400:]


@pytest.mark.parametrize("size", [0, 1, 33, 4095, 4097, 70001])
def test_tensors_of_any_size_are_copied(size: int, tmp_path: Path, forge: Forge) -> None:
    raw = (bytes(range(251)) * 300)[:size]
    file = write(tmp_path, raw_gguf([], [RawTensor(b"a"), RawTensor(b"b", (7,), 153, 128)], bytes(128) + raw))
    assert forge("split", file, "part", "--split-max-tensors", "1").code == 0
    assert forge("merge", "part-00001-of-00002.gguf", "whole.gguf").code == 0
    assert Path("whole.gguf").read_bytes()[128:].rstrip(b"\0").endswith(raw.rstrip(b"\0"))


def several(folder: Path, order: str) -> Path:
    """Three tensors of two unknown types among known ones, in one of the two byte orders."""
    keys = [key(b"general.architecture", STRING, text(b"llama", order), order)]
    tensors = [
        RawTensor(b"a", (256,), 137, 0),
        RawTensor(b"b", (32,), 0, 96),
        RawTensor(b"c", (256, 2), 151, 224),
        RawTensor(b"d", (256,), 137, 320),
    ]
    return write(folder, raw_gguf(keys, tensors, bytes(range(256)) + bytes(160), order=order))


@pytest.mark.parametrize("order", ["<", ">"])
def test_several_unknown_types_in_both_byte_orders(order: str, tmp_path: Path, forge: Forge) -> None:
    file = several(tmp_path, order)
    shown = forge("inspect", file, "--json").json
    assert [entry["nbytes"] for entry in shown["tensors"].values()] == [96, 128, 96, 96]
    assert shown["broken_rules"][0]["names"] == ["a", "c", "d"]
    run = forge("quantize", file, "Q8_0")
    assert "type 137 is not known; so it is with 2 more: c, d" in run.err


def test_types_that_llama_cpp_removed_are_shown_by_number(tmp_path: Path, forge: Forge) -> None:
    file = write(tmp_path, raw_gguf([], [RawTensor(b"a", (32, 4), 31)], bytes(72)))
    shown = forge("inspect", file)
    assert "type 31" in shown.out
    assert "Q4_0_4_4, which llama.cpp removed" in shown.out
    assert forge("inspect", file, "--json").json["tensors"]["a"]["nbytes"] == 72
