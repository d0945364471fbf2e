from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.general.model_card import read_model_card
from gguf_forge.storage.local.folder import LocalFolder


def card(folder: Path, text: str | bytes) -> dict[str, Any]:
    (folder / "README.md").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_model_card(LocalFolder(folder))


def test_front_matter(tmp_path: Path) -> None:
    text = "---\nlicense: mit\ntags:\n- a\n- b\n---\n# Title\nlicense: not this\n"
    assert card(tmp_path, text) == {"license": "mit", "tags": ["a", "b"]}
    assert card(tmp_path, text.replace("\n", "\r\n")) == {"license": "mit", "tags": ["a", "b"]}


@pytest.mark.parametrize("text", ["", "# Title\n", "\n---\na: b\n---\n", "--- \na: b\n---\n", "---\n---\n", "---"])
def test_no_front_matter(tmp_path: Path, text: str) -> None:
    assert card(tmp_path, text) == {}


def test_no_card(tmp_path: Path) -> None:
    assert read_model_card(LocalFolder(tmp_path)) == {}


def test_a_folder_called_readme(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "README.md").mkdir()
    assert read_model_card(LocalFolder(tmp_path)) == {}
    assert "ignored" in caplog.text


def test_numbers_and_dates_are_the_text_they_are_written_as(tmp_path: Path) -> None:
    text = "---\nversion: 1.10\ndate: 2024-02-31\nbuild: 0123\ntime: 1:30\n---\n"
    assert card(tmp_path, text) == {"version": "1.10", "date": "2024-02-31", "build": "0123", "time": "1:30"}


def test_norwegian_and_tabs(tmp_path: Path) -> None:
    assert card(tmp_path, "---\nlanguage:\n- en\n- no\nother: no\na:\n\tb: c\n---\n") == {
        "language": ["en", "no"],
        "other": False,
        "a": {"b": "c"},
    }


@pytest.mark.parametrize(
    "front",
    [
        "license: [",
        "a: b: c",
        "- a\n- b",
        "just text",
        "!!python/object/apply:os.system [x]",
        "a: !!int x",
        "a: !!bool x",
        "a: !!timestamp x",
        "a: !!binary ü",
        "a: *unknown",
        "? [a, b]\n: c",
        "a: " + "[" * 200_000 + "]" * 200_000,
        "- " * 10_000 + "a",
        "a: &a [*a",
        'a: !!int "1:1"',
        "a: !!float .5",
        "a: !!set {b}",
    ],
)
def test_front_matter_that_cannot_be_used_is_ignored_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, front: str
) -> None:
    assert card(tmp_path, f"---\n{front}\n---\n") == {}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(tmp_path / "README.md") in caplog.text


def test_bytes_that_are_not_utf8_leave_the_rest(tmp_path: Path) -> None:
    assert card(tmp_path, b"---\nlicense: mit\n---\nby Andr\xe9\n") == {"license": "mit"}


@pytest.mark.parametrize(
    ("front", "reason"),
    [
        ("a: b\n" * 150_000, "more than 200000 values"),
        ("tags:\n" + "- b\n" * 250_000, "more than 200000 values"),
        ('tags:\n- &a "' + "x" * 200_000 + '"\n' + "- *a\n" * 10_000, "characters with its aliases"),
        ("m: &a {name: " + "x" * 100_000 + "}\nb: [" + "*a, " * 1000 + "]", "characters with its aliases"),
        ("a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
            f"{new}: &{new} [{', '.join(['*' + old] * 8)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ), "characters with its aliases"),
        ("a: " + "x" * (4 << 20), "longer than 4 MiB"),
    ],
    ids=["a mapping", "a list", "a long text", "a long mapping", "many laughs", "one text"],
)  # fmt: skip
def test_front_matter_that_would_take_too_much(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, front: str, reason: str
) -> None:
    assert card(tmp_path, f"---\n{front}\n---\n") == {}
    assert reason in caplog.text


def test_the_slow_parser_reads_only_short_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    parse = yaml.parse

    def noting(text: str, Loader: Any) -> Any:
        used.append(len(Loader.__mro__) > 5)
        return parse(text, Loader=Loader)

    monkeypatch.setattr(yaml, "parse", noting)
    for lines, parsers in ((10, 2), (20_000, 1)):
        used.clear()
        assert card(tmp_path, "---\n" + "a: b\n" * lines + "x: [\n---\n") == {}
        assert len(used) == parsers


def test_a_card_with_many_results(tmp_path: Path) -> None:
    """Real cards with the results of benchmarks have up to 2 MB."""
    result = "  - task: {type: retrieval}\n    dataset: {name: MTEB, type: mteb/a, split: test}\n    metrics:\n"
    metric = "    - type: ndcg_at_10\n      value: 61.123\n"
    front = "license: mit\nmodel-index:\n- name: m\n  results:\n" + (result + metric * 30) * 1000
    found = card(tmp_path, f"---\n{front}---\n")
    assert len(front) > 1 << 20
    assert len(found["model-index"][0]["results"]) == 1000


@given(st.text() | st.binary())
def test_no_card_breaks_it(tmp_path_factory: pytest.TempPathFactory, text: str | bytes) -> None:
    raw = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    assert isinstance(card(tmp_path_factory.mktemp("card"), b"---\n" + raw), dict)
