from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from corpus import REPORTS
from reports import MadeInput


@pytest.fixture
def made(request: pytest.FixtureRequest, tmp_path: Path) -> MadeInput:
    """Writes the input of the report that the test's module is named after: `made("other")` with arguments, too."""
    name = request.path.stem.removeprefix("test_").replace("_", "-")
    program = REPORTS / name / "make.py"
    if not program.exists():
        pytest.skip("the reports are kept outside the repository")

    def make(*arguments: str) -> Path:
        folder = tmp_path / "-".join((name, *arguments))
        folder.mkdir()
        subprocess.run([sys.executable, program, folder, *arguments], check=True, stdout=subprocess.DEVNULL)
        return folder

    return make
