"""Every command that takes GGUF files, on every form of file that this program writes, as text and as JSON.

A command may refuse a form, with the exit code that is expected here, and never breaks on one. Files that others write
and llama.cpp does not load go the same way.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import projectors
import pytest
from checkpoints import NARROW, TINY, tiny_llama
from command_line import Forge, Run
from imatrices import write_for_model
from raw_gguf import ARRAY, STRING, RawTensor, key, raw_gguf, text, u32_key, write

from gguf_forge import (
    InputError,
    UnsupportedError,
    UsageError,
    ValueType,
    convert,
    dequantize_gguf,
    edit_gguf,
    merge_gguf,
    quantize_gguf,
    split_gguf,
)
from gguf_forge.planning.splits import Split

MIXED = "Q4_K_M"


def _llama(folder: Path) -> Path:
    return tiny_llama(folder, NARROW)


def _converted(folder: Path, types: str = "F16", **options: object) -> Path:
    return convert(_llama(folder), folder / "m.gguf", types=types, **options)[0].path  # type: ignore[arg-type]


def _split(folder: Path, split: Split) -> Path:
    return _converted(folder, "Q8_0", split=split)


def _kept(folder: Path) -> Path:
    parts = _split(folder, Split(max_tensors=4))
    return quantize_gguf(parts, folder / "kept.gguf", types="COPY", split=Split(keep=True))[0].path


def _again_split(folder: Path, **options: int | bool) -> Path:
    return split_gguf(_converted(folder), folder / "again", **options).file.path  # type: ignore[arg-type]


def _mmproj(folder: Path) -> Path:
    model = projectors.write(projectors.PROJECTORS / "gemma4-e2b.json", folder / "hf")
    return convert(model, folder / "mmproj.gguf", types="F16", mmproj=True)[0].path


def _imatrix(folder: Path) -> Path:
    return write_for_model(convert(tiny_llama(folder, TINY), folder / "m.gguf", types="BF16")[0].path)


def _odd(folder: Path) -> Path:
    """A file that is no more a model: tensors with other names, keys of other kinds."""
    path = _converted(folder)
    edit_gguf(path, rename_tensor={"^blk": "x"}, drop_tensor=["^output"], set={"a.b": [1.5], "general.name": ""})
    return path


def _empty(folder: Path) -> Path:
    path = _converted(folder)
    edit_gguf(path, drop_tensor=["."])
    return path


FORMS: dict[str, Callable[[Path], Path]] = {
    "F32": lambda folder: _converted(folder, "F32"),
    "BF16": lambda folder: _converted(folder, "BF16"),
    "a mix": lambda folder: convert(tiny_llama(folder, TINY), folder / "m.gguf", types=MIXED)[0].path,
    "a ternary type": lambda folder: convert(tiny_llama(folder, TINY), folder / "m.gguf", types="TQ1_0")[0].path,
    "a vocabulary alone": lambda folder: _converted(folder, vocab_only=True),
    "a split": lambda folder: _split(folder, Split(max_tensors=4)),
    "a split without tensors in its first part": lambda folder: _split(
        folder, Split(max_tensors=4, no_tensor_first=True)
    ),
    "a split with the parts of its source": _kept,
    "a split of one part": lambda folder: _again_split(folder, max_tensors=999),
    "split anew without tensors in the first part": lambda folder: _again_split(
        folder, max_tensors=5, no_tensor_first=True
    ),
    "merged": lambda folder: merge_gguf(_again_split(folder, max_tensors=5), folder / "merged.gguf").path,
    "dequantized": lambda folder: dequantize_gguf(_converted(folder, "Q8_0"), folder / "float.gguf").path,
    "edited": _odd,
    "all tensors dropped": _empty,
    "a projector": _mmproj,
    "an importance matrix": _imatrix,
}


def _raw(keys: list[bytes], tensors: list[RawTensor], size: int) -> Callable[[Path], Path]:
    return lambda folder: write(folder, raw_gguf([ARCHITECTURE, *keys], tensors, bytes(size)), "raw.gguf")


def _part(number: int, missing: int) -> Callable[[Path], Path]:
    """Part `number` of a split; part `missing` is not there."""

    def make(folder: Path) -> Path:
        parts = sorted(_split(folder, Split(max_tensors=4)).parent.glob("m-*-of-*.gguf"))
        parts[missing].unlink()
        return parts[number]

    return make


def _renamed_part(folder: Path) -> Path:
    return _part(0, 1)(folder).rename(folder / "whole.gguf")


def _head(folder: Path) -> Path:
    path = _converted(folder)
    path.write_bytes(path.read_bytes()[:3000])
    return path


ARCHITECTURE = key(b"general.architecture", STRING, text(b"llama"))
TWO = [RawTensor(b"a", (32,)), RawTensor(b"b", (32,), 0, 128)]
NESTED = struct.pack("<IQIQI", ValueType.ARRAY, 1, ValueType.UINT32, 1, 7)
OTHERS: dict[str, Callable[[Path], Path]] = {
    "a type of a fork": _raw([], [RawTensor(b"a", (256, 2), 153), RawTensor(b"b", (32,), 0, 96)], 224),
    "a number that a fork took": _raw([], [RawTensor(b"a", (64, 2), 42), RawTensor(b"b", (32,), 0, 96)], 224),
    "a removed type": _raw([], [RawTensor(b"a", (32,), 31)], 24),
    "five dimensions": _raw([], [RawTensor(b"a", (2, 2, 2, 2, 2))], 128),
    "a long name": _raw([], [RawTensor(b"a" * 80)], 128),
    "a key twice": _raw([u32_key(b"a", 1), u32_key(b"a", 2)], TWO, 256),
    "no name of a key": _raw([u32_key(b"", 1)], TWO, 256),
    "an array of arrays": _raw([key(b"a", ARRAY, NESTED)], TWO, 256),
    "a gap": _raw([], [TWO[0], RawTensor(b"b", (32,), 0, 256)], 384),
    "cut short in its data": _raw([], TWO, 200),
    "cut short behind its header": _raw([], TWO, 0),
    "cut short in its header": _head,
    "the first part of a split": _part(0, 2),
    "a later part of a split": _part(1, 0),
    "a part under another name": _renamed_part,
}

COMMANDS: dict[str, list[str]] = {
    "inspect": ["inspect", "FILE"],
    "inspect keys": ["inspect", "FILE", "--key", "*"],
    "inspect without keys": ["inspect", "FILE", "--no-metadata"],
    "inspect without tensors": ["inspect", "FILE", "--no-tensors"],
    "inspect values": ["inspect", "FILE", "--tensor", "*"],
    "verify": ["verify", "FILE"],
    "write sums": ["verify", "FILE", "--write-sums", "sums"],
    "verify as a copy": ["verify", "FILE", "--source", "FILE"],
    "compare": ["compare", "FILE", "FILE"],
    "edit": ["edit", "FILE", "-o", "EDITED", "--set", "general.name=str:x"],
    "edit nothing": ["edit", "FILE", "-o", "EDITED", "--set", "general.name=str:x", "--dry-run"],
    "split": ["split", "FILE", "parts", "--split-max-tensors", "3"],
    "split with the keys alone first": ["split", "FILE", "parts", "--no-tensor-first-split"],
    "split dry": ["split", "FILE", "parts", "--dry-run"],
    "merge": ["merge", "FILE", "merged.gguf"],
    "merge dry": ["merge", "FILE", "merged.gguf", "--dry-run"],
    "dequantize": ["dequantize", "FILE", "-o", "float.gguf"],
    "dequantize dry": ["dequantize", "FILE", "--dry-run"],
    "copy": ["quantize", "FILE", "copy.gguf", "COPY"],
    "quantize": ["quantize", "--allow-requantize", "FILE", "out.gguf", "Q8_0"],
    "quantize dry": ["quantize", "--allow-requantize", "--dry-run", "FILE", "out.gguf", "Q8_0"],
    "keep the split": ["quantize", "--allow-requantize", "--keep-split", "FILE", "out.gguf", "Q8_0"],
    "plan": ["plan", "FILE", "-t", "Q8_0", "--allow-requantize"],
    "report": ["report", "FILE", "-o", "page.html"],
    "imatrix": ["imatrix", "show", "FILE"],
}


REFUSED, BROKEN, DIFFERENT = UsageError.exit_code, InputError.exit_code, 7
NO_MODEL = ("dequantize", "quantize", "keep the split", "plan")


def expected_codes(form: str, command: str) -> set[int]:
    """The exit codes that a command may have on a form of file."""
    if command.startswith("merge"):
        return {0 if "split" in form else BROKEN}
    if command == "verify as a copy":
        return {0, DIFFERENT}  # general.file_type of a copy can be another
    if command == "inspect values" and form in ("a vocabulary alone", "all tensors dropped"):
        return {REFUSED}
    if command == "imatrix":
        return {0 if form == "an importance matrix" else BROKEN}
    if form == "an importance matrix" and command.startswith(NO_MODEL):
        return {BROKEN}
    return {0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the file of a form, once."""
    files: dict[str, Path] = {}

    def file_of(form: str) -> Path:
        if form not in files:
            files[form] = {**FORMS, **OTHERS}[form](tmp_path_factory.mktemp("form"))
        return files[form]

    return file_of


def run_on(file: Path, command: str, as_json: bool, forge: Forge) -> Run:
    part = re.search(r"-\d{5}-of-\d{5}\.gguf$", file.name)  # an edited part is named as a part
    names = {"FILE": str(file), "EDITED": f"edited{part[0] if part else '.gguf'}"}
    words = [names.get(word, word) for word in COMMANDS[command]]
    run = forge(*words, *(["--json"] if as_json else []))
    if as_json and run.code in (0, DIFFERENT):
        assert run.json
    is_refused = any(line.startswith("error:") for line in run.err.splitlines())
    assert is_refused == (run.code not in (0, DIFFERENT))
    return run


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form(form: str, command: str, as_json: bool, made: Callable[[str], Path], forge: Forge) -> None:
    assert run_on(made(form), command, as_json, forge).code in expected_codes(form, command)


LOOKING = ("inspect", "inspect keys", "inspect without keys", "inspect without tensors")


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("form", OTHERS)
def test_files_that_llama_cpp_does_not_load(
    form: str, command: str, as_json: bool, made: Callable[[str], Path], forge: Forge
) -> None:
    run = run_on(made(form), command, as_json, forge)
    if command in LOOKING:
        assert run.code == 0
    assert run.code in (0, REFUSED, UnsupportedError.exit_code, BROKEN, DIFFERENT)
    assert run.err.count("download it again") <= ("cut" in form)
