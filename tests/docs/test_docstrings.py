"""Every example in a docstring gives what it says, unless it needs a file that is not there (`doctest: +SKIP`)."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import gguf_forge


def _modules_with_examples() -> list[str]:
    modules = (found.name for found in walk_packages(gguf_forge.__path__, f"{gguf_forge.__name__}."))
    root = Path(gguf_forge.__path__[0]).parent
    texts = {name: root.joinpath(*name.split(".")) for name in modules if not name.endswith(("__main__", "_kernels"))}
    files = {name: path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for name, path in texts.items()}
    return sorted(name for name, file in files.items() if ">>> " in file.read_text())


MODULES = _modules_with_examples()


def test_there_are_examples() -> None:
    assert len(MODULES) > 50


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_are_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    for test in doctest.DocTestFinder().find(import_module(name), name):
        runner.run(test, out=said.append)
    assert not said, "".join(said)
