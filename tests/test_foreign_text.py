"""The one door for foreign text: what it does, and that nothing goes round it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge import InputError
from gguf_forge.errors import printable
from gguf_forge.foreign_text import LONGEST_MESSAGE, escaped, file_name, message
from gguf_forge.general.naming import ModelIdentity, output_name

PACKAGE = Path(__file__).resolve().parents[1] / "gguf_forge"
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
ANY = st.text(st.characters(exclude_categories=[]))  # surrogates too
# What terminals act on: escape sequences, the C1 form of the same, and the directions of text.
ACTING = ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\u202e", "\u2066", "\u200f", "\u2028", "\x7f", "\r", "\ud800"]


@given(ANY)
def test_nothing_that_passes_the_door_acts(text: str) -> None:
    assert escaped(text).isprintable()
    assert message(text).replace("\n  ", "").isprintable()
    assert printable(text).isprintable()
    name = file_name(text)
    assert name.isprintable() and not name.startswith(("-", ".")) and "/" not in name
    name.encode()


@given(ANY)
def test_a_file_is_named_after_any_model(text: str) -> None:
    name = output_name(ModelIdentity(text, text, text, text, text), "Q8_0")
    assert name.isprintable() and name[0] not in "-." and "/" not in name
    assert len(name.encode()) <= 255


@given(ANY)
def test_an_error_says_nothing_that_acts(text: str) -> None:
    error = InputError(text, file=Path(text.replace("\0", "")), tensor=text, hint=text)
    assert str(error).replace("\n  ", "").isprintable()


@given(st.text(st.characters(categories=["L", "N", "P", "S", "M"]), max_size=100))
def test_text_of_any_language_stays(text: str) -> None:
    assert escaped(text) == text


@pytest.mark.parametrize("text", ACTING)
def test_what_acts_is_shown_as_an_escape(text: str) -> None:
    assert escaped(f"a{text}b") == "a" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) + "b"


def test_an_error_has_an_upper_size() -> None:
    much = "A" * 5_000_000
    error = InputError(f"the value {much} is wrong", file=much, tensor=much, hint=f"{much} is no hint")
    assert len(str(error)) < 5 * LONGEST_MESSAGE
    assert error.problem.endswith("A is wrong")


def test_a_message_cannot_feign_another() -> None:
    assert message("no key a\nerror: all is lost") == "no key a\\nerror: all is lost"
    assert message("these are missing:\n  a\n  b") == "these are missing:\n  a\n  b"


def nodes(module: str) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))


def modules_with(found: set[str]) -> set[str]:
    """The modules in which one of these expressions stands, such as `sys.stdout` or `print`."""
    return {module for module in MODULES for node in nodes(module) if _expression(node) in found}


def _expression(node: ast.AST) -> str | None:
    return ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else None


def test_only_one_module_writes_to_standard_output_and_error() -> None:
    streams = {"sys.stdout", "sys.stderr", "print", "typer.echo", "typer.secho", "os.write", "warnings.warn"}
    # The other one says what the program needs before it is loaded.
    assert modules_with(streams) == {"cli/streams.py", "cli/__init__.py"}


def test_only_one_module_makes_consoles() -> None:
    makers = {module for module in MODULES for node in nodes(module) if _is_made(node)}
    assert makers == {"cli/streams.py"}


def _is_made(node: ast.AST) -> bool:
    """Whether a console is made, or a class of consoles."""
    if isinstance(node, ast.ClassDef):
        return "Console" in map(ast.unparse, node.bases)
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("Console", "rich.console.Console")


def test_only_one_module_makes_texts_and_tables() -> None:
    calls = {
        module
        for module in MODULES
        for node in nodes(module)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("Text", "Text.assemble", "Table", "Text.from_markup")
    }
    assert calls == {"cli/tables.py"}


def test_only_the_door_decides_what_is_printable() -> None:
    deciding = {module for module in MODULES for node in nodes(module) if getattr(node, "attr", "") == "isprintable"}
    # The others refuse such names of shards, and of modules.
    assert deciding == {"foreign_text.py", "checkpoint/shards.py", "architectures/strange_tensors.py"}


def test_a_page_gets_no_text_round_the_door() -> None:
    """Values in the template and texts of charts pass `words_of`; the page's own style and script do not."""
    from markupsafe import Markup

    from gguf_forge.toolbox.report.svg import element, words_of

    assert words_of("a\u202e<b>\x1b") == "a\\u202e&lt;b&gt;\\x1b"
    assert element("text", "\x9b", title="\u2066") == Markup('<text title="\\u2066">\\x9b</text>')
    marked = {module for module in MODULES for node in nodes(module) if ast.unparse(node).startswith("Markup(")}
    assert {module for module in marked if not module.startswith("toolbox/report/")} == set()
