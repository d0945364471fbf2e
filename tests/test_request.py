"""What is asked for can be written down, read again, and said on the command line."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from gguf_forge import InputError, Request, RunSettings, UsageError
from gguf_forge.cli.app import program
from gguf_forge.file_choices import RecipeChoices
from gguf_forge.request import ModelHints


def full() -> Request:
    """A request in which no field has its default."""
    by_default: dict[type, Any] = {bool: True, tuple: ("a", "b"), type(None): "x", str: "s"}
    given = vars(Request(source="s")).items()
    return Request(**{**{name: by_default[type(value)] for name, value in given}, "split_max_tensors": 3})


def test_what_is_written_down_is_read_again() -> None:
    request = full()
    assert set(request.as_json()) == {field.name for field in fields(Request)}
    assert Request.from_json(json.loads(json.dumps(request.as_json())), Path("plan.json")) == request
    assert Request(source="s").as_json() == {"source": "s"}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "is not an object"),
        ({}, "lacks a source"),
        ({"source": 1}, "source is 1, and should be str"),
        ({"source": "s", "nonsense": 1}, "option 'nonsense', which is not known"),
        ({"source": "s", "pure": 1}, "pure is 1, and should be bool"),
        ({"source": "s", "split_max_tensors": True}, "split_max_tensors is True"),
        ({"source": "s", "types": ["a", 1]}, "types is"),
    ],
)
def test_what_is_something_else_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Request.from_json(value, Path("plan.json"))


def test_paths_and_single_texts_are_taken() -> None:
    given: dict[str, Any] = {"source": Path("a"), "types": "Q8_0", "tensor_type": ["x=q8_0"], "include_weights": None}
    assert Request(**given) == Request(source="a", types=("Q8_0",), tensor_type=("x=q8_0",))


def test_a_request_is_made_of_its_parts() -> None:
    request = Request.of(RecipeChoices(pure=True), ModelHints(model_name="m"), source="s", types=("Q8_0",))
    assert request == Request(source="s", types=("Q8_0",), pure=True, model_name="m")


@pytest.mark.parametrize("command", ["convert", "plan"])
def test_the_command_line_has_every_option(command: str) -> None:
    root: Any = typer.main.get_command(program())
    settings = {field.name for field in fields(RunSettings)} - {"observer"}
    known = {parameter.name for parameter in root.commands[command].params}
    assert {field.name for field in fields(Request)} | settings <= known


def test_threads_must_be_some() -> None:
    with pytest.raises(UsageError, match="threads must be at least 1, not 0"):
        RunSettings(threads=0)


@pytest.mark.parametrize("name", ["types", "tensor_type", "drop_tensor", "lora", "override_kv", "include_weights"])
def test_no_option_is_repeated_without_end(name: str) -> None:
    assert len(getattr(Request(source="a", **{name: ("x",) * 8192}), name)) == 8192
    with pytest.raises(UsageError, match=f"{name} has 8,193 texts; 8,192 are read"):
        Request(source="a", **{name: ("x",) * 8193})
