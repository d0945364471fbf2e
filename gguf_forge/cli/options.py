"""How a plain function becomes a command, and the options that only the command line has.

A command is a function such as

    def convert(request: Request, run: RunSettings, messages: Messages, dry_run: DryRun = False) -> None:

Typer cannot take a dataclass as a parameter. So `add_command` gives typer another function: in place of each dataclass,
it has one parameter for each field that is annotated with an `Option`, and it makes the dataclass from their values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

from gguf_forge.cli.completion import completing
from gguf_forge.cli.help import MACHINES, Command
from gguf_forge.errors import UsageError
from gguf_forge.option import MESSAGES, MIX, MODEL, OUTPUT, RUNNING, Option
from gguf_forge.storage.memory import told_of_option

T = TypeVar("T")

# The order of these panels in the help. The panel of a single command's own options comes before them.
_PANELS = (OUTPUT, MIX, MODEL, RUNNING, MESSAGES, MACHINES)


@dataclass(frozen=True, kw_only=True)
class Messages:
    """Which messages are shown, and in which form."""

    json: Annotated[bool, Option("--json", "One JSON object on standard output, nothing else.", MESSAGES)] = False
    quiet: Annotated[bool, Option("-q --quiet", "Nothing but errors.", MESSAGES)] = False
    verbose: Annotated[bool, Option("-v --verbose", "Also show notes on what is done.", MESSAGES)] = False


Partial = Annotated[
    bool, Option("--partial", "Take what is here of a split with missing parts or of a file that is cut short.", OUTPUT)
]

DryRun = Annotated[
    bool,
    Option(
        "--dry-run", "Only show every tensor, its type, shape and size, and the disk needed. Reads no weight.", OUTPUT
    ),
]


@dataclass(frozen=True)
class Only:
    """Which fields of a dataclass a command takes; the others keep their defaults.

    Attributes:
        shown: The fields whose options the help lists.
        hidden: Fields whose options also work, but are not listed.
    """

    shown: tuple[str, ...]
    hidden: tuple[str, ...] = ()


def only(*shown: str, hidden: Sequence[str] = ()) -> Only:
    return Only(shown, tuple(hidden))


_STANDARD_OUTPUT = ("-", *(f"/dev/{name}" for name in ("stdout", "stderr", "fd/1", "fd/2")), "/proc/self/fd/1")


def refuse_standard_output(path: Any) -> None:
    """Raises UsageError if the path of an output stands for standard output."""
    if str(path) in _STANDARD_OUTPUT:
        raise UsageError(
            f"{path}: nothing is written to standard output, as parts of a file are written out of order",
            hint="name a file",
        )


def one_output(argument: T | None, option: T | None) -> T | None:
    """The output of a command that takes it as an argument or with -o; None if neither is given.

    Raises:
        UsageError: both are given.
    """
    if argument is not None and option is not None:
        raise UsageError("the output is given twice", hint="leave out the second argument, or -o")
    return option if argument is None else argument


def required_output(argument: Path | None, option: Path | None, name: str) -> Path:
    """As `one_output`, with a UsageError if neither is given. `name` is what the help calls the output."""
    out = one_output(argument, option)
    if out is None:
        raise UsageError("the output is missing", hint=f"name {name} as the second argument, or with -o")
    return out


@dataclass(frozen=True)
class _Value:
    """A value that the command line gives: its name, type and default, and how it is spelled."""

    name: str
    type: Any
    default: Any
    option: Option

    @property
    def parameter(self) -> inspect.Parameter:
        """The same option in the form that typer takes."""
        typed, default = self.type, self.default
        if typed == tuple[str, ...]:
            typed, default = list[str] | None, default or None
        elif self.option.typed is bool:
            typed, default = bool, bool(default)
        elif self.option.parse is not None:
            typed = self.option.typed | None
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[typed, self._for_typer()]
        )

    def _for_typer(self) -> Any:
        option = self.option
        if option.is_argument:
            return typer.Argument(metavar=option.names, show_default=False, help=option.help)
        return typer.Option(
            *option.names.split(),
            metavar=option.metavar,
            rich_help_panel=option.panel,
            show_default=False,
            help=option.help,
            min=option.least,
            max=option.most,
            envvar=option.envvar,
            hidden=option.hidden,
            callback=_ending(option.at_once) if option.at_once is not None else None,
            is_eager=option.at_once is not None,
            autocompletion=completing(option.values) if option.values is not None else None,
        )

    def of(self, typed: Any) -> Any:
        """The value of what was typed."""
        if "-o" in self.option.names.split() or self.option.writes:
            refuse_standard_output(typed)
        if self.option.parse is not None:
            return self.option.parse(typed)
        return tuple(typed or ()) if self.type == tuple[str, ...] else typed

    @property
    def place(self) -> int:
        """The position of the option's panel in the help; -1 for arguments, and for a panel of a single command."""
        return _PANELS.index(self.option.panel) if self.option.panel in _PANELS else -1


@dataclass(frozen=True)
class _Parameter:
    """A parameter of a command's function: a value, or a dataclass of values."""

    name: str
    values: tuple[_Value, ...]
    dataclass: type | None

    @classmethod
    def of(cls, parameter: inspect.Parameter) -> _Parameter:
        kind, marks = _marks(parameter.annotation)
        for option in marks:
            if isinstance(option, Option):
                return cls(parameter.name, (_Value(parameter.name, kind, parameter.default, option),), None)
        return cls(parameter.name, tuple(_fields(kind, *marks)), kind)

    def made_of(self, typed: Mapping[str, Any]) -> Any:
        made = {value.name: value.of(typed[value.name]) for value in self.values}
        return self.dataclass(**made) if self.dataclass is not None else made[self.name]


def _ending(action: Callable[[], None]) -> Callable[[bool], bool]:
    """The callback of a flag that does something instead of the command."""

    def called(wanted: bool) -> bool:
        if wanted:
            action()
            raise typer.Exit
        return wanted

    return called


def _marks(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type in an `Annotated` annotation, and the other items of it."""
    if get_origin(annotation) is not Annotated:
        return annotation, ()
    kind, *marks = get_args(annotation)
    return kind, tuple(marks)


def _fields(kind: Any, which: Only | None = None) -> Iterator[_Value]:
    """The values of a dataclass's fields that have an option."""
    hints = _hints(kind)
    for field in _in_order(kind):
        typed, marks = _marks(hints[field.name])
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        is_hidden = which is not None and field.name in which.hidden
        if marks and (which is None or is_hidden or field.name in which.shown):
            option = replace(marks[0], hidden=marks[0].hidden or is_hidden)
            yield _Value(field.name, typed, default, option)


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    """The annotations of a dataclass. Most commands share a few dataclasses, and evaluating annotations is slow."""
    return get_type_hints(kind, include_extras=True)


def _in_order(kind: type) -> Iterator[Field[Any]]:
    """The fields of a dataclass, its own ones before those of its bases."""
    every = {field.name: field for field in fields(kind)}
    names = dict.fromkeys(name for each in kind.__mro__ for name in inspect.get_annotations(each))
    return (every[name] for name in names)


def add_command(
    app: typer.Typer, name: str, run: Callable[..., None], *, panel: str | None = None, hidden: bool = False
) -> None:
    """Makes a function a command; its docstring is the help.

    Args:
        app: The program or group that gets the command.
        name: The name of the command.
        run: Each parameter is annotated with an `Option`, or is a dataclass whose fields are, perhaps with `only`.
        panel: The panel of the program's help that lists the command.
        hidden: The command works, but the help does not list it.
    """
    parameters = [_Parameter.of(parameter) for parameter in inspect.signature(run, eval_str=True).parameters.values()]

    values = sorted((value for parameter in parameters for value in parameter.values), key=lambda value: value.place)
    bounds_memory = any(value.name == "max_memory" and not value.option.hidden for value in values)

    def command(**typed: Any) -> None:
        with told_of_option(bounds_memory):
            run(**{parameter.name: parameter.made_of(typed) for parameter in parameters})

    command.__signature__ = inspect.Signature([value.parameter for value in values])  # type: ignore[attr-defined]
    command.__annotations__ = {value.name: value.parameter.annotation for value in values}
    app.command(name, cls=Command, help=inspect.getdoc(run), rich_help_panel=panel, hidden=hidden)(command)
