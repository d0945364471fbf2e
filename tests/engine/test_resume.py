"""--resume: the same bytes, without the work that was done before."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from checkpoints import tiny_llama
from command_line import listing
from imatrices import made_up, write_gguf
from rich.console import Console
from rich.progress import Progress
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import convert, quantize_gguf
from gguf_forge.cli.options import Messages
from gguf_forge.cli.progress import Bar, Lines, counting
from gguf_forge.engine import complete
from gguf_forge.engine import fingerprint as fingerprints
from gguf_forge.engine import forge as engine
from gguf_forge.engine.batches import Shard, cut
from gguf_forge.engine.fingerprint import fingerprint
from gguf_forge.errors import OutputError, RefusedError
from gguf_forge.gguf_file.opened import open_gguf
from gguf_forge.planning.file_plan import FilePlan
from gguf_forge.planning.making import planned
from gguf_forge.planning.splits import Split
from gguf_forge.recipe import Options, read_imatrix
from gguf_forge.request import Request
from gguf_forge.run_settings import Observer
from gguf_forge.storage.local import journal


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tasks, each of them written down at once; of one thread, one after the other."""
    monkeypatch.setattr(engine, "_WAITING", 0)
    monkeypatch.setattr(journal, "BATCH_BYTES", 1)
    monkeypatch.setattr(engine, "cut", lambda whole, values, **bounds: cut(whole, 20_000, **bounds))


class Stop:
    """Counts the tasks of a run, and fails at the n-th."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int | None = None):
        self.seen = 0
        pack = engine.pack

        def counting(*arguments: Any, **options: Any) -> object:
            self.seen += 1
            if self.seen == at:
                raise OutputError("stopped")
            return pack(*arguments, **options)

        monkeypatch.setattr(engine, "pack", counting)


Run = Callable[..., Any]


def run_convert(folder: Path, **how: Any) -> Any:
    return convert(folder / "Tiny", folder / "out-{ftype}.gguf", types=["Q4_K_M", "Q8_0"], threads=1, **how)


def run_quantize(folder: Path, **how: Any) -> Any:
    return quantize_gguf(
        folder / "in.gguf", folder / "out-{ftype}.gguf", types="Q8_0", split=Split(max_tensors=7), threads=1, **how
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_llama(tmp_path)
    convert(tmp_path / "Tiny", tmp_path / "in.gguf", types="F16")
    return tmp_path


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("out-*")}


@pytest.mark.parametrize("run", [run_convert, run_quantize])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_stopped_run_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch, run: Run, overwrite: bool) -> None:
    with monkeypatch.context() as patch:
        whole = Stop(patch)
        expected = {result.path: result for result in run(folder)}
    written = outputs(folder)
    for path in folder.glob("out-*"):
        path.write_bytes(b"old") if overwrite else path.unlink()
    for part in (whole.seen // 3, whole.seen // 3):
        with monkeypatch.context() as patch:
            stopped = Stop(patch, part)
            with pytest.raises(OutputError, match="stopped"):
                run(folder, resume=True, overwrite=overwrite)
            assert stopped.seen == part
        assert set(outputs(folder).values()) == ({b"old"} if overwrite else set())
    with monkeypatch.context() as patch:
        last = Stop(patch)
        results = run(folder, resume=True, overwrite=overwrite)
    assert last.seen == whole.seen - 2 * (whole.seen // 3 - 1)
    assert outputs(folder) == written
    for result in results:
        assert 0 < result.resumed_tensors < len(expected[result.path].file.tensors)
    assert not [name for name in listing(folder) if name.startswith(".")]


class Counted(Observer):
    """What an observer is told: the bytes of the files, those that are there, and those that are written."""

    def __init__(self) -> None:
        self.whole = self.there = self.written = 0

    def begin(self, files: Sequence[FilePlan]) -> None:
        self.whole = sum(file.bytes_to_write for file in files)

    def resumed(self, n_bytes: int) -> None:
        self.there += n_bytes

    def advance(self, n_bytes: int) -> None:
        self.written += n_bytes


@pytest.mark.parametrize("run", [run_convert, run_quantize])
def test_progress_begins_where_the_stopped_run_ended(folder: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    with monkeypatch.context() as patch:
        Stop(patch, 20)
        with pytest.raises(OutputError, match="stopped"):
            run(folder, resume=True, observer=Counted())
    told = Counted()
    run(folder, resume=True, observer=told)
    assert 0 < told.there < told.whole
    assert told.there + told.written == told.whole
    told = Counted()
    run(folder, resume=True, observer=told)
    assert (told.there, told.written) == (told.whole, 0)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_bars_and_lines_begin_there(folder: Path, share: float) -> None:
    """The speed is that of what is written."""
    with planned(Request(source=str(folder / "Tiny"), types=("Q8_0",))) as found:
        size = sum(file.bytes_to_write for file in found.files)
        with Progress(console=Console(file=StringIO())) as progress:
            bar = Bar(progress)
            bar.begin(found.files)
            bar.resumed(int(size * share))
            (task,) = progress.tasks
            assert (task.completed, task.total, task.speed) == (int(size * share), size, None)
        to = Console(file=StringIO())
        lines = Lines(to)
        lines.begin(found.files)
        lines.resumed(int(size * share))
        assert isinstance(to.file, StringIO)
        assert f"{share:4.0%} is there from an earlier run" in to.file.getvalue()


def test_a_long_job_outside_a_terminal_writes_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("gguf_forge.cli.progress.time", SimpleNamespace(monotonic=lambda: now))
    with counting("verifying", 1000, Messages()) as done:
        for _ in range(4):
            now += 61
            done(1)
    told = capfd.readouterr().err.splitlines()
    assert told[0] == "verifying:   0%, 0 bytes/s, 16 h 56 min left" and len(told) == 4


def test_nothing_is_left_of_a_stopped_run_that_does_not_resume(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = listing(folder)
    Stop(monkeypatch, 30)
    with pytest.raises(OutputError, match="stopped"):
        run_convert(folder)
    assert listing(folder) == before


@pytest.mark.parametrize("run", [run_convert, run_quantize])
def test_over_a_complete_output_it_is_a_success_and_no_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    run(folder)
    paths = list(folder.glob("out-*"))
    before = {path: identity(path) for path in paths}
    none = Stop(monkeypatch)
    for result in run(folder, resume=True):
        assert result.resumed_tensors == len(result.file.tensors)
    assert none.seen == 0
    assert {path: identity(path) for path in paths} == before


def identity(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


def test_a_part_that_is_lost_is_made_again(folder: Path) -> None:
    run_quantize(folder)
    written = outputs(folder)
    lost = sorted(folder.glob("out-*"))[1]
    lost.unlink()
    (result,) = run_quantize(folder, resume=True)
    assert result.resumed_tensors == len(result.file.tensors) - len(result.file.shards[1].sources)
    assert outputs(folder) == written


def test_with_overwrite_a_complete_output_is_made_again(folder: Path) -> None:
    """It may be of other weights, which the header does not show."""
    run_convert(folder)
    written = outputs(folder)
    for path in folder.glob("out-*"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    run_convert(folder, resume=True, overwrite=True)
    assert outputs(folder) == written


def test_an_output_of_something_else_is_refused(folder: Path) -> None:
    run_convert(folder)
    first = folder / "out-q4_k_m.gguf"
    for change in (
        lambda: os.utime(first, (1, 1)),  # the model is younger
        lambda: first.write_bytes(b"GGUF" + bytes(first.stat().st_size - 4)),
        lambda: first.write_bytes(b"GGUF"),
    ):
        change()
        with pytest.raises(RefusedError, match=r"out-q4_k_m\.gguf: already exists"):
            run_convert(folder, resume=True)


def with_matrix(folder: Path, **how: Any) -> Any:
    options = Options(imatrix=read_imatrix(folder / "im.gguf"))
    split = Split(max_tensors=7)
    return quantize_gguf(
        folder / "in.gguf", folder / "out-{ftype}.gguf", types="Q4_K_M", options=options, split=split, **how
    )


def write_matrix(folder: Path, *, other: bool = False) -> None:
    """Two that differ in their values alone."""
    with open_gguf(folder / "in.gguf") as gguf:
        entries = made_up([tensor.info for tensor in gguf.tensors])
    if other:
        entries = {name: (np.ascontiguousarray(sums[:, ::-1]), counts) for name, (sums, counts) in entries.items()}
    write_gguf(folder / "im.gguf", entries)


@pytest.mark.parametrize("when", ["now", "before"])
def test_a_matrix_that_changed_under_its_name_is_noticed(folder: Path, when: str) -> None:
    """Nothing but values tells, where a file with an older time takes the name."""
    write_matrix(folder)
    with_matrix(folder)
    with_matrix(folder, resume=True)
    old = (folder / "in.gguf").stat().st_mtime_ns
    write_matrix(folder, other=True)
    if when == "before":
        os.utime(folder / "im.gguf", ns=(old, old))
    problem = r"00001-of-0000.\.gguf: already exists, and is not what this run would make: "
    with pytest.raises(
        RefusedError, match=problem + (".*im.gguf is younger" if when == "now" else ".* has other values")
    ):
        with_matrix(folder, resume=True)
    written = outputs(folder)
    with_matrix(folder, resume=True, overwrite=True)
    assert outputs(folder) != written


def test_a_new_first_part_is_not_mixed_with_old_ones(folder: Path) -> None:
    """The other parts have no keys, so their headers do not tell what they were made with."""
    write_matrix(folder)
    with_matrix(folder)
    before = outputs(folder)
    old = (folder / "in.gguf").stat().st_mtime_ns
    write_matrix(folder, other=True)
    os.utime(folder / "im.gguf", ns=(old, old))
    min(folder.glob("out-*")).unlink()
    with pytest.raises(RefusedError, match=r"00002-of-0000.\.gguf: already exists, .* has other values"):
        with_matrix(folder, resume=True)
    with_matrix(folder, resume=True, overwrite=True)
    assert outputs(folder)["out-q4_k_m-00002-of-00003.gguf"] != before["out-q4_k_m-00002-of-00003.gguf"]


def test_an_input_of_the_model_that_is_younger(folder: Path) -> None:
    run_convert(folder)
    (folder / "Tiny" / "config.json").write_text((folder / "Tiny" / "config.json").read_text())
    with pytest.raises(RefusedError, match=r"out-q4_k_m\.gguf: already exists, .*config\.json is younger"):
        run_convert(folder, resume=True)


def test_weights_of_the_same_time_and_shape(folder: Path) -> None:
    run_quantize(folder)
    status = (folder / "in.gguf").stat()
    with (folder / "in.gguf").open("r+b") as file:
        file.seek(-status.st_size // 2, os.SEEK_END)
        file.write(bytes(status.st_size // 2))
    os.utime(folder / "in.gguf", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(RefusedError, match="has other values"):
        run_quantize(folder, resume=True)


def test_outputs_beside_the_weights_are_no_inputs(folder: Path) -> None:
    for kind in ("Q8_0", "Q4_0"):
        convert(folder / "Tiny", folder / "Tiny", types=kind)
    (result,) = convert(folder / "Tiny", folder / "Tiny", types="Q8_0", resume=True)
    assert result.resumed_tensors == len(result.file.tensors)
    convert(folder / "Tiny", folder / "Tiny", types="Q8_0", overwrite=True)


def test_a_row_that_takes_too_much_memory_is_not_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_convert(folder)
    monkeypatch.setattr(complete, "_MOST_MEMORY", 0)
    data = bytearray((folder / "out-q8_0.gguf").read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    (folder / "out-q8_0.gguf").write_bytes(data)
    run_convert(folder, resume=True)
    monkeypatch.undo()
    with pytest.raises(RefusedError, match="has other values"):
        run_convert(folder, resume=True)


def test_a_model_that_changed_begins_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        Stop(patch, 30)
        with pytest.raises(OutputError):
            run_convert(folder, resume=True)
    shutil.rmtree(folder / "Tiny")
    tiny_llama(folder, dtype="F16")
    results = run_convert(folder, resume=True)
    assert [result.resumed_tensors for result in results] == [0, 0]
    assert "starts again from the beginning instead of resuming (changed since then: inputs, output)" in caplog.text
    written = outputs(folder)
    run_convert(folder, overwrite=True)
    assert outputs(folder) == written


def shard_of(model: Path, **how: Any) -> str:
    with planned(Request(source=str(model), out="out.gguf", **how)) as found:
        return fingerprint(found.files[0].shards[0])


@pytest.mark.parametrize("family", sorted(path.name for path in FAMILIES.iterdir()))
def test_the_fingerprint_of_a_run_is_the_same_the_next_time(family: str, tmp_path: Path) -> None:
    model = write_checkpoint(FAMILIES / family, tmp_path / "model")
    how = {"types": "auto", "pre_tokenizer": read_description(FAMILIES / family).pre_tokenizer}
    assert len({shard_of(model, **how) for _ in range(2)}) == 1


def parts(fingerprint: str) -> dict[str, str]:
    return dict(word.split("=") for word in fingerprint.split())


def test_what_changes_the_bytes_changes_the_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama(tmp_path)
    before = parts(shard_of(model))

    def differences(after: str) -> list[str]:
        return [name for name, digest in parts(after).items() if before[name] != digest]

    assert differences(shard_of(model)) == []
    assert differences(shard_of(model, types="Q8_0")) == ["output"]
    assert differences(shard_of(model, model_name="another")) == ["output"]
    with monkeypatch.context() as patch:
        patch.setattr(fingerprints, "version", lambda name: "next")
        assert differences(shard_of(model)) == ["program"]
    weights = model / "model.safetensors"
    os.utime(weights, (1, 1))
    assert differences(shard_of(model)) == ["inputs"]


def test_values_that_the_header_does_not_show_change_the_fingerprint(tmp_path: Path) -> None:
    with planned(Request(source=str(tiny_llama(tmp_path)), out="out.gguf")) as found:
        shard = found.files[0].shards[0]
        source = shard.sources[0]
        width = source.expr.shape[-1]
        seen = {fingerprint(shard)}
        for other in (
            replace(source, importance=np.ones(width, np.float32)),
            replace(source, importance=np.arange(width, dtype=np.float32)),
            replace(source, base=shard.sources[-1].expr.dtype),
            replace(source, expr=replace(source.expr, offset=source.expr.offset + 2)),  # type: ignore[type-var]
        ):
            changed = Shard(shard.path, shard.layout, (other, *shard.sources[1:]))
            seen.add(fingerprint(changed))
        assert len(seen) == 5 - (source.base == shard.sources[-1].expr.dtype)


def test_the_command_line_says_what_was_resumed(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from gguf_forge.cli import main

    command = ["convert", str(folder / "Tiny"), "-o", str(folder / "out.gguf"), "-j", "1"]
    with monkeypatch.context() as patch:
        Stop(patch, 30)
        assert main([*command, "--resume"]) == 5
    error = capsys.readouterr().err
    assert "error: stopped" in error
    assert "out.gguf: the finished part is kept: run again with --resume to continue from there" in error
    assert main([*command, "--resume"]) == 0
    assert "tensors were finished by an earlier run" in capsys.readouterr().out
    assert main([*command, "--resume", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["files"]
    assert shown["resumed_tensors"] == len(shown["tensors"])


def test_the_command_line_says_which_files_were_complete(folder: Path, capsys: Any) -> None:
    from gguf_forge.cli import main

    def run(types: str) -> tuple[dict[str, bool], list[str]]:
        names = str(folder / "{ftype}.gguf")
        assert main(["convert", str(folder / "Tiny"), "-o", names, "-t", types, "--resume", "--json"]) == 0
        said = capsys.readouterr()
        return {file["type"]: file["was_complete"] for file in json.loads(said.out)["files"]}, said.err.splitlines()

    was_complete, _ = run("Q8_0")
    assert was_complete == {"Q8_0": False}
    was_complete, (skipped, written) = run("Q8_0,F16")
    assert was_complete == {"Q8_0": True, "F16": False}
    assert skipped == f"{folder / 'q8_0.gguf'}: complete already, left as it is"
    assert written.startswith(f"{folder / 'f16.gguf'}: writing ")
    was_complete, said = run("Q8_0,F16")
    assert was_complete == {"Q8_0": True, "F16": True}
    assert said == [f"{folder / name}.gguf: complete already, left as it is" for name in ("q8_0", "f16")]
