"""`gguf-forge report`."""

from __future__ import annotations

from pathlib import Path

from command_line import Forge

from gguf_forge import convert


def test_a_page_of_each_file_has_a_name_of_its_own(forge: Forge, model: Path, tmp_path: Path) -> None:
    made = convert(model, tmp_path / "m.gguf", types="Q8_0")[0].path
    for name in ("tiny-v1.0.gguf", "tiny-v1.1", "0a1b2c"):
        file = made.with_name(name)
        file.hardlink_to(made)
        assert forge("report", file, "--quiet").code == 0
    assert sorted(page.name for page in Path().iterdir()) == ["0a1b2c.html", "tiny-v1.0.html", "tiny-v1.1.html"]


def test_json_makes_a_page_only_where_one_is_named(forge: Forge, model: Path, tmp_path: Path) -> None:
    made = convert(model, tmp_path / "m.gguf", types="Q8_0")[0].path
    assert forge("report", made, "--json").json["page"] is None
    assert not list(Path().iterdir())
    assert forge("report", made, "--json", "-o", "page.html").json["page"] == "page.html"
    assert Path("page.html").read_text().startswith("<!DOCTYPE html>")


def test_a_source_of_which_nothing_can_be_compared(forge: Forge, model: Path, tmp_path: Path) -> None:
    made = convert(model, tmp_path / "m.gguf", types="Q8_0")[0].path
    norms = tmp_path / "norms.gguf"
    assert forge("edit", made, "-o", norms, "--rename-tensor", "^=other.").code == 0
    for of in ([], ["--json"], ["-o", "page.html"]):
        run = forge("report", made, "--source", norms, *of)
        assert run.code == 2 and "nothing can be compared" in run.err
    assert not list(Path().iterdir())


def test_numbers_are_told_as_plain_text(forge: Forge, model: Path, tmp_path: Path) -> None:
    made = convert(model, tmp_path / "m.gguf", types="Q8_0")[0].path
    told = forge("report", made, "--source", model).out
    assert " %" in told
    assert " dB" in told
    assert "\\x" not in told
