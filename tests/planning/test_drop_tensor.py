"""`--drop-tensor`: tensors of a checkpoint are left out by their names."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from checkpoints import tiny_llama
from imatrices import write_for_model
from weights import Held, file_of, rewritten

from gguf_forge import InputError, UnsupportedError, UsageError, convert, open_gguf, plan, report
from gguf_forge.cli import main
from gguf_forge.request import Request

STRANGERS = ("probe.0.Weight", "probe.1.Weight", "model.layers.1.mlp.router_probe")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path)


@pytest.fixture
def probed(model: Path, tmp_path: Path) -> Path:
    """A small Llama with three tensors more."""

    def with_more(tensors: dict[str, Held]) -> dict[str, Held]:
        return tensors | {name: ("BF16", [2], bytes(4)) for name in STRANGERS}

    return rewritten(model, tmp_path / "probed", with_more)


@pytest.mark.parametrize(
    "patterns",
    [[r"^probe\.", "router_probe$"], ["probe"], [r"PROBE\.[01]\.weight", "mlp.router"], [r"(^|_)probe(\.|$)"]],
    ids=" ".join,
)
def test_the_file_is_that_of_the_model_without_them(model: Path, probed: Path, patterns: list[str]) -> None:
    assert file_of(probed, drop_tensor=patterns) == file_of(model)


def test_a_note_counts_what_is_left_out(probed: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        plan(probed, drop_tensor=["probe"])
    assert f"{probed}: tensors that are left out: {len(STRANGERS)}" in caplog.messages


def test_a_pattern_that_matches_nothing_is_an_error(probed: Path) -> None:
    with pytest.raises(UsageError, match="drop_tensor='prob3': no tensor has such a name"):
        plan(probed, drop_tensor=["probe", "prob3"])


def test_what_is_no_pattern(probed: Path) -> None:
    with pytest.raises(UsageError, match="pattern"):
        plan(probed, drop_tensor=["("])


def test_a_tensor_that_the_model_needs_is_missed(model: Path) -> None:
    with pytest.raises(InputError, match=r"blk\.1\.ffn_down\.weight"):
        plan(model, drop_tensor=[r"layers\.1\.mlp\.down_proj"])


def test_the_hint_says_which_pattern_helps(model: Path, probed: Path) -> None:
    with pytest.raises(UnsupportedError, match="not known for the") as caught:
        plan(probed, drop_tensor=["router_probe"])
    pattern = str(caught.value.words.hint).partition("--drop-tensor ")[2].strip("'")
    assert pattern == r"^probe\."
    assert file_of(probed, drop_tensor=["router_probe", pattern]) == file_of(model)


def test_nothing_inside_of_layers_is_offered_to_be_left_out(probed: Path) -> None:
    with pytest.raises(UnsupportedError, match="not known for the") as caught:
        plan(probed)
    assert "--drop-tensor" not in str(caught.value.words.hint)


def test_a_gguf_file_is_edited_instead(model: Path, tmp_path: Path) -> None:
    (made,) = convert(model, tmp_path / "a.gguf", types="BF16")
    with pytest.raises(UsageError, match="a GGUF file") as caught:
        plan(made.path, types="Q8_0", drop_tensor=["output"])
    assert "edit --drop-tensor" in str(caught.value.words.hint)


def test_it_is_written_down_in_a_plan(probed: Path) -> None:
    request = Request(source=str(probed), drop_tensor=("probe",))
    assert request.as_json()["drop_tensor"] == ["probe"]


def test_verify_and_report_take_it_too(probed: Path, tmp_path: Path) -> None:
    (made,) = convert(probed, tmp_path / "a.gguf", types="Q8_0", drop_tensor=["probe"])
    assert main(["verify", str(made.path), "--source", str(probed), "--drop-tensor", "probe"]) == 0
    assert main(["verify", str(made.path), "--source", str(probed)]) == UnsupportedError.exit_code
    with open_gguf(made.path) as file:
        n_tensors = len(file.tensors)
    found = report(made.path, source=probed, drop_tensor=["probe"])
    assert (len(found.tensors), found.missing) == (n_tensors, ())
    assert main(["report", str(made.path), "--drop-tensor", "probe"]) == UsageError.exit_code


def test_a_job_takes_it_too(probed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("-t", "Q8_0", "--drop-tensor", "probe", "-o", "a.gguf")
    assert main(["job", "plan", str(probed), *options, "--tasks", "2"]) == 0
    assert [main(["job", "work", "plan.json", "--task", str(task)]) for task in range(2)] == [0, 0]
    assert main(["job", "finish", "plan.json"]) == 0
    (whole,) = convert(probed, tmp_path / "b.gguf", types="Q8_0", drop_tensor=["probe"])
    assert (tmp_path / "a.gguf").read_bytes() == whole.path.read_bytes()


def test_commands_that_look_at_a_checkpoint_take_it_too(probed: Path, tmp_path: Path) -> None:
    assert main(["types", str(probed), "-t", "Q8_0", "--drop-tensor", "probe"]) == 0
    (made,) = convert(probed, tmp_path / "a.gguf", types="BF16", drop_tensor=["probe"])
    matrix = write_for_model(made.path)
    assert main(["imatrix", "show", str(matrix), str(probed), "--drop-tensor", "probe"]) == 0
    assert main(["imatrix", "show", str(matrix), str(probed)]) == UnsupportedError.exit_code
