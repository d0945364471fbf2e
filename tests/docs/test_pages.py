"""The pages for readers stay true: paths exist, links lead somewhere, and command lines and calls can be typed."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import gguf_forge
from gguf_forge.cli.app import program

ROOT = Path(__file__).parents[2]
# The changelog is history: it may name what is there no more.
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "tests/*.md", "csrc/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)
# A reader of docs/add-a-model.md makes these.
MADE_BY_THE_READER = ("tests/families/granite", "gguf_forge/architectures/families/granite.py")
# llama.cpp's paths, which pages for those who follow it name, and what a build leaves.
NOT_OURS = ("conversion/", "ggml/", "gguf-py/", "src/", "tools/gguf-split", "build/")
PATH = re.compile(r"[\w.-]+(/[\w.*-]+)+/?")
SUFFIXES = {".py", ".c", ".h", ".inc", ".md", ".json", ".toml", ".svg", ".png"}

page_by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [code for language, code in found if language in languages]


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def inline_code(page: Path) -> list[str]:
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words of every command that a page shows, in code blocks and in sentences."""
    lines = [line for block in blocks(page, "sh", "text", "") for line in block.replace("\\\n", " ").splitlines()]
    for line in (*lines, *inline_code(page)):
        for part in re.split(r"&&|\|(?= )|;", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:  # a quotation mark alone: no command line
                continue
            if words:
                yield words


def is_path(word: str) -> bool:
    """Does this word name a file or folder of the project?"""
    if not PATH.fullmatch(word) or word.startswith((*MADE_BY_THE_READER, *NOT_OURS)) or re.search(r"/[A-Z]+$", word):
        return False
    return (ROOT / word.partition("/")[0]).exists() or Path(word).suffix in SUFFIXES


@page_by_page
def test_paths_exist(page: Path) -> None:
    words = {word.partition("::")[0] for line in command_lines(page) for word in line}
    missing = [
        word
        for word in sorted(filter(is_path, words))
        if not any(list(folder.glob(word)) for folder in (ROOT, ROOT / "gguf_forge", page.parent))
    ]
    assert missing == []


@page_by_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", link):
            continue
        target, _, anchor = link.partition("#")
        to = page.parent / target if target else page
        if not to.exists() or (anchor and anchor not in anchors(to)):
            broken.append(link)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@page_by_page
def test_options_exist(page: Path) -> None:
    root: Any = typer.main.get_command(program())
    unknown = []
    for words in command_lines(page):
        if words[0] != "gguf-forge":
            continue
        command, rest = root, words[1:]
        while rest and hasattr(command, "commands") and not rest[0].startswith("-") and rest[0] != "COMMAND":
            if rest[0] not in command.commands:
                unknown.append(" ".join(words))
                break
            command, rest = command.commands[rest[0]], rest[1:]
        known = {"--help", "-h", *(name for each in command.params for name in each.opts)}
        options = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        unknown += [f"{' '.join(words)}: {option}" for option in sorted(options - known)]
    assert unknown == []


@page_by_page
def test_classes_exist(page: Path) -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "gguf_forge").rglob("*.py"))
    named = {word for word in inline_code(page) if re.fullmatch(r"([A-Z][a-z0-9]+){2,}", word)}
    missing = [word for word in sorted(named) if not re.search(rf"\b(class {word}\b|{word} ?[:=(])", code)]
    assert missing == []


@page_by_page
def test_targets_and_jobs_exist(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    jobs = re.findall(r"^job_(\w+)\(\)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    known = {"make": targets, ".ci/run": jobs}
    unknown = [
        f"{program} {word}"
        for program, *rest in command_lines(page)
        for word in rest
        if re.fullmatch(r"[a-z]+", word) and word not in known.get(program, [word])
    ]
    assert unknown == []


@page_by_page
def test_calls_can_be_made(page: Path) -> None:
    wrong = []
    for call in (node for block in blocks(page, "python") for node in calls(block)):
        name = call.func.attr  # type: ignore[attr-defined]
        keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
        try:
            inspect.signature(getattr(gguf_forge, name)).bind(*call.args, **keywords)
        except (AttributeError, TypeError) as error:
            wrong.append(f"{name}: {error}")
    assert wrong == []


def calls(code: str) -> Iterator[ast.Call]:
    """The calls of `gguf_forge.NAME(...)` in a piece of Python."""
    try:
        tree = ast.parse(code)
    except SyntaxError:  # a signature or a session, in docs/python.md
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "gguf_forge":
                yield node
