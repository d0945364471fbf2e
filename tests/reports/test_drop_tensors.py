"""Tensors can be left out of a file and renamed, so that llama.cpp loads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import tiny_gguf
from command_line import Forge
from llama_cpp_client import generated
from raw_gguf import RawTensor, raw_gguf, write

from gguf_forge import InputError, RefusedError, UsageError, edit_gguf, open_gguf, split_gguf

Made = Callable[..., Path]


def data_of(path: Path) -> dict[str, bytes]:
    with open_gguf(path) as gguf:
        return {tensor.name: tensor.data().tobytes() for tensor in gguf.tensors}


def test_one_half_and_the_other(made: Made, forge: Forge) -> None:
    file = made() / "with-vision.gguf"
    before = data_of(file)
    assert forge("edit", file, "-o", "text.gguf", "--drop-tensor", r"^(v|mm)\.").code == 0
    assert forge("edit", file, "-o", "vision.gguf", "--drop-tensor", r"^(?!v\.|mm\.)").code == 0
    text, vision = data_of(Path("text.gguf")), data_of(Path("vision.gguf"))
    assert (len(text), list(vision)) == (21, ["v.blk.0.attn_q.weight", "mm.input_projection.weight"])
    assert {**text, **vision} == before
    assert forge("verify", "text.gguf").code == forge("verify", "vision.gguf").code == 0
    pytest.importorskip("xllamacpp", exc_type=ImportError)
    assert generated(Path("text.gguf")) == ["6"]


def test_a_prefix_goes(made: Made, forge: Forge) -> None:
    file = made() / "prefixed.gguf"
    before = data_of(file)
    run = forge("edit", file, "--rename-tensor", r"^model\.=", "--json")
    assert run.json["tensors"][0] == {"name": "model.blk.0.attn_norm.weight", "new_name": "blk.0.attn_norm.weight"}
    assert data_of(file) == {name.removeprefix("model."): data for name, data in before.items()}
    pytest.importorskip("xllamacpp", exc_type=ImportError)
    assert generated(file) == ["6"]


def test_both_at_once_and_on_one_part_of_a_split(tmp_path: Path, forge: Forge) -> None:
    file = tiny_gguf(tmp_path)
    before = data_of(file)
    run = forge(
        "edit", file, "-o", "out.gguf", "--drop-tensor", "ffn_", "--drop-tensor", "^output",
        "--rename-tensor", "attn_(q|k)=self_attn", "--rename-tensor", "(NORM)=n",
    )  # fmt: skip
    assert run.code == UsageError.exit_code
    assert "would both be called blk.0.self_attn.weight" in run.err
    run = forge("edit", file, "-o", "out.gguf", "--drop-tensor", "ffn_", "--rename-tensor", "(NORM)=n")
    assert run.code == 0
    expected = {name.replace("norm", "n"): data for name, data in before.items() if "ffn_" not in name}
    assert data_of(Path("out.gguf")) == expected
    parts = [shard.path for shard in split_gguf(file, "p", max_tensors=4).file.shards]
    assert forge("edit", parts[1], "--rename-tensor", "^=x.").code == 0
    assert len([name for name in data_of(parts[0]) if name.startswith("x.")]) == 4
    run = forge("edit", parts[0], "--drop-tensor", "norm")
    assert (run.code, "gguf-forge merge" in run.err) == (RefusedError.exit_code, True)


def test_tensors_of_a_fork_can_go_and_stay(tmp_path: Path, forge: Forge) -> None:
    tensors = [RawTensor(b"a", (32,), 153), RawTensor(b"b", (32,), 0, 64), RawTensor(b"c", (32,), 153, 192)]
    raw = bytes(range(256))
    file = write(tmp_path, raw_gguf([], tensors, raw))
    assert forge("edit", file, "-o", "known.gguf", "--drop-tensor", "a|c").err == ""
    assert data_of(Path("known.gguf")) == {"b": raw[64:192]}
    run = forge("edit", file, "-o", "unknown.gguf", "--drop-tensor", "b", "--rename-tensor", "a=z")
    assert "type 153 is not known" in run.err
    with open_gguf("unknown.gguf", lenient=True) as gguf:
        assert {t.name: t.data().tobytes() for t in gguf.tensors} == {"z": raw[:64], "c": raw[192:]}


def test_what_a_cut_file_lacks_can_go(tmp_path: Path, forge: Forge) -> None:
    tensors = [RawTensor(b"a", (32,)), RawTensor(b"b", (32,), 0, 128), RawTensor(b"c", (32,), 0, 256)]
    file = write(tmp_path, raw_gguf([], tensors, bytes(range(200))))
    run = forge("edit", file, "-o", "out.gguf", "--drop-tensor", "a")
    assert (run.code, "the file lacks 2 tensors or parts of them, from b to c" in run.err) == (
        InputError.exit_code,
        True,
    )
    run = forge("edit", file, "--drop-tensor", "b|c")
    assert (run.code, "not edited in place" in run.err) == (RefusedError.exit_code, True)
    assert forge("edit", file, "-o", "out.gguf", "--drop-tensor", "b|c").code == 0
    assert data_of(Path("out.gguf")) == {"a": bytes(range(128))}


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_big_endian_file(order: str, tmp_path: Path) -> None:
    tensors = [RawTensor(b"a", (32,)), RawTensor(b"b", (32,), 0, 128)]
    file = write(tmp_path, raw_gguf([], tensors, bytes(range(256)), order=order))
    edit_gguf(file, drop_tensor=["a"], rename_tensor={"b": "c"})
    assert data_of(file) == {"c": bytes(range(128, 256))}


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--drop-tensor", "nothing", "no tensor has such a name"),
        ("--drop-tensor", "(", "ends too early|lacks a"),
        ("--rename-tensor", "nothing=x", "no tensor has such a name"),
        ("--rename-tensor", "nothing", "is not PATTERN=TEXT"),
        ("--rename-tensor", ".*=", "would be empty"),
        ("--rename-tensor", ".*=x", "would both be called x"),
        ("--rename-tensor", "^blk=" + "x" * 60, "ggml loads 1 to 63"),
    ],
)
def test_nonsense(option: str, value: str, problem: str, tmp_path: Path, forge: Forge) -> None:
    file = tiny_gguf(tmp_path)
    before = file.read_bytes()
    run = forge("edit", file, option, value)
    assert run.code in (UsageError.exit_code, InputError.exit_code)
    assert any(part in run.err for part in problem.split("|"))
    assert file.read_bytes() == before
