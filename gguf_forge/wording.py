"""Options in messages, in the words of the reader. Messages spell them as a command line does: `--max-memory 1G`.

The command line shows messages as they are. In Python, the text of an exception and the log have `max_memory="1G"`.
"""

from __future__ import annotations

import logging
import re

AS_WRITTEN = "gguf_forge_as_written"  # the attribute of a log record with the message for the command line

# Options whose keyword in Python is not the option's name with underscores.
_KEYWORDS = {
    "-o": "out",
    "--outfile": "out",
    "-t": "types",
    "--type": "types",
    "-j": "threads",
    "--base": "base_model",
    "--max-buffer-size": "buffer",
    "--check-sums": "sums",
    "--check-tokens": "texts",
    "--tensor": "name",
}

_FLAGS = frozenset(
    [
        "--pure",
        "--leave-output-tensor",
        "--force",
        "--keep-split",
        "--partial",
        "--no-tensor-first-split",
        "--as-reference",
        "--allow-requantize",
        "--strict",
        "--mistral-format",
        "--disable-mistral-community-chat-template",
        "--fp8-as-q8",
        "--keep-quantized",
        "--mmproj",
        "--mtp",
        "--no-mtp",
        "--dspark",
        "--sentence-transformers-dense-modules",
        "--fuse-qkv",
        "--fuse-gate-up-exps",
        "--bigendian",
        "--vocab-only",
        "--overwrite",
        "--resume",
        "--safetensors",
        "--only-tensors",
    ]
)

# Words that follow an option in a sentence. Every other word after an option that takes a value is its value.
_NO_VALUES = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "beside",
        "cannot",
        "changes",
        "choose",
        "decides",
        "does",
        "first",
        "for",
        "has",
        "have",
        "hint",
        "in",
        "is",
        "it",
        "keys",
        "leave",
        "leaves",
        "makes",
        "matches",
        "must",
        "names",
        "needs",
        "on",
        "only",
        "or",
        "out",
        "than",
        "takes",
        "to",
        "with",
        "works",
    ]
)

_COMMAND_LINE = re.compile(r"(`[^`]*`)")
# Commands whose work a reader in Python does with a function.
_CALLS = (
    (re.compile(r"`gguf-forge job work ([^`]*) --task N`"), r'`gguf_forge.work("\1", N)`'),
    (re.compile(r"`gguf-forge job plan`"), "`gguf_forge.plan_work`"),
)
_VALUE = r"""'[^']*'|[^\s'",;:()]*[^\s'",;:().]"""
_OPTION = re.compile(rf"(?<![\w-])(--[a-z][a-z0-9-]*[a-z0-9]|-[otj](?![\w-]))(?: ({_VALUE}))?")


def in_python(text: str) -> str:
    """A message with its options as keyword arguments, and commands for tasks as functions. Other command lines stay.

    Example:
        >>> in_python("add --strict, or allow --max-memory 2G or more: `gguf-forge convert --help`")
        'add strict=True, or allow max_memory="2G" or more: `gguf-forge convert --help`'
        >>> in_python("give it with --imatrix")
        'give it with imatrix='
        >>> in_python("do it with `gguf-forge job work plan.json --task N`")
        'do it with `gguf_forge.work("plan.json", N)`'
    """
    for command, call in _CALLS:
        text = command.sub(call, text)
    parts = _COMMAND_LINE.split(text)
    return "".join(part if part.startswith("`") else _OPTION.sub(_keyword, part) for part in parts)


def _keyword(found: re.Match[str]) -> str:
    option, value = found.groups()
    name = _KEYWORDS.get(option, option.lstrip("-").replace("-", "_"))
    if option in _FLAGS:
        return f"{name}=True" + (f" {value}" if value else "")
    if value is None or value in _NO_VALUES:
        return f"{name}=" + (f" {value}" if value else "")
    return f"{name}={value}" if value.startswith("'") else f'{name}="{value}"'


def log_of(module: str) -> logging.Logger:
    """The log of a module, whose messages may name options. A record also keeps its message as it is written.

    Args:
        module: The module's `__name__`.
    """
    log = logging.getLogger(module)
    log.addFilter(_worded)
    return log


def _worded(record: logging.LogRecord) -> bool:
    written = record.getMessage()
    record.msg, record.args = in_python(written), ()
    setattr(record, AS_WRITTEN, written)
    return True
