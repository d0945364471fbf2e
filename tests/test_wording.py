"""Options in messages: as the command line spells them there, and as keyword arguments in Python."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import get_type_hints

import pytest
from checkpoints import tiny_llama
from command_line import Forge

import gguf_forge
from gguf_forge import wording
from gguf_forge.errors import UsageError
from gguf_forge.option import Option
from gguf_forge.request import Request
from gguf_forge.run_settings import RunSettings

PACKAGE = Path(gguf_forge.__file__).parent
_OPTION = re.compile(r"(?<![\w-])--[a-z]")
_ONLY_SHOWN_BY_COMMANDS = ("cli", "request.py", "file_choices.py", "run_settings.py", "option.py", "wording.py")


def options() -> Iterator[tuple[str, Option]]:
    """Every option of a request and of a run, with the keyword that it is in Python."""
    for kind in (Request, RunSettings):
        hints = get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            for mark in getattr(hints[field.name], "__metadata__", ()):
                if isinstance(mark, Option) and not mark.is_argument:
                    yield field.name, mark


@pytest.mark.parametrize(("keyword", "option"), list(options()))
def test_every_option_is_worded_as_its_keyword(keyword: str, option: Option) -> None:
    name = next(name for name in option.names.split() if name.startswith("--"))
    is_flag = option.metavar is None
    if name == "--profile":  # a flag on the command line, an object in Python, and no message names it
        return
    assert wording.in_python(f"add {name}") == f"add {keyword}=" + ("True" if is_flag else "")


def messages() -> Iterator[tuple[str, str]]:
    """Every text of the package that names an option, but for those that only commands show."""
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.relative_to(PACKAGE).parts[0] in _ONLY_SHOWN_BY_COMMANDS:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
        pieces = {id(piece) for node in formatted for piece in node.values}
        texts = ["".join(_text(piece) for piece in node.values) for node in formatted]
        texts += [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in pieces | documentation
        ]
        yield from ((file.name, text) for text in texts if _OPTION.search(text))


def _text(piece: ast.expr) -> str:
    return str(piece.value) if isinstance(piece, ast.Constant) else "VALUE"


def test_no_message_keeps_an_option_of_the_command_line_and_no_word_becomes_a_value() -> None:
    found = [(file, wording.in_python(text)) for file, text in messages()]
    assert len(found) > 100
    plain = [(file, re.sub("`[^`]*`", "", text)) for file, text in found]
    assert [file for file, text in plain if _OPTION.search(text)] == []
    values = {value for _, text in plain for value in re.findall('="([^"]*)"', text)}
    assert values == {"VALUE", "VALUEM", "all", "auto", "DIR", "F16", "NAME", "Q6_K"}


def test_an_exception_speaks_python_and_a_command_its_own_words(tmp_path: Path, forge: Forge) -> None:
    assert str(UsageError("--pure has no effect", hint="add -t auto, or --parts all")) == (
        'pure=True has no effect; add types="auto", or parts="all"'
    )
    error = UsageError("--pure has no effect", hint="add -t auto")
    assert (error.problem, error.hint) == ("pure=True has no effect", 'add types="auto"')
    assert error.words == ("--pure has no effect", "add -t auto")
    shown = forge("convert", str(tmp_path), "--parts", "")
    assert "=" not in shown.err and shown.code == UsageError.exit_code


def test_the_log_speaks_python(caplog: pytest.LogCaptureFixture) -> None:
    wording.log_of("gguf_forge.tests").warning("%s has no effect with --resume", "--pure")
    assert caplog.messages == ["pure=True has no effect with resume=True"]
    assert getattr(caplog.records[0], wording.AS_WRITTEN) == "--pure has no effect with --resume"


def test_every_module_takes_its_log_from_there() -> None:
    made = [file.name for file in PACKAGE.rglob("*.py") if "logging.getLogger(" in file.read_text(encoding="utf-8")]
    assert sorted(made) == ["streams.py", "wording.py"]
    assert isinstance(logging.getLogger("gguf_forge.planning.from_checkpoint"), logging.Logger)


def test_errors_that_quote_another_take_its_words_as_they_were_written() -> None:
    quoted = re.compile(r"\b(error|refused)\.(problem|hint)\b")
    assert [file.name for file in PACKAGE.rglob("*.py") if quoted.search(file.read_text(encoding="utf-8"))] == []


def test_keywords_that_messages_name_do_what_they_say(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    (file,) = gguf_forge.convert(model, tmp_path / "a.gguf", types="Q8_0", max_memory="8G", split_max_tensors=1000)
    with pytest.raises(UsageError, match=r"already quantized.*add allow_requantize=True"):
        gguf_forge.quantize_gguf(file.path, tmp_path / "b.gguf", types="Q4_0")
    (again,) = gguf_forge.quantize_gguf(file.path, tmp_path / "b.gguf", types="Q4_0", allow_requantize=True)
    assert gguf_forge.verify_gguf(again.path, file.path, allow_requantize=True).ok
    with pytest.raises(UsageError, match="both split and split_max_size are given"):
        gguf_forge.plan(model, types="Q8_0", split=gguf_forge.Split(max_size=100), split_max_size="1G")
    with pytest.raises(UsageError, match=r'need source=; add source="DIR"'):
        gguf_forge.verify_gguf(file.path, pure=True)


@pytest.mark.parametrize("verb", ["convert", "plan", "quantize_gguf", "verify_gguf"])
def test_verbs_accept_every_keyword_that_a_message_may_name(verb: str) -> None:
    assert any(one.kind is one.VAR_KEYWORD for one in signature(getattr(gguf_forge, verb)).parameters.values())


def test_the_name_of_a_part_of_a_split_holds_no_option() -> None:
    said = "the name does not end in -of-00003.gguf; see model-00001-of-00003.gguf, and -total"
    assert wording.in_python(said) == said
