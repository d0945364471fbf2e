from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import tiny_llama
from command_line import Forge, Run

from gguf_forge.cli import main


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def model(_made: Path) -> Path:
    """A tiny Llama folder; tests only read it."""
    return _made


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that tests start import the installed package, not the sources of the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def forge(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Forge:
    """Runs a command line in an empty folder, `tmp_path / "here"`."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in ("COLUMNS", "FORCE_COLOR", "GGUF_FORGE_BACKEND", "GGUF_FORGE_THREADS"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Run:
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Run(code, out, err)

    return run
