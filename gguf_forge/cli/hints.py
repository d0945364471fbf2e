"""Hints of errors, for the command that was run: an option that another command has is told as that command's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
_COMMAND = re.compile(r"`[^`]*`")  # a command line in a hint has its own options
# Commands whose options hints name, the most usual one first.
_OWNERS = ("convert", "quantize", "verify", "edit", "inspect")


def for_command(hint: str, arguments: Sequence[str], program: Any) -> str:
    """The hint, with the command that has the options which the command that was run lacks.

    Args:
        hint: A hint that may name options.
        arguments: The command line without the program's name.
        program: The command that has all others.
    """
    own = _options(program, arguments)
    missing = [name for name in dict.fromkeys(_OPTION.findall(_COMMAND.sub("", hint))) if name not in own]
    owner = next((name for name in _OWNERS if missing and set(missing) <= _options(program, [name])), None)
    if owner is None:
        return hint
    are = "is an option" if len(missing) == 1 else "are options"
    return f"{hint} ({' and '.join(missing)} {are} of `gguf-forge {owner}`)"


def _options(program: Any, arguments: Sequence[str]) -> set[str]:
    """The options of the command that a command line runs."""
    command = program
    for word in arguments:
        inner = getattr(command, "commands", {}).get(word)
        if inner is None:
            break
        command = inner
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
