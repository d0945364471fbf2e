"""No command replaces a file that it reads, also not with --overwrite, and also not one of the small ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import NARROW, tiny_llama

from gguf_forge import convert
from gguf_forge.cli import main
from gguf_forge.errors import RefusedError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint `Tiny` and the file `m.gguf` made of it."""
    convert(tiny_llama(tmp_path, NARROW), tmp_path / "m.gguf", types="F16")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "model.safetensors"])
@pytest.mark.parametrize(
    "words",
    [
        "convert Tiny -t Q8_0 -o Tiny/{}",
        "plan Tiny --save-plan Tiny/{}",
        "job plan Tiny --save-plan Tiny/{}",
        "verify m.gguf --source Tiny --write-sums Tiny/{}",
        "report m.gguf --source Tiny -o Tiny/{}",
    ],
)
def test_no_file_of_the_model_is_replaced(
    here: Path, words: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (here / "Tiny" / name).read_bytes()
    assert main([*words.format(name).split(), "--overwrite"]) == RefusedError.exit_code
    assert "the output is one of the inputs" in capsys.readouterr().err
    assert (here / "Tiny" / name).read_bytes() == before


def test_the_end_of_a_job_replaces_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (here / "Tiny" / "tokenizer.model").read_bytes()
    main(["job", "plan", "Tiny", "-t", "Q8_0", "-o", "Tiny/tokenizer.model", "--tasks", "1", "-q"])
    main(["job", "work", "plan.json", "--task", "0", "-q"])
    assert main(["job", "finish", "plan.json", "--overwrite"]) == RefusedError.exit_code
    assert "the output is one of the inputs" in capsys.readouterr().err
    assert (here / "Tiny" / "tokenizer.model").read_bytes() == before


def test_a_list_of_sums_that_is_read_is_not_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "m.gguf", "--write-sums", "sums", "-q"]) == 0
    words = ["verify", "m.gguf", "--check-sums", "sums", "--write-sums", "sums", "--overwrite"]
    assert main(words) == RefusedError.exit_code
    assert "the output is one of the inputs" in capsys.readouterr().err


def test_plans_and_sums_beside_a_model_may_be_replaced(here: Path) -> None:
    for words in (
        "job plan Tiny --save-plan Tiny/plan.json",
        "verify m.gguf --source Tiny --write-sums Tiny/SHA256SUMS.txt",
    ):
        assert main([*words.split(), "-q"]) == 0
        assert main([*words.split(), "--overwrite", "-q"]) == 0
