import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gguf_forge.cli import main
from tests.checkpoints import tiny_llama


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def model(_made: Path) -> Path:
    """A tiny Llama folder; tests only read it."""
    return _made


@dataclass(frozen=True)
class Run:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Forge = Callable[..., Run]


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


def listing(folder: Path) -> Sequence[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())
