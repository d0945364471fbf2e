"""Help and version: complete, and without loading what conversions need."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import Forge
from raw_gguf import ARRAY, U8, key, raw_gguf, write

from gguf_forge.cli.app import program
from gguf_forge.cli.completion import completing
from gguf_forge.cli.hints import for_command
from gguf_forge.kernels.bench import find_ggml
from gguf_forge.kernels.binding import quantizable_types
from gguf_forge.recipe import FILE_TYPES
from gguf_forge.request import TYPE_NAMES
from gguf_forge.storage import memory

HEAVY = (
    "numpy",
    "gguf",
    "ml_dtypes",
    "tokenizers",
    "sentencepiece",
    "safetensors",
    "yaml",
    "gguf_forge.planning.from_checkpoint",
)
LOADED = """
import contextlib, io, json, sys
from gguf_forge.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            ["--help"],
            ["--version"],
            ["convert", "--help"],
            ["plan", "-h"],
            ["demo", "--help"],
            ["work", "-h"],
            ["convert"],
        ),
        *([tool, "--help"] for tool in ("inspect", "edit", "split", "merge", "dequantize")),
    ],
)
def test_loads_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=True)
    code, loaded = json.loads(done.stdout)
    assert code == (2 if arguments == ["convert"] else 0)
    assert not set(HEAVY) & set(loaded)


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = "import gguf_forge, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(json.loads(done.stdout))


def test_help_lists_the_types_that_can_be_made() -> None:
    makeable = {name for name, kind in FILE_TYPES.items() if kind.is_float or kind.default_type in quantizable_types()}
    assert set(TYPE_NAMES.split()) == makeable


OPTIONS = (
    "--outfile -o --type --outtype -t --overwrite --dry-run --json --quiet --verbose --threads -j --backend "
    "--model-name --metadata --vocab-only --pre-tokenizer --pure --leave-output-tensor --output-tensor-type "
    "--token-embedding-type --tensor-type --tensor-type-file --override-kv --prune-layers "
    "--split-max-size --split-max-tensors --no-tensor-first-split"
)


def test_help_of_convert_has_every_option_and_examples(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    ran = forge("convert", "--help")
    assert ran.code == 0
    assert not set(OPTIONS.split()) - set(ran.out.replace(",", " ").split())
    assert "gguf-forge convert Qwen3-0.6B -o models/ -t Q4_K_M,Q8_0" in ran.out


def test_without_arguments_is_help(forge: Forge) -> None:
    ran = forge()
    assert ran.code == 0
    assert "convert" in ran.out


def _every_command() -> Iterator[tuple[str, ...]]:
    def below(group: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name, command in getattr(group, "commands", {}).items():
            yield from below(command, (*path, name))

    return below(typer.main.get_command(program()), ())


@pytest.mark.parametrize("command", list(_every_command()), ids=" ".join)
def test_help_says_no_type_of_what_is_there_or_not(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    ran = forge(*command, "--help")
    assert ran.code == 0
    assert not {"<bool>", "<list[str]>"} & set(ran.out.split())
    usage = next(line for line in ran.out.splitlines() if line.startswith(" Usage:"))
    assert "{" not in usage


@pytest.mark.parametrize("command", list(_every_command()), ids=" ".join)
def test_help_speaks_only_of_options_that_the_command_has(command: tuple[str, ...]) -> None:
    found: Any = typer.main.get_command(program())
    for name in command:
        found = found.commands[name]
    options = [parameter for parameter in found.params if parameter.opts[0].startswith("-")]
    names = {name for option in options for name in option.opts}
    texts = (re.sub(r"llama-\S+ --\S+", "", option.help or "") for option in options)  # options of other tools
    assert {word for text in texts for word in re.findall("--[a-z][a-z-]+", text)} <= names


def test_help_has_panels_in_order_and_hides_the_old_names(forge: Forge) -> None:
    out = forge("--help").out
    panels = ["Make", "Look", "Prove", "Change", "Many machines", "This machine"]
    assert [line.split(" ─")[0][3:] for line in out.splitlines() if line.startswith("╭─ ")] == ["Options", *panels]
    listed = {line.split()[1] for line in out.splitlines() if line.startswith("│ ") and line[2] != " "}
    assert {"job", "convert"} <= listed
    assert not {"work", "finish"} & listed


def test_groups_without_a_command_are_no_error(forge: Forge) -> None:
    ran = forge("job")
    assert (ran.code, ran.err, ran.out) == (0, "", forge("job", "--help").out)


def test_help_is_a_command(forge: Forge) -> None:
    assert forge("help").out == forge("--help").out
    assert forge("help", "job", "plan").out == forge("job", "plan", "--help").out


def test_demo_says_once_where_its_output_goes(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = " ".join(forge("demo", "--help").out.replace("│", " ").split())
    assert "in a new temporary folder]" in out
    assert "current folder" not in out


def test_version(forge: Forge) -> None:
    ran = forge("--version")
    assert ran.code == 0
    assert ran.out.startswith("gguf-forge 0.")
    assert ran.out.count("\n") == 1


def test_info_names_the_backends(forge: Forge) -> None:
    ran = forge("info", "--json")
    assert ran.code == 0
    assert ran.json["backends"][0] == "portable"
    assert "Q4_K" in ran.json["types"]
    assert "portable" in forge("info").out


def test_info_names_the_reference(forge: Forge) -> None:
    assert forge("info", "--json").json["reference"]["llama_cpp"]["distribution"] == "llama-cpp-python 0.3.36"
    assert "llama.cpp 0c1e57098 of 2026-10-01 (in llama-cpp-python 0.3.36), ggml 0.25.3" in forge("info").out


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        (["convrt", "x"], "Did you mean convert?"),
        (["convert", "x", "--overwrit"], "(Possible options: --overwrite)"),
        (["convert", "x", "--output", "y"], "hint: -o or --outfile names the output"),
        (["bench", "-t", "Q8_0", "--backend", "sse"], "cannot run the backend 'sse'"),
    ],
)
def test_advice(forge: Forge, line: list[str], advice: str) -> None:
    ran = forge(*line)
    assert ran.code == 2
    assert advice in ran.err


@pytest.mark.parametrize("line", [["list"], ["convert", "x", "--output", "y"], ["convert", "x", "--zzz"]])
def test_words_that_are_only_a_little_alike_are_no_advice(forge: Forge, line: list[str]) -> None:
    ran = forge(*line)
    assert ran.code == 2
    assert "Did you mean" not in ran.err and "Possible options" not in ran.err


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (["report", "m"], "add --strict (--strict is an option of `gguf-forge convert`)"),
        (["types", "m"], "--strict or --imatrix (--strict is an option of `gguf-forge convert`)"),
        (["imatrix", "show", "m"], "--chat-template (--chat-template is an option of `gguf-forge edit`)"),
        (["job", "plan", "m"], "add --strict"),
        (["convert", "m"], "`gguf-forge edit --chat-template` gives it one"),
        (["report", "m"], "`hf download a/b --local-dir FOLDER`"),
        (["report", "m"], "llama.cpp has --no-such-option"),
    ],
)
def test_hints_say_whose_option_it_is(line: list[str], hint: str) -> None:
    assert for_command(hint.partition(" (")[0], line, typer.main.get_command(program())) == hint


def test_every_option_with_names_for_values_completes_them() -> None:
    assert completing("file types")("q8_0,iq4") == ["q8_0,IQ4_NL", "q8_0,IQ4_XS"]
    assert completing("tensor types")("q4_k") == ["Q4_K"]
    assert completing("backends")("port") == ["portable"]
    assert "qwen2" in completing("pre-tokenizers")("qw")
    assert completing("float types")("") == ["F32", "F16", "BF16"]
    for path in _every_command():
        found: Any = typer.main.get_command(program())
        for name in path:
            found = found.commands[name]
        for option in found.params:
            if {"--type", "--backend", "--pre-tokenizer", "--output-tensor-type"} & set(option.opts):
                assert option.shell_complete(typer.Context(found), ""), (path, option.opts)


def test_info_names_the_libraries_of_ggml(forge: Forge) -> None:
    assert forge("info", "--json").json["ggml"] == [each.path.name for each in find_ggml()]


@pytest.mark.parametrize("path", ["-", "/dev/stdout", "/dev/fd/1"])
@pytest.mark.parametrize(
    "line",
    [
        ["convert", "x", "-o"],
        ["plan", "x", "-o"],
        ["plan", "x", "--save-plan"],
        ["quantize", "x", "-t", "Q8_0", "-o"],
        ["quantize", "x", "OUT", "Q8_0"],
        ["dequantize", "x", "-o"],
        ["edit", "x", "--remove", "y", "-o"],
        ["split", "x"],
        ["merge", "x"],
        ["report", "x", "-o"],
        ["demo", "-o"],
        ["verify", "x", "--write-sums"],
        ["job", "plan", "x", "--save-plan"],
        ["job", "plan", "x", "-o"],
    ],
)
def test_nothing_is_written_to_standard_output(forge: Forge, line: list[str], path: str) -> None:
    words = [path if word == "OUT" else word for word in line]
    ran = forge(*words, *([] if "OUT" in line else [path]))
    assert ran.code == 2
    assert f"error: {path}: nothing is written to standard output" in ran.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("convert x -t Q4_K", {"Q4_K_S", "Q4_K_M"}),
        ("plan x -t Q8_0,TQ", {"Q8_0,TQ1_0", "Q8_0,TQ2_0"}),
        ("convert x --output-tensor-type Q6", {"Q6_K"}),
        ("convert x --backend por", {"portable"}),
        ("convert x --pre-tokenizer qwen2", {"qwen2"}),
        ("verify x --base-type B", {"BF16"}),
    ],
)
def test_values_complete_in_every_shell(shell: str, typed: str, offered: set[str]) -> None:
    """What a shell's own completion script sends, and reads from standard output."""
    words = f"gguf-forge {typed}"
    sent = {
        "bash": {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": words},
        "fish": {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    program = "import sys; sys.argv = ['gguf-forge']; from gguf_forge.cli import main; sys.exit(main())"
    environment = {**os.environ, "_GGUF_FORGE_COMPLETE": f"complete_{shell}", **sent}
    ran = subprocess.run([sys.executable, "-P", "-c", program], env=environment, capture_output=True, text=True)
    assert set(re.findall(r"[\w,.-]+", ran.stdout)) - {"_arguments"} == offered


@pytest.mark.parametrize("number", [None, "", "x", "-1", "9" * 5000, "1" * 30])
def test_variables_that_no_shell_sets_are_no_bug(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, number: str | None
) -> None:
    monkeypatch.setenv("_GGUF_FORGE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "gguf-forge conv")
    if number is not None:
        monkeypatch.setenv("COMP_CWORD", number)
    ran = forge()
    assert ran.code == 2
    assert "error: _GGUF_FORGE_COMPLETE is for the completion of a shell" in ran.err


@pytest.mark.parametrize(
    ("line", "way_out"),
    [
        (["inspect"], "this command has no option to allow more"),
        (["types"], "this command has no option to allow more"),
        (["dequantize", "-o", "out.gguf"], "this command has no option to allow more"),
        (["edit", "--set", "a=b"], "this command has no option to allow more"),
        (["quantize", "-t", "Q8_0"], "allow --max-memory"),
        (["convert", "-t", "Q8_0"], "allow --max-memory"),
    ],
)
def test_the_hint_for_more_memory_names_an_option_that_the_command_has(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: list[str], way_out: str
) -> None:
    keys = [key(b"a", ARRAY, struct.pack("<IQ", U8, 1 << 20) + bytes(1 << 20))]
    file = write(tmp_path, raw_gguf(keys))
    monkeypatch.setattr(memory, "SMALL_NEED", 0)
    monkeypatch.setattr(memory, "bound_of", lambda max_memory: 1)
    command, *options = line
    ran = forge(command, str(file), *options)
    assert ran.code == 4
    assert "MiB of memory, which is more than the run may take" in ran.err
    assert way_out in ran.err
