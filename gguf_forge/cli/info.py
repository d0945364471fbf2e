"""`gguf-forge info`: what this machine can run, and what is chosen."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gguf_forge.cli.help import MACHINE
from gguf_forge.cli.options import Messages, add_command, only
from gguf_forge.cli.tables import facts_text, table_of
from gguf_forge.option import MODEL, Option


def register(app: typer.Typer) -> None:
    add_command(app, "info", info, panel=MACHINE)


def info(
    messages: Annotated[Messages, only("json")],
    *,
    models: Annotated[bool, Option("--models", "List the classes of models that can be converted.", MODEL)] = False,
) -> None:
    """Show the version and its reference, the processor, the kernels that it can run, and which are chosen and why."""
    from gguf_forge.cli.streams import print_data, print_json
    from gguf_forge.reference import reference

    if models:
        _show_models(as_json=messages.json)
        return
    facts, versions = _facts(), reference()
    if messages.json:
        print_json({**facts, "reference": versions})
        return
    lists = {name: " ".join(value) or "none installed" for name, value in facts.items() if isinstance(value, list)}
    lines = {name: str(value) for name, value in facts.items()} | lists
    lines["reference"] = _reference_text(versions)
    print_data(facts_text({name.replace("_", " "): line for name, line in lines.items()}))


def _show_models(*, as_json: bool) -> None:
    """One line for each class and part of a model: `architectures` in config.json names the class."""
    from dataclasses import asdict

    from gguf_forge.architectures.supported import supported_classes
    from gguf_forge.cli.streams import print_data, print_json

    found = supported_classes()
    if as_json:
        print_json({"models": [asdict(each) for each in found]})
        return
    columns = ("class", "part", "GGUF architecture", "vocabulary", "proved by")
    table = table_of(*columns, folding=columns[2:])
    for each in found:
        table.add_row(
            each.name, each.part, ", ".join(each.architectures), ", ".join(each.vocabularies), each.proof_text
        )
    print_data(table)


def _facts() -> dict[str, Any]:
    from importlib.metadata import version

    from gguf_forge.engine.forge import default_threads
    from gguf_forge.kernels import binding
    from gguf_forge.kernels.bench import find_ggml

    chosen = binding.default_backend()
    asked = bool(os.environ.get(binding.BACKEND_VARIABLE))
    return {
        "version": version("gguf-forge"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": default_threads(),
        "backends": list(binding.backends()),
        "backend": chosen,
        "backend_lanes": binding.backend_lanes(chosen),
        "backend_chosen_by": binding.BACKEND_VARIABLE if asked else "speed: the fastest that this machine can run",
        "ggml": [each.path.name for each in find_ggml()],
        "types": sorted(kind.name for kind in binding.quantizable_types()),
    }


def _reference_text(versions: Mapping[str, Mapping[str, str]]) -> str:
    """The versions in one line, llama.cpp first."""
    llama_cpp, *libraries = versions.items()
    source = f"llama.cpp {llama_cpp[1]['commit']} of {llama_cpp[1]['date']} (in {llama_cpp[1]['distribution']})"
    return ", ".join([source, *(f"{name.replace('_', '-')} {facts['version']}" for name, facts in libraries)])


def _processor() -> str:
    """The model's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
