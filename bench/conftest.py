"""What the benchmarks share: ggml, the speed of memory, and the table of ratios at the end."""

from __future__ import annotations

import pytest

from gguf_forge.kernels.bench import Ggml, Measurement, copy_speed, find_ggml

MEASURED = pytest.StashKey[list[Measurement]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MEASURED] = []


@pytest.fixture
def measured(pytestconfig: pytest.Config) -> list[Measurement]:
    """Where the table's rows go."""
    return pytestconfig.stash[MEASURED]


@pytest.fixture(scope="session")
def ggml() -> tuple[Ggml, ...]:
    return find_ggml()


@pytest.fixture(scope="session")
def copy() -> float:
    return copy_speed()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    measured = terminalreporter.config.stash[MEASURED]
    if not measured:
        return
    write = terminalreporter.write_line
    write("")
    write("type     work               from      backend   M values/s  GB/s read   x ggml  of copying  beside")
    for m in measured:
        ratio = "not there" if m.ratio_to_ggml is None else f"{m.ratio_to_ggml:9.1f}"
        speed = f"{m.million_values_per_second:10.1f} {m.gigabytes_read_per_second:10.2f}"
        row = f"{m.kind:8} {m.work:18} {m.source:9} {m.backend:9} {speed} {ratio} {m.ratio_to_copy:10.0%}"
        write(f"{row}   {m.ggml or '-'}")
    if alone := sum(m.ggml is None for m in measured):
        write(
            f"{alone} of these have no ggml beside them: pip install pywhispercpp xllamacpp gives two to compare with"
        )
