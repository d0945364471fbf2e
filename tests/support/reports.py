"""What the tests of reports have in common."""

from collections.abc import Callable
from pathlib import Path

# `made("other")` writes the input of the module's report, with arguments for its program, and gives the folder.
MadeInput = Callable[..., Path]
