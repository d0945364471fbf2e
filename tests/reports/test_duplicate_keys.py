"""Files that were written wrongly: the hint says so, and keys that are there twice can be mended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Forge
from raw_gguf import STRING, RawTensor, key, raw_gguf, text, u32_key, write

from gguf_forge import InputError

Made = Callable[..., Path]
FILES = ("same-twice", "other-twice", "nested", "gap")


@pytest.mark.parametrize("name", FILES)
def test_the_hint_fits(name: str, made: Made, forge: Forge) -> None:
    file = made() / f"{name}.gguf"
    for arguments in (("quantize", file, "Q8_0"), ("verify", file)):
        run = forge(*arguments)
        assert run.code == InputError.exit_code
        assert "it was written so by the program that made it; llama.cpp does not load it" in run.err
        assert "download" not in run.err
    assert forge("inspect", file).code == 0
    assert forge("inspect", file, "--json").code == 0


@pytest.mark.parametrize(
    ("name", "twice", "values"),
    [
        ("same-twice", "general.architecture", ["llama", "llama"]),
        ("other-twice", "tokenizer.ggml.add_bos_token", [True, False]),
    ],
)
def test_one_of_two_keys_can_be_left_out(name: str, twice: str, values: list[object], made: Made, forge: Forge) -> None:
    file = made() / f"{name}.gguf"
    shown = forge("inspect", file, "--json").json
    assert [shown["metadata"][twice]["value"], *(each["value"] for each in shown["repeated_keys"])] == values
    assert len(forge("inspect", file, "--key", twice).out.splitlines()) == 2
    run = forge("edit", file, "--set", "general.name=x")
    assert (run.code, f"--remove {twice}" in run.err) == (InputError.exit_code, True)
    run = forge("edit", file, "-o", "mended.gguf", "--remove", twice, "--json")
    assert [(change["key"], change["new"]) for change in run.json["changes"]] == [(twice, None)]
    assert forge("verify", "mended.gguf").code == 0
    assert forge("inspect", "mended.gguf", "--json").json["metadata"][twice]["value"] == values[0]
    assert forge("edit", file, "-o", "none.gguf", "--remove", twice, "--remove", twice).code == (
        8 if twice == "general.architecture" else 0
    )


def test_arrays_of_arrays_are_shown_and_kept(made: Made, forge: Forge) -> None:
    file = made() / "nested.gguf"
    assert "[[1, 2], [3]]" in forge("inspect", file).out
    assert forge("inspect", file, "--json-array").json["metadata"]["my.lists"]["value"] == [[1, 2], [3]]
    assert forge("edit", file, "-o", "out.gguf", "--set", "general.name=x").code == 0
    assert "[[1, 2], [3]]" in forge("inspect", "out.gguf").out
    assert forge("edit", file, "--remove", "my.lists").err == ""
    assert forge("verify", file).code == 0


def test_gaps_stay_and_go(made: Made, forge: Forge) -> None:
    file = made() / "gap.gguf"
    tail = file.read_bytes()[-1024:]
    assert forge("edit", file, "--set", "general.name=str:x").code == 0
    assert file.read_bytes().endswith(tail)
    assert forge("inspect", file, "--tensor", "output_norm.weight").code == 0


@pytest.mark.parametrize("twice", [b"general.alignment", b"split.count", b"a"])
def test_other_keys_that_are_there_three_times(twice: bytes, tmp_path: Path, forge: Forge) -> None:
    number = 64 if twice == b"general.alignment" else 1
    keys = [u32_key(twice, number), u32_key(twice, 128), key(twice, STRING, text(b"x"))]
    file = write(tmp_path, raw_gguf(keys, [RawTensor()], bytes(128), alignment=max(number, 32)))
    assert len(forge("inspect", file, "--json").json["repeated_keys"]) == 2
    assert forge("edit", file, "--remove", twice.decode()).code == 0
    assert forge("verify", file).code == 0


def test_a_key_without_a_name(tmp_path: Path, forge: Forge) -> None:
    file = write(tmp_path, raw_gguf([u32_key(b"", 1), u32_key(b"a", 2)], [RawTensor()], bytes(128)))
    run = forge("quantize", file, "Q8_0")
    assert (run.code, "is empty" in run.err, "download" in run.err) == (InputError.exit_code, True, False)
    assert forge("inspect", file).code == 0
    assert forge("edit", file, "--remove", "").code == 0
    assert forge("verify", file).code == 0
