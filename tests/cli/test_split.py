"""`split` and `merge`: what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Forge, listing

from gguf_forge import convert


@pytest.fixture
def source(model: Path, tmp_path: Path) -> Path:
    """A GGUF file of 21 tensors, in a folder of its own."""
    (tmp_path / "in").mkdir()
    return convert(model, tmp_path / "in" / "m.gguf", types="F16")[0].path


NAMES = [f"p-0000{number}-of-00003.gguf" for number in (1, 2, 3)]


def test_there_and_back(forge: Forge, source: Path) -> None:
    ran = forge("split", source, "p", "--split-max-tensors", "8")
    assert ran.code == 0
    assert [line.split()[:2] for line in ran.out.splitlines()[1:4]] == [
        [NAMES[0], "8"],
        [NAMES[1], "8"],
        [NAMES[2], "5"],
    ]
    ran = forge("merge", NAMES[0], "whole.gguf", "--delete-splits")
    assert ran.code == 0
    assert "whole.gguf" in ran.out
    assert listing(Path()) == ["whole.gguf"]


def test_json(forge: Forge, source: Path) -> None:
    made = forge("split", source, "p", "--split-max-size", "1M", "--no-tensor-first-split", "--json").json
    assert made["inputs"] == [str(source)]
    assert made["parts"][0]["tensors"] == []
    assert made["size"] == sum(part["size"] for part in made["parts"])
    assert [part["size"] for part in made["parts"]] == [Path(part["path"]).stat().st_size for part in made["parts"]]
    merged = forge("merge", made["parts"][0]["path"], "whole.gguf", "--json").json
    assert merged["inputs"] == [part["path"] for part in made["parts"]]
    assert len(merged["parts"][0]["tensors"]) == 21
    assert "seconds" in merged


def test_dry_runs_write_nothing(forge: Forge, source: Path) -> None:
    planned = forge("split", source, "p", "--split-max-tensors", "8", "--dry-run", "--json").json
    assert [part["path"] for part in planned["parts"]] == NAMES
    assert "seconds" not in planned
    assert listing(Path()) == []
    forge("split", source, "p", "--split-max-tensors", "8")
    ran = forge("split", source, "p", "--split-max-tensors", "8", "--dry-run")
    assert (ran.code, "this would be refused: p-00001-of-00003.gguf: already exists" in ran.err) == (0, True)
    assert "a.gguf" in forge("merge", NAMES[0], "a.gguf", "--delete-splits", "--dry-run").out
    assert listing(Path()) == NAMES


def test_the_folder_of_the_parts_is_made(forge: Forge, source: Path) -> None:
    planned = forge("split", source, "parts/here/p", "--dry-run")
    assert (planned.code, planned.err, listing(Path())) == (0, "", [])
    assert forge("split", source, "parts/here/p").code == 0
    assert listing(Path("parts/here")) == ["p-00001-of-00001.gguf"]
    assert forge("split", source, "more/p", "--split-max-size", "1", "--split-max-tensors", "1").code == 2
    assert not Path("more").exists()


def test_the_output_as_an_option(forge: Forge, source: Path) -> None:
    assert forge("split", source, "-o", "p", "--split-max-tensors", "8").code == 0
    assert listing(Path()) == NAMES
    assert forge("merge", NAMES[0], "--outfile", "whole.gguf").code == 0
    assert listing(Path()) == [*NAMES, "whole.gguf"]


@pytest.mark.parametrize(("command", "name"), [("split", "PREFIX"), ("merge", "OUT.gguf")])
def test_one_output_is_named(forge: Forge, source: Path, command: str, name: str) -> None:
    none, two = forge(command, source), forge(command, source, "p", "-o", "q")
    assert (none.code, f"name {name} as the second argument, or with -o" in none.err) == (2, True)
    assert (two.code, "the output is given twice" in two.err) == (2, True)


def test_quiet(forge: Forge, source: Path) -> None:
    for command in (("split", source, "p"), ("merge", "p-00001-of-00001.gguf", "whole.gguf")):
        ran = forge(*command, "--quiet")
        assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_mistakes(forge: Forge, source: Path) -> None:
    both = forge("split", source, "p", "--split-max-size", "1M", "--split-max-tensors", "3")
    assert (both.code, "leave one of them out" in both.err) == (2, True)
    assert forge("split", source, "p", "--split-max-size", "1,5G").code == 2
    assert forge("split", source, "p", "--split-max-tensors", "0").code == 2
    assert forge("merge", source, "p").code == 4
    assert listing(Path()) == []
