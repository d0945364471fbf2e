"""Tables on narrow terminals."""

from __future__ import annotations

import cProfile
import io
from pathlib import Path

import pytest
from command_line import Forge
from rich.console import Console

from gguf_forge import convert, open_gguf
from gguf_forge.cli.tables import line, table_of


@pytest.fixture
def files(model: Path, tmp_path: Path) -> tuple[Path, Path]:
    made = convert(model, tmp_path / "m-{ftype}.gguf", types=["Q4_K_M", "Q8_0"])
    return made[0].path, made[1].path


@pytest.mark.parametrize("width", (18, 80))
@pytest.mark.parametrize("command", ("compare", "verify", "verify --all", "plan", "inspect", "types", "imatrix"))
def test_names_stay_in_one_piece(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path], model: Path, command: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    small, large = files
    lines = {
        "compare": ("compare", large, small),
        "verify": ("verify", small, "--source", model, "-t", "Q5_K_M"),
        "verify --all": ("verify", small, "--source", model, "--all"),
        "plan": ("plan", model),
        "inspect": ("inspect", small),
        "types": ("types", model),
        "imatrix": ("imatrix",),
    }
    run = forge(*lines[command])
    with open_gguf(small) as gguf:
        names = [tensor.name for tensor in gguf.tensors]
    if command == "types":
        names = ["Q4_K_M", "Q8_0", "IQ2_XXS *"]
    elif command == "imatrix":
        names = ["  llama-imatrix -m model-BF16.gguf -f calibration.txt -o imatrix.gguf"]
    elif command in ("compare", "verify"):
        names = ["blk.0.attn_q.weight", "blk.0.ffn_down.weight"]
    begins = run.out.splitlines()
    assert all(any(text == name or text.startswith(f"{name} ") for text in begins) for name in names), run.out


def test_columns_that_do_not_fit_are_named(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, files: tuple[Path, Path]
) -> None:
    small, large = files
    monkeypatch.setenv("COLUMNS", "70")
    narrow = forge("compare", large, small).out
    assert "a wider terminal also shows: " in narrow and "cosine" in narrow.split("a wider terminal")[1]
    assert max(map(len, narrow[narrow.index("tensor  ") :].splitlines())) <= 70
    monkeypatch.setenv("COLUMNS", "160")
    assert "a wider terminal" not in forge("compare", large, small).out


def test_a_row_costs_few_calls() -> None:
    """A file can have 50,000 tensors or keys, and rich's own tables make 3,000 calls of Python for each."""

    def calls(n_rows: int) -> int:
        table = table_of("name", "type", "items", "value", right=("items",), folding=("value",), spare=("items",))
        for number in range(n_rows):
            table.add_row(f"blk.{number}.weight", line(("F32", "dim")), "3", "text")
        console = Console(file=io.StringIO(), width=80)
        profile = cProfile.Profile()
        profile.runcall(console.print, table, crop=False)
        return sum(entry.callcount for entry in profile.getstats() if not isinstance(entry.code, str))

    assert (calls(300) - calls(100)) / 200 < 150


def test_only_long_text_is_folded() -> None:
    table = table_of("name", "what it says", folding=("what it says",))
    table.add_row("a", "one two three four five six seven")
    table.add_row("b", line(("short", "bold")))
    console = Console(file=io.StringIO(), width=26)
    console.print(table, crop=False)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "name  what it says",
        "a     one two three four",
        "      five six seven",
        "b     short",
    ]
