"""`quantize`: the arguments of llama-quantize, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Forge, listing

from gguf_forge import convert
from gguf_forge.cli.quantize import Arguments, read_arguments
from gguf_forge.errors import UsageError
from gguf_forge.option import parse_size


@pytest.fixture
def source(model: Path, tmp_path: Path) -> Path:
    """A GGUF file in a folder of its own."""
    (tmp_path / "in").mkdir()
    convert(model, tmp_path / "in" / "m.gguf", types="F16")
    return tmp_path / "in" / "m.gguf"


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["in", "Q4_K_M"], Arguments("in", None, ("Q4_K_M",), None)),
        (["in", "15", "4"], Arguments("in", None, ("15",), 4)),
        (["in", "out", "copy"], Arguments("in", "out", ("copy",), None)),
        (["in", "out", "q8_0", "0"], Arguments("in", "out", ("q8_0",), None)),
        (
            ["in", "Q4_K_M,Q8_0"],
            Arguments(
                "in",
                None,
                (
                    "Q4_K_M",
                    "Q8_0",
                ),
                None,
            ),
        ),
        (["in", "out,q8_0", "Q8_0"], Arguments("in", "out,q8_0", ("Q8_0",), None)),
    ],
)
def test_arguments(given: list[str], read: Arguments) -> None:
    assert read_arguments(given) == read


@pytest.mark.parametrize("given", [["in"], ["in", "out"], ["in", "Q8_0", "many"], ["in", "out", "Q8_0", "4", "5"]])
def test_arguments_that_make_no_sense(given: list[str]) -> None:
    with pytest.raises(UsageError, match=r"\[OUT.gguf\] TYPE"):
        read_arguments(given)


def test_the_output_and_the_type_as_options(forge: Forge, model: Path, tmp_path: Path) -> None:
    assert forge("convert", model, "-t", "F16", "-o", tmp_path / "in.gguf", "-q").code == 0
    assert forge("quantize", tmp_path / "in.gguf", tmp_path / "a.gguf", "Q8_0", "-q").code == 0
    assert forge("quantize", tmp_path / "in.gguf", "-t", "Q8_0", "-o", tmp_path / "b-{ftype}.gguf", "-q").code == 0
    assert (tmp_path / "b-q8_0.gguf").read_bytes() == (tmp_path / "a.gguf").read_bytes()
    twice = forge("quantize", tmp_path / "in.gguf", "c.gguf", "-t", "Q8_0", "-o", "d.gguf")
    assert twice.code == 2 and "the output is given twice" in twice.err
    types = forge("quantize", tmp_path / "in.gguf", "Q8_0", "-t", "Q4_0")
    assert types.code == 2 and "leave out one of the two types" in types.err


def test_sizes() -> None:
    assert [parse_size(text) for text in ("5", "2K", "300M", "1G")] == [5, 2000, 300_000_000, 10**9]
    assert [parse_size(text) for text in ("50GB", "1.5 GiB", "1.5Gi", "0.5m")] == [
        50 * 10**9,
        3 << 29,
        3 << 29,
        500_000,
    ]
    assert parse_size("1.5G", unit=1024) == parse_size("1.5GB", unit=1024) == 3 << 29
    for wrong in ("", "-1M", "5X", "M", "1,5G", "5iB", "5i", "1e9"):
        with pytest.raises(UsageError, match="invalid size"):
            parse_size(wrong)


def test_the_output_goes_beside_the_input(forge: Forge, source: Path) -> None:
    ran = forge("quantize", source, "q4_k", "2")
    assert ran.code == 0
    assert listing(source.parent) == ["ggml-model-Q4_K.gguf", "m.gguf"]
    assert "Q4_K_M" in ran.out


def test_verbose_says_what_is_read(forge: Forge, source: Path, tmp_path: Path) -> None:
    assert f"note: {source}: 21 tensors\n" in forge("quantize", source, "q4_k", "--dry-run", "-v").err
    assert forge("split", source, "p", "--split-max-tensors", "8").code == 0
    ran = forge("quantize", "p-00001-of-00003.gguf", "q4_k", "--dry-run", "-v")
    assert "note: p-00001-of-00003.gguf: 21 tensors in 3 files\n" in ran.err


def test_an_output_that_is_named(forge: Forge, source: Path) -> None:
    assert forge("quantize", "--pure", source, "out.gguf", "Q8_0", "--json").file["types"] == {"Q8_0": 16, "F32": 5}
    assert listing(Path()) == ["out.gguf"]


def test_several_types_into_a_folder(forge: Forge, source: Path) -> None:
    assert forge("quantize", source, "Q4_0,Q8_0", "-o", "to/").code == 0
    assert listing(Path("to")) == ["m-Q4_0.gguf", "m-Q8_0.gguf"]


def test_splits(forge: Forge, source: Path) -> None:
    assert forge("quantize", "--split-max-tensors", "10", source, "out.gguf", "Q4_K_M").code == 0
    names = [f"out-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert listing(Path()) == names
    assert forge("quantize", "--keep-split", "--allow-requantize", names[0], "again.gguf", "Q8_0").code == 0
    assert listing(Path()) == [f"again-0000{n}-of-00003.gguf" for n in (1, 2, 3)] + names
    refused = forge("quantize", "--keep-split", "--split-max-size", "1G", source, "x.gguf", "Q8_0")
    assert refused.code == 2


def test_dry_runs_write_nothing(forge: Forge, source: Path) -> None:
    ran = forge("quantize", "--dry-run", source, "Q4_K_M", "--json")
    assert ran.code == 0
    assert len(ran.file["tensors"]) == 21
    assert listing(source.parent) == ["m.gguf"]
    forge("quantize", source, "Q4_K_M")
    again = forge("quantize", "--dry-run", source, "Q4_K_M")
    assert again.code == 0
    assert "quantizing would be refused" in again.err


@pytest.mark.parametrize(
    ("kind", "warning"),
    [("Q2_K_S", "would be refused: Q2_K_S needs an importance matrix"), ("Q8_0", "already quantized")],
)
def test_dry_runs_only_warn(kind: str, warning: str, forge: Forge, source: Path) -> None:
    forge("quantize", source, "q4.gguf", "Q4_0")
    given = "q4.gguf" if kind == "Q8_0" else source
    assert forge("quantize", given, "out.gguf", kind).code == 2
    ran = forge("quantize", "--dry-run", given, "out.gguf", kind, "--json")
    assert (ran.code, ran.file["type"]) == (0, kind)
    assert warning in ran.err
    assert listing(Path()) == ["q4.gguf"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.gguf", "Q8_0"], 4, "missing.gguf"),
        (["SOURCE", "out.gguf", "Q9"], 2, "unknown file type 'Q9'"),
        (["SOURCE", "q5km"], 2, "hint: did you mean Q5_K_M? ./q5km names a file"),
        (["SOURCE", "Q4-0", "8"], 2, "hint: did you mean Q4_0?"),
        (["SOURCE", "Q4_*"], 2, "hint: did you mean Q4_0 or Q4_1 or"),
        (["SOURCE", "auto"], 2, "cannot be quantized to auto"),
        (["SOURCE", "/dev/null/out.gguf", "Q8_0"], 5, "Not a directory"),
        (["SOURCE", "SOURCE", "Q8_0"], 8, "one of the inputs"),
        (["SOURCE", "out.gguf", "Q4_0,Q8_0"], 2, "2 files, but only one output name: out.gguf"),
        (["--max-buffer-size", "0", "SOURCE", "Q8_0"], 2, "max-buffer-size"),
        (["--tensor-type", "x", "SOURCE", "Q8_0"], 2, "is not PATTERN=TYPE"),
    ],
)
def test_refusals(arguments: list[str], code: int, message: str, forge: Forge, source: Path) -> None:
    ran = forge("quantize", *(source if text == "SOURCE" else text for text in arguments))
    assert ran.code == code
    assert message in ran.err
    assert listing(Path()) == []
    assert listing(source.parent) == ["m.gguf"]
