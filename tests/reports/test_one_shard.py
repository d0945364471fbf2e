"""One part of a split, and the beginning of a file, can be looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import tiny_gguf
from command_line import Forge
from raw_gguf import RawTensor, raw_gguf, write

from gguf_forge import InputError, UsageError, split_gguf
from gguf_forge.gguf_file.opened import open_gguf


def test_the_first_part(made: Callable[..., Path], forge: Forge) -> None:
    file = made() / "big-00001-of-00003.gguf"
    shown = forge("inspect", file, "--json").json
    assert len(shown["tensors"]) == 8
    assert shown["metadata"]["general.name"]["value"] == "Little"
    assert shown["broken_rules"][0]["names"] == ["big-00003-of-00003.gguf"]
    assert "2 of 3 parts are here; 00003 is missing" in forge("inspect", file).out


def test_a_later_part(made: Callable[..., Path], forge: Forge) -> None:
    shown = forge("inspect", made() / "big-00002-of-00003.gguf", "--json").json
    assert list(shown["metadata"]) == ["split.no", "split.count", "split.tensors.count"]
    assert len(shown["tensors"]) == 7


def test_the_beginning_of_a_file(made: Callable[..., Path], forge: Forge) -> None:
    file = made() / "head.gguf"
    shown = forge("inspect", file, "--json").json
    assert len(shown["tensors"]) == 21
    assert not any(entry.get("whole", True) for entry in shown["tensors"].values())
    assert "the file has only 40000" in forge("inspect", file).out
    assert forge("inspect", file, "--key", "tokenizer.chat_template").out == "{{ messages[0].content }}\n"
    assert forge("inspect", file, "--no-tensors").code == 0


def test_the_beginning_of_a_header(made: Callable[..., Path], forge: Forge) -> None:
    """The keys before the vocabulary, which takes most of a header."""
    head = Path("head.gguf")
    head.write_bytes((made() / "head.gguf").read_bytes()[:1000])
    shown = forge("inspect", head, "--json").json
    assert shown["metadata"]["general.architecture"]["value"] == "llama"
    assert shown["broken_rules"][0]["rule"] == "header cut short"
    run = forge("inspect", head, "--key", "tokenizer.chat_template")
    assert (run.code, "the file ends in its header" in run.err) == (UsageError.exit_code, True)
    for arguments in (
        ("edit", head, "-o", "x.gguf", "--set", "general.name=x"),
        ("split", head, "x", "--partial"),
        ("quantize", head, "Q8_0"),
        ("verify", head),
    ):
        run = forge(*arguments)
        assert (run.code, "download it again" in run.err) == (InputError.exit_code, True)


def test_verify_stays_strict(made: Callable[..., Path], forge: Forge) -> None:
    folder = made()
    run = forge("verify", folder / "big-00001-of-00003.gguf")
    assert (run.code, "00003 is missing" in run.err) == (InputError.exit_code, True)
    run = forge("verify", folder / "head.gguf")
    assert (run.code, "download it again" in run.err) == (InputError.exit_code, True)
    assert "the file lacks 21 tensors or parts of them, from token_embd.weight to blk.1.ffn_down.weight" in run.err


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """The first of five parts of a small model."""
    split_gguf(tiny_gguf(tmp_path), tmp_path / "m", max_tensors=2)
    return min(tmp_path.glob("m-00001-of-*.gguf"))


def test_all_missing_parts_are_named_at_once(parts: Path, forge: Forge) -> None:
    with open_gguf(parts) as gguf:
        paths = gguf.paths
    for path in (*paths[1:3], *paths[4:]):
        path.unlink()
    run = forge("verify", parts)
    assert run.code == InputError.exit_code
    assert f"2 of {len(paths)} parts are here; 00002 to 00003, 00005" in run.err


def test_parts_that_do_not_belong_together_are_looked_at_one_by_one(parts: Path, forge: Forge) -> None:
    second = parts.with_name(parts.name.replace("00001-of", "00002-of"))
    second.write_bytes(parts.read_bytes())
    shown = forge("inspect", parts, "--json").json
    assert shown["broken_rules"][0]["problem"] == "split.no is 0 where 1 is expected"
    assert len(shown["files"]) == 1
    assert forge("verify", parts).code == InputError.exit_code


def test_a_part_under_another_name(parts: Path, forge: Forge) -> None:
    renamed = parts.rename(parts.with_name("model.gguf"))
    assert forge("inspect", renamed, "--json").json["broken_rules"][0]["rule"] == "part of a split"
    assert forge("verify", renamed).code == InputError.exit_code


@pytest.mark.parametrize("size", [1, 100, 127])
def test_what_is_whole_in_a_cut_file_can_be_read(size: int, tmp_path: Path, forge: Forge) -> None:
    tensors = [RawTensor(b"a", (32,)), RawTensor(b"b", (32,), 0, 128)]
    file = write(tmp_path, raw_gguf([], tensors, bytes(128 + size)))
    shown = forge("inspect", file, "--json").json
    assert [entry.get("whole", True) for entry in shown["tensors"].values()] == [True, False]
    assert forge("inspect", file, "--tensor", "a").code == 0
    run = forge("inspect", file, "--tensor", "b")
    assert (run.code, "ends before the tensor does" in run.err) == (InputError.exit_code, True)
