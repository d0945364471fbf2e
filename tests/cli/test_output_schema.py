"""The published schema of what --json prints describes what is printed: every key, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import Forge
from imatrices import write_for_model
from jsonschema import Draft202012Validator, ValidationError

from gguf_forge import convert
from gguf_forge.cli.app import program

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "output.schema.json").read_text())


def _closed(schema: Any) -> Any:
    """The schema that also refuses keys that it does not name."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    is_object = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    return {**closed, "additionalProperties": False} if is_object else closed


def _check(printed: Any, kind: str) -> None:
    Draft202012Validator(SCHEMA).validate(printed)
    closed = {"$ref": f"#/$defs/{kind}", "$defs": _closed(SCHEMA["$defs"])}
    Draft202012Validator(closed).validate(printed)


@pytest.fixture
def files(model: Path, tmp_path: Path) -> tuple[Path, Path]:
    made = convert(model, tmp_path / "m-{ftype}.gguf", types=["Q4_K_M", "F16"])
    return made[0].path, made[1].path


def _lines(model: Path, small: Path, large: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
    """A command line, and the kind of object that it prints. Later lines use files that earlier ones make."""
    yield "files", ("convert", model, "-o", "x.gguf", "--profile")
    yield "files", ("convert", model, "-o", "x.gguf", "--resume")
    yield "files", ("convert", model, "-t", "Q8_0,F16", "-o", "y-{ftype}.gguf", "--dry-run")
    yield "files", ("quantize", large, "-t", "Q2_K", "-o", "z.gguf", "--split-max-tensors", "9")
    yield "files", ("dequantize", small, "-o", "floats.gguf")
    yield "files", ("dequantize", small, "--dry-run")
    yield "files", ("demo", "-t", "Q8_0", "-o", "demo.gguf")
    yield "files", ("plan", model, "-t", "all", "--summary")
    yield "files", ("plan", model, "--save-plan", "plan.json", "--tasks", "2")
    yield "files", ("plan", model, "--keep-quantized")
    yield "files", ("job", "plan", model, "--save-plan", "job.json", "--tasks", "2", "-o", "job.gguf")
    yield "task", ("job", "work", "job.json", "--task", "0")
    yield "task", ("job", "work", "job.json", "--task", "0")
    yield "task", ("work", "job.json", "--task", "1")
    yield "finished", ("job", "finish", "job.json")
    yield "finished", ("finish", "job.json")
    yield "task", ("job", "work", "job.json", "--task", "1")
    yield "copy", ("split", small, "part", "--split-max-tensors", "9", "--dry-run")
    yield "copy", ("split", small, "part", "--split-max-size", "1M")
    yield "copy", ("merge", "part-00001-of-00001.gguf", "whole.gguf")
    yield (
        "edit",
        ("edit", small, "-o", "edited.gguf", "--set", "general.name=A", "--rename-tensor", "^output_norm=norm"),
    )
    yield "edit", ("edit", small, "--remove", "general.name", "--drop-tensor", "output_norm.weight", "--dry-run")
    yield "types", ("types", model)
    yield "types", ("types", model, "--fit", "1G")
    yield "verification", ("verify", small)
    yield "verification", ("verify", small, "--source", model)
    yield "verification", ("verify", small, "--source", model, "-t", "Q5_K_M", "--model-name", "Other")
    yield "verification", ("verify", small, "--write-sums", "sums")
    yield "verification", ("verify", small, "--check-sums", "sums")
    yield "comparison", ("compare", large, small)
    yield "comparison", ("compare", small, small)
    yield "overview", ("inspect", small)
    yield "overview", ("inspect", small, "--json-array")
    yield "figures", ("inspect", small, "--tensor", "output.weight")
    yield "figures", ("inspect", small, "--tensor", "blk.0.attn_q.weight", "--block", "0:0")
    yield "templates", ("inspect", "templated.gguf", "--template")
    yield "report", ("report", small)
    yield "report", ("report", small, "--source", model, "-o", "page.html")
    yield "matrix", ("imatrix", "show", large.with_name("imatrix.gguf"))
    yield "matrix", ("imatrix", "show", large.with_name("imatrix.dat"), large)
    yield "machine", ("info",)
    yield "models", ("info", "--models")
    yield "benchmark", ("bench", "-t", "Q8_0", "--rounds", "1")
    yield "error", ("convert", "no-such-folder")
    yield "error", ("plan", model, "-t", "Q5")
    yield "error", ("convert", model, "--nonsense")


def test_all_that_is_printed(forge: Forge, model: Path, files: tuple[Path, Path], tmp_path: Path) -> None:
    write_for_model(files[1])
    (tmp_path / "chat.jinja").write_text("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}")
    assert forge("edit", files[0], "-o", "templated.gguf", "--chat-template", tmp_path / "chat.jinja").code == 0
    kinds = set()
    for kind, line in _lines(model, *files):
        ran = forge(*line, "--json")
        said = f"{' '.join(map(str, line))}: {ran.err}"
        assert (ran.code == 0) == (kind != "error") or line[0] in ("compare", "verify"), said
        try:
            _check(ran.json, kind)
        except ValidationError as error:
            raise AssertionError(f"{' '.join(map(str, line))}: at {error.json_path}: {error.message}") from None
        kinds.add(kind)
    assert {f"#/$defs/{kind}" for kind in kinds} == {kind["$ref"] for kind in SCHEMA["anyOf"]}


def _with_json(command: Any, *names: str) -> Iterator[tuple[str, ...]]:
    """The commands that have --json, each by its names."""
    for name, below in getattr(command, "commands", {}).items():
        yield from _with_json(below, *names, name)
    if any("--json" in parameter.opts for parameter in command.params):
        yield names


def test_every_command_with_json_is_among_them() -> None:
    tested = [tuple(map(str, line)) for _, line in _lines(Path("model"), Path("small"), Path("large"))]
    commands = set(_with_json(typer.main.get_command(program())))
    assert ("job", "work") in commands
    assert [names for names in sorted(commands) if not any(line[: len(names)] == names for line in tested)] == []


def test_the_page_on_scripts_names_every_kind() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guide" / "scripting.md").read_text()
    commands = {names for names in _with_json(typer.main.get_command(program())) if names[0] not in ("work", "finish")}
    assert [names for names in sorted(commands) if f"`{' '.join(names)}`" not in page] == []


def test_a_damaged_file(forge: Forge, model: Path, files: tuple[Path, Path]) -> None:
    raw = bytearray(files[0].read_bytes())
    raw[-1000] ^= 0x20
    files[0].write_bytes(raw)
    run = forge("verify", files[0], "--source", model, "--json")
    assert run.code == 7
    _check(run.json, "verification")


def test_the_schema_refuses_what_is_wrong(forge: Forge, files: tuple[Path, Path]) -> None:
    printed = forge("verify", files[0], "--json").json
    for key, wrong in {"schema": 2, "ok": "yes", "size": -1}.items():
        with pytest.raises(ValidationError):
            _check({**printed, key: wrong}, "verification")
    with pytest.raises(ValidationError):
        _check({**printed, "more": 1}, "verification")
    Draft202012Validator.check_schema(SCHEMA)
