"""Runs that succeeded with a wrong file: what another program does to an unfinished file or to a source is noticed
before a file gets its name, and standard keys are not set to what no reader takes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_gguf, tiny_llama
from command_line import Forge, listing

from gguf_forge import InputError, Observer, OutputError, UsageError, convert
from gguf_forge.storage.buffers import fresh
from gguf_forge.storage.local.output import beside
from gguf_forge.storage.local.publish import published

SIZE = 3 << 20


def cut(partial: Path) -> None:
    os.truncate(partial, SIZE // 3)


def cut_and_grown(partial: Path) -> None:
    os.truncate(partial, 100)
    os.truncate(partial, SIZE)


def grown(partial: Path) -> None:
    os.truncate(partial, SIZE + 1)


def written(partial: Path) -> None:
    with partial.open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(bytes(SIZE // 4))


def write_all(out: object, path: Path) -> None:
    for start in range(0, SIZE, 1 << 16):
        data = fresh(1 << 16, at=start)
        data[:] = np.arange(start, start + data.size) % 251 + 1
        out.write_at(start, data.data)  # type: ignore[attr-defined]
        out.finished(start, data.size)  # type: ignore[attr-defined]


@pytest.mark.parametrize("interfere", [cut, cut_and_grown, grown, written])
@pytest.mark.parametrize("resume", [False, True])
def test_an_unfinished_file_that_others_change(interfere: Callable[[Path], None], resume: bool, tmp_path: Path) -> None:
    """It is not kept for --resume either, because its journal vouches for bytes that are gone."""
    path = tmp_path / "out.gguf"
    with (
        pytest.raises(OutputError, match="another process wrote to the unfinished file"),
        published(path, SIZE, overwrite=False, resume=resume, fingerprint="f=1") as out,
    ):
        write_all(out, path)
        interfere(beside(path, "partial"))
    assert listing(tmp_path) == []


def test_bytes_that_the_run_itself_writes_twice(tmp_path: Path) -> None:
    path = tmp_path / "out.gguf"
    with published(path, SIZE, overwrite=False) as out:
        write_all(out, path)
        out.write_at(7, memoryview(b"another header" * 100))
    assert path.stat().st_size == SIZE


@pytest.mark.parametrize("resume", [False, True])
def test_a_removed_unfinished_file_leaves_no_journal(resume: bool, tmp_path: Path) -> None:
    path = tmp_path / "out.gguf"
    with (
        pytest.raises(OutputError, match="removed or replaced"),
        published(path, SIZE, overwrite=False, resume=resume, fingerprint="f=1") as out,
    ):
        write_all(out, path)
        out._journal._thread.submit(out._journal._write_down).result()
        assert beside(path, "journal").exists()
        beside(path, "partial").unlink()
    assert listing(tmp_path) == []


class Interfering(Observer):
    """Does something once, when the first bytes have been written."""

    def __init__(self, what: Callable[[], object]):
        self._what: Callable[[], object] | None = what

    def advance(self, n_bytes: int) -> None:
        what, self._what = self._what, None
        if what is not None:
            what()


@pytest.mark.parametrize("file_type", ["Q4_K_M", "BF16"])
def test_a_whole_conversion(file_type: str, tmp_path: Path) -> None:
    model, path = tiny_llama(tmp_path), tmp_path / "out.gguf"

    def interfere() -> None:
        partial = beside(path, "partial")
        size = partial.stat().st_size
        os.truncate(partial, 0)
        os.truncate(partial, size)

    with pytest.raises(OutputError, match="another process wrote to the unfinished file"):
        convert(model, path, types=file_type, observer=Interfering(interfere))
    assert listing(tmp_path) == ["Tiny"]


def test_a_source_that_changes_and_has_its_time_set_back(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    weights = model / "model.safetensors"

    def interfere() -> None:
        status = weights.stat()
        with weights.open("r+b") as file:
            file.seek(-2, os.SEEK_END)
            file.write(b"\1\1")
        os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(InputError, match=r"model\.safetensors: the file changed while it was read"):
        convert(model, tmp_path / "out.gguf", types="Q8_0", observer=Interfering(interfere))
    assert listing(tmp_path) == ["Tiny"]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            "tokenizer.ggml.tokens=float:nan",
            "tokens is a list of STRING to every reader, and not FLOAT32",
        ),
        ("tokenizer.ggml.model=int:1", "tokenizer.ggml.model is STRING to every reader, and not UINT32"),
        ("tokenizer.ggml.bos_token_id=str:<s>", "tokenizer.ggml.bos_token_id is UINT32"),
        ("llama.context_length=float:1", "llama.context_length is UINT32"),
        ("llama.rope.freq_base=float:inf", "llama.rope.freq_base is infinite or not a number"),
        ("llama.feed_forward_length=bool:true", "llama.feed_forward_length is UINT32 or a list to every reader"),
        ("general.base_model.0.name=int:1", "general.base_model.0.name is STRING"),
    ],
)
def test_standard_keys_have_a_type(override: str, problem: str, tmp_path: Path, forge: Forge) -> None:
    model = tiny_llama(tmp_path)
    run = forge("convert", model, "-t", "Q8_0", "-o", "o.gguf", "--override-kv", override)
    assert (run.code, problem in " ".join(run.err.split())) == (UsageError.exit_code, True), run.err
    assert forge("convert", model, "-t", "Q8_0", "-o", "o.gguf", "--override-kv", override, "--force", "-q").code == 0


def test_overrides_that_readers_take(tmp_path: Path, forge: Forge) -> None:
    given = (
        "llama.context_length=int:9",
        "llama.feed_forward_length=int:256",
        "my.own=float:inf",
        "general.name=str:x",
    )
    options = [word for override in given for word in ("--override-kv", override)]
    assert forge("convert", tiny_llama(tmp_path), "-t", "Q8_0", "-o", "o.gguf", *options).code == 0


@pytest.mark.parametrize(
    "setting",
    [
        "tokenizer.ggml.tokens=float:1",
        "tokenizer.ggml.tokens=[i32]:[1,2]",
        "llama.rope.freq_base=inf",
        "llama.context_length=u64:1",
        "tokenizer.ggml.scores[0]=nan",
    ],
)
def test_edit_knows_them_too(setting: str, tmp_path: Path, forge: Forge) -> None:
    file = tiny_gguf(tmp_path)
    before = file.read_bytes()
    run = forge("edit", file, "--set", setting)
    assert (run.code, "add --force" in run.err) == (UsageError.exit_code, True), run.err
    assert file.read_bytes() == before
    assert forge("edit", file, "--set", setting, "--force").code == 0
    assert "1 keys may keep readers from loading" in " ".join(forge("quantize", file, "q.gguf", "COPY").err.split())


def test_edit_renames_with_the_same_care(tmp_path: Path, forge: Forge) -> None:
    run = forge(
        "edit", tiny_gguf(tmp_path), "--rename", "general.name=llama.context_length", "--remove", "llama.context_length"
    )
    assert (run.code, "llama.context_length is UINT32" in run.err) == (UsageError.exit_code, True)
