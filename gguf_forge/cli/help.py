"""Changes to the help that typer prints: a fixed order of panels, plain names of arguments, and careful advice."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from gguf_forge.cli.streams import writing_help

# The panels of the program's help. The options of jobs for many machines have a panel of the same name.
MAKE, LOOK, PROVE, CHANGE = "Make", "Look", "Prove", "Change"
MACHINES, MACHINE = "Many machines", "This machine"
_ORDER = (MAKE, LOOK, PROVE, CHANGE, MACHINES, MACHINE)


# The least likeness of two words, of 1, at which one is taken for a slip of the other.
LIKENESS = 0.8


def _without_types(parameters: list[Any]) -> list[Any]:
    """The same parameters. The help shows no `<bool>` for flags, and no `<list[str]>` for arguments."""
    for parameter in parameters:
        if isinstance(parameter, TyperArgument):
            parameter.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
        elif isinstance(parameter, TyperOption) and parameter.is_flag and parameter.metavar is None:
            parameter.metavar = ""
    return parameters


class Command(TyperCommand):
    """A command."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with writing_help():
            super().format_help(ctx, formatter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The line of usage: names of arguments as they are, which say themselves what may be left out."""
        arguments = (each.display_name_raw for each in self.get_params(ctx) if isinstance(each, TyperArgument))
        return ["[OPTIONS]", *arguments]


class Group(TyperGroup):
    """The program itself, or a command that has subcommands."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.suggest_commands = False  # typer takes `split` for what `list` was to be

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with writing_help():
            super().format_help(ctx, formatter)

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order of their panels. Typer by itself would put groups of commands last."""
        return sorted(super().list_commands(ctx), key=self._place)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without arguments, a group that does nothing by itself shows its help, which is no error."""
        return super().parse_args(ctx, args or (["--help"] if self.no_args_is_help else []))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            near = get_close_matches(args[0], self.commands, n=1, cutoff=LIKENESS)
            advice = f" Did you mean {near[0]}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{advice}")
        return super().resolve_command(ctx, args)

    def _place(self, name: str) -> int:
        panel = getattr(self.commands[name], "rich_help_panel", None)
        return _ORDER.index(panel) if panel in _ORDER else len(_ORDER)
