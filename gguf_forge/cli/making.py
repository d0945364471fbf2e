"""The shared part of commands that write files: they make the planned files, or only show the plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gguf_forge.cli.options import Messages
from gguf_forge.cli.progress import observing
from gguf_forge.cli.results import show_plans, show_results
from gguf_forge.cli.streams import logging_to
from gguf_forge.errors import ForgeError
from gguf_forge.planning.file_plan import FilePlan, WrittenFile, check_files
from gguf_forge.planning.making import make, planned
from gguf_forge.request import Request
from gguf_forge.run_settings import RunSettings
from gguf_forge.wording import log_of

log = log_of(__name__)


def make_and_show(request: Request, run: RunSettings, messages: Messages) -> tuple[WrittenFile, ...]:
    """Makes what is asked for, shows what was made, and gives it back."""
    with observing(messages) as observer:
        results = make(request, replace(run, observer=observer))
    show_results(results, messages, run.profile)
    return results


def plan_and_show(
    request: Request,
    run: RunSettings,
    messages: Messages,
    what: str,
    *,
    only_planned: bool = False,
    summary: bool = False,
) -> None:
    """Shows what would be made, and says what would stop it.

    Args:
        request: What is asked for.
        run: How it would be run.
        messages: Which messages are shown, and how.
        what: A word for the work, such as "converting".
        only_planned: As for `OpenModel.files`.
        summary: Only the sizes of the files are shown.
    """
    with (
        logging_to(messages),
        planned(request, only_planned=only_planned) as found,
    ):
        say_what_would_stop(found.files, run, what)
        show_plans(found.files, messages, summary=summary)


def say_what_would_stop(files: Iterable[FilePlan], run: RunSettings, what: str = "this") -> None:
    """Warns of what would stop files from being made."""
    try:
        check_files(files, run)
    except ForgeError as error:
        log.warning("%s would be refused: %s", what, error.as_written)
