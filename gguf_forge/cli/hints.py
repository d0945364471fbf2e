"""Hints of errors, for the command that was run: what another command can do is told as that command's."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gguf_forge.cli.other_tools import instead_of
from gguf_forge.errors import printable
from gguf_forge.storage.paths import is_there

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
_COMMAND = re.compile(r"`[^`]*`")  # a command line in a hint has its own options
_UNKNOWN = re.compile(r"No such option: (--[a-z-]+)")
_EXTRA = re.compile(r"unexpected extra argument(?:s|\(s\))? \((.*)\)")
# Commands whose options hints name, the most usual one first. The others follow.
_MOST_WORDS = 20  # of a command line that are tried as parts of one name
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
    owner = _owner(missing, program)
    if owner is None:
        return hint
    are = "is an option" if len(missing) == 1 else "are options"
    return f"{hint} ({' and '.join(missing)} {are} of `gguf-forge {owner}`)"


def for_mistake(problem: str, arguments: Sequence[str], program: Any) -> str | None:
    """What helps with an option or an argument that the command does not take; None if nothing is known.

    Args:
        problem: What the parser of the command line says.
        arguments: The command line without the program's name.
        program: The command that has all others.
    """
    if unknown := _UNKNOWN.search(problem):
        owner = _owner([unknown[1]], program)
        return instead_of(unknown[1]) or (f"it is an option of `gguf-forge {owner}`" if owner else None)
    if extra := _EXTRA.search(problem):
        return _for_extra(extra[1].split(), arguments, _options(program, arguments))
    return None


def _for_extra(extra: Sequence[str], arguments: Sequence[str], options: set[str]) -> str:
    """What helps with words that are too many: quotes, the option that they are for, or another run."""
    from gguf_forge.recipe.file_types import are_types

    with_spaces = next((name for name in _joined(arguments) if is_there(Path(name))), None)
    if with_spaces:
        return f"a name with spaces needs quotes: {shlex.quote(with_spaces)}"
    word = printable(extra[0])
    if "-t" in options and are_types(extra):
        return f"an option names the file type: -t {','.join(map(printable, extra))}"
    if "-o" in options and word.endswith((".gguf", "/")):
        return f"an option names the output: -o {shlex.quote(word)}"
    if is_there(Path(extra[0])):
        return f"`gguf-forge {arguments[0]}` takes one at a time: run it again for {shlex.quote(word)}"
    return "a name with spaces needs quotes, and an option needs its name"


def _joined(words: Sequence[str]) -> Iterator[str]:
    """Neighbouring words as one name, as it was before a shell took it apart."""
    few = words[:_MOST_WORDS]
    return (" ".join(few[start:end]) for start in range(1, len(few)) for end in range(start + 2, len(few) + 1))


def _owner(options: Sequence[str], program: Any) -> str | None:
    """The first command that has all these options."""
    commands = dict.fromkeys((*_OWNERS, *program.commands))
    return next((name for name in commands if options and set(options) <= _options(program, [name])), None)


def _options(program: Any, arguments: Sequence[str]) -> set[str]:
    """The options of the command that a command line runs."""
    command = program
    for word in arguments:
        inner = getattr(command, "commands", {}).get(word)
        if inner is None:
            break
        command = inner
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
