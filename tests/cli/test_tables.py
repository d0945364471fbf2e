"""Tables on narrow terminals."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Forge

from gguf_forge import convert, open_gguf


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
