"""The command line, one file per command.

Commands import what they need when they run, so that help and version answer at once.
"""

from gguf_forge.cli.app import main

__all__ = ["main"]
