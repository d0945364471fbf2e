"""What the README says of installing: the packages that pip brings, by name and by number."""

from __future__ import annotations

import re
import sys
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def needed(lines: list[str]) -> set[str]:
    """The packages that a requirement without extras brings, with all that they need themselves."""
    found: set[str] = set()
    left = list(lines)
    while left:
        one = Requirement(left.pop())
        name = one.name.lower().replace("_", "-")
        if name not in found and (one.marker is None or one.marker.evaluate({"extra": ""})):
            found.add(name)
            left += requires(one.name) or []
    return found


def test_the_packages_that_it_asks_for_are_named() -> None:
    asked = {Requirement(line).name.lower() for line in PROJECT["dependencies"]}
    words = re.search(r"asks for eight of them:(.*?), all of which", README, re.DOTALL)
    assert words
    named = set(re.findall(r"[a-z_0-9]+", words.group(1).replace("and ", "").lower()))
    assert named == asked
    assert len(asked) == 8


def test_the_packages_that_come_with_them_are_counted() -> None:
    every = needed(PROJECT["dependencies"])
    said = re.search(r"pip\s+brings some (\d+) packages", README)
    assert said
    assert abs(len(every) + 1 - int(said.group(1))) <= 5
    assert {"huggingface-hub", "hf-xet", "pydantic"} <= every
    assert not {"torch", "transformers"} & every


def test_the_client_of_the_hub_is_never_called() -> None:
    for file in (ROOT / "gguf_forge").glob("**/*.py"):
        assert not re.search(
            r"^\s*(import|from) (huggingface_hub|hf_xet|httpx\w*|pydantic)\b", file.read_text(), re.MULTILINE
        )
