"""Changes to the help that typer prints: panels come in a fixed order, and flags show no `<bool>`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup, TyperOption

from gguf_forge.cli.streams import writing_help

# The panels of the program's help. The options of jobs for many machines have a panel of the same name.
MAKE, LOOK, PROVE, CHANGE = "Make", "Look", "Prove", "Change"
MACHINES, MACHINE = "Many machines", "This machine"
_ORDER = (MAKE, LOOK, PROVE, CHANGE, MACHINES, MACHINE)


def _without_types_of_flags(parameters: list[Any]) -> list[Any]:
    """The same parameters, with an empty metavar for flags. Without it, the help would show `<bool>` for them."""
    for parameter in parameters:
        if isinstance(parameter, TyperOption) and parameter.is_flag and parameter.metavar is None:
            parameter.metavar = ""
    return parameters


class Command(TyperCommand):
    """A command."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types_of_flags(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with writing_help():
            super().format_help(ctx, formatter)


class Group(TyperGroup):
    """The program itself, or a command that has subcommands."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types_of_flags(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        with writing_help():
            super().format_help(ctx, formatter)

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order of their panels. Typer by itself would put groups of commands last."""
        return sorted(super().list_commands(ctx), key=self._place)

    def _place(self, name: str) -> int:
        panel = getattr(self.commands[name], "rich_help_panel", None)
        return _ORDER.index(panel) if panel in _ORDER else len(_ORDER)
