"""Help and version: complete, and without loading what conversions need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from command_line import Forge

from gguf_forge.cli.options import TYPE_NAMES
from gguf_forge.kernels.binding import quantizable_types
from gguf_forge.recipe import FILE_TYPES

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
