"""The options of commands that compare tokens, and what they show of the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gguf_forge.option import Option

if TYPE_CHECKING:
    from gguf_forge.cli.options import Messages
    from gguf_forge.gguf_file.values import Metadata
    from gguf_forge.toolbox.tokens import TokenCheck

_TOKENS = "Tokens"
# The exit code of a difference.
MISMATCH = 7

CheckTokens = Annotated[
    bool,
    Option(
        "--check-tokens",
        "Also compare the tokens of texts in many scripts: those of the model's own tokenizer, and those that "
        "llama.cpp makes with the file's vocabulary. Needs an extra: `pip install '.[tokens]'` in a checkout.",
        _TOKENS,
    ),
]
TokenTexts = Annotated[
    Path | None,
    Option(
        "--token-texts",
        "The texts for --check-tokens, instead of the built-in ones. Each line is one; the file has at most 4 MiB.",
        _TOKENS,
        "FILE",
    ),
]


def texts_to_check(*, is_asked: bool, file: Path | None) -> Sequence[str] | None:
    """The texts to compare; None if that was not asked for.

    Raises:
        UnsupportedError: a library for it is not installed.
    """
    if not is_asked and file is None:
        return None
    from gguf_forge.toolbox.tokens import SAMPLE, read_texts, require_libraries

    require_libraries()
    return SAMPLE if file is None else read_texts(file)


def tokens_object(found: TokenCheck) -> dict[str, Any]:
    """Ids are those of the vocabulary; `at` counts them from 0."""
    return {
        "ok": found.ok,
        "tokenizer": found.tokenizer,
        "texts": found.n_texts,
        "differences": [vars(difference) for difference in found.differences],
    }


def compare_tokens(metadata: Metadata, folder: Path, texts: Sequence[str], messages: Messages) -> None:
    """Says how the vocabulary of a file that was written compares; ends the program with 7 if tokens differ."""
    from gguf_forge.cli.streams import tell
    from gguf_forge.cli.tables import line
    from gguf_forge.storage.local.folder import LocalFolder
    from gguf_forge.toolbox.tokens import check_tokens

    found = check_tokens(metadata, LocalFolder(folder), texts)
    if not (found.ok and messages.quiet):
        for sentence in found.sentences:
            tell(line(("tokens: ", "bold green" if found.ok else "bold red"), sentence))
    if not found.ok:
        raise typer.Exit(MISMATCH)
