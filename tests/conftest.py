from __future__ import annotations

import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from command_line import Forge
    from corpus import Cases

# The installed package is tested, in processes that tests start, too: that of the checkout may have no kernels.
sys.path[:] = [entry for entry in sys.path if entry]
os.environ["PYTHONSAFEPATH"] = "1"

# A job in the background is started with this ignored, and so would be all that its tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What the tests that read the corpus compare, and which tests these are.
CORPUS_TESTS = {
    "byte for byte": ("tests/test_corpus.py::test_the_file", "tests/planning/test_from_gguf.py::test_the_corpus"),
    "as plans": ("tests/planning/test_manifests.py::test_the_plan",),
}

# A busy machine is no failure.
settings.register_profile("gguf-forge", deadline=None)
settings.load_profile("gguf-forge")


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cases]:
    """The cases of the conformance corpus with their weights; copies go when the tests end."""
    from corpus import Cases  # imports the package, so not before the path is right

    folder = tmp_path_factory.mktemp("cases")
    yield Cases(folder)
    shutil.rmtree(folder)


@pytest.fixture
def forge(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Forge:
    """Runs a command line in an empty folder, `tmp_path / "here"`."""
    from command_line import Run

    from gguf_forge.cli import main

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


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> int:
    """The bytes that this process is said to hold. What it really holds changes at any moment."""
    from gguf_forge.engine import memory as of_the_engine
    from gguf_forge.storage import memory as of_readers

    held = 100 << 20
    for module in (of_the_engine, of_readers):
        monkeypatch.setattr(module, "resident_bytes", lambda: held)
    return held


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tells how many manifests of the corpus were compared with what this version makes."""
    for how, tests in CORPUS_TESTS.items():
        known, missed = _compared(terminalreporter, tests)
        if known:
            terminalreporter.write_line(f"conformance: {len(known - missed)} of {len(known)} manifests reached, {how}")
    for name, counts in _reports(terminalreporter).items():
        told = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
        terminalreporter.write_line(f"report {name:<32} {told}")


def _reports(terminalreporter: pytest.TerminalReporter) -> dict[str, Counter[str]]:
    """The outcomes of the tests of `tests/reports`, by the name of the report."""
    found: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, ()):
            if report.nodeid.startswith("tests/reports/"):
                name = Path(report.nodeid.partition("::")[0]).stem.removeprefix("test_").replace("_", "-")
                found.setdefault(name, Counter())[outcome] += 1
    return dict(sorted(found.items()))


def _compared(terminalreporter: pytest.TerminalReporter, tests: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """The manifests that these tests know, and those of them that this version does not reach."""
    from corpus import NOT_REACHED

    known, missed = set(), set()
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, ()):
            if report.nodeid.startswith(tests):
                manifest = report.nodeid.partition("[")[2]
                known.add(manifest)
                if outcome == "skipped" and NOT_REACHED in str(report.longrepr):
                    missed.add(manifest)
    return known, missed
