"""The published schema of what --json prints describes what is printed: every key, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Forge
from jsonschema import Draft202012Validator, ValidationError

from gguf_forge import convert

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
    yield "files", ("convert", model, "-o", "x.gguf", "--profile")
    yield "files", ("convert", model, "-o", "x.gguf", "--resume")
    yield "files", ("convert", model, "-t", "Q8_0,F16", "-o", "y-{ftype}.gguf", "--dry-run")
    yield "files", ("quantize", large, "-t", "Q2_K", "-o", "z.gguf", "--split-max-tensors", "9")
    yield "files", ("plan", model, "-t", "all", "--summary")
    yield "files", ("plan", model, "--save-plan", "plan.json", "--tasks", "2")
    yield "files", ("plan", model, "--keep-quantized")
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
    yield "error", ("convert", "no-such-folder")
    yield "error", ("plan", model, "-t", "Q5")
    yield "error", ("convert", model, "--nonsense")


def test_all_that_is_printed(forge: Forge, model: Path, files: tuple[Path, Path]) -> None:
    for kind, line in _lines(model, *files):
        printed = forge(*line, "--json").json
        try:
            _check(printed, kind)
        except ValidationError as error:
            raise AssertionError(f"{' '.join(map(str, line))}: at {error.json_path}: {error.message}") from None


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
