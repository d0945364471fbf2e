from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import tiny_llama
from command_line import Forge

from gguf_forge import convert


def test_a_table_of_types(forge: Forge, tmp_path: Path) -> None:
    done = forge("types", tiny_llama(tmp_path), "--fit", "2M", "--context", "128")
    assert done.code == 0 and done.err == ""
    lines = done.out.splitlines()
    assert lines[0].split() == ["type", "size", "bits", "of", "F16", "error", "memory", "what", "it", "is", "for"]
    assert any(line.startswith("IQ2_XXS *") for line in lines)
    assert lines[-1].startswith("recommended: ") and max(map(len, lines[:-1])) <= 80
    (marked,) = (line.split()[0] for line in lines if " <- " in line)
    assert lines[-1].startswith(f"recommended: {marked}, ")


def test_the_object_says_the_same(forge: Forge, tmp_path: Path) -> None:
    found = forge("types", tiny_llama(tmp_path), "--fit", "2M", "--context", "128", "-t", "Q4_*,Q8_0", "--json").json
    assert {row["type"] for row in found["types"]} == {"Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q8_0"}
    best = next(row for row in found["types"] if row["type"] == found["recommended"])
    assert best["fits"] and best["memory"] <= found["fit"] == 2_000_000


def test_nothing_fits(forge: Forge, tmp_path: Path) -> None:
    out = forge("types", tiny_llama(tmp_path), "--fit", "1k", "-t", "Q4_K_M,Q8_0").out
    assert "nothing to recommend fits into 1.0 kB: Q4_K_M needs " in out


@pytest.mark.parametrize(
    ("types", "reason"),
    [
        ("IQ1_S,IQ2_M", ": without an importance matrix (--imatrix), none of IQ1_S, IQ2_M can be made\n"),
        ("F16,TQ1_0", ": no type for running any model is among TQ1_0, F16\n"),
    ],
)
def test_the_reason_is_not_the_memory_where_that_suffices(
    forge: Forge, tmp_path: Path, types: str, reason: str
) -> None:
    out = forge("types", tiny_llama(tmp_path), "--fit", "1G", "-t", types).out
    assert out.endswith(f"nothing to recommend{reason}")


def test_types_that_would_fit_with_a_matrix_are_named(forge: Forge, tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    memory = {row["type"]: row["memory"] for row in forge("types", model, "--context", "64", "--json").json["types"]}
    fit = f"{memory['IQ1_S'] + 1}B"
    out = forge("types", model, "--context", "64", "--fit", fit, "-t", "IQ1_S,Q8_0").out
    assert out.endswith("; IQ1_S would, with an importance matrix (--imatrix)\n")


def test_the_memory_is_shown_for_a_context_alone(forge: Forge, tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    assert "memory" not in forge("types", model, "-t", "Q8_0").out
    assert "keys and values for 1,024 tokens" in forge("types", model, "-t", "Q8_0", "--context", "1k").out


def test_a_context_longer_than_the_model_s_is_warned_of(forge: Forge, tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    longest = forge("types", model, "-t", "Q8_0", "--json").json["longest_context"]
    assert forge("types", model, "-t", "Q8_0", "--context", str(longest)).err == ""
    done = forge("types", model, "-t", "Q8_0", "--context", str(longest + 1))
    assert f"warning: {longest + 1:,} tokens are more than the {longest:,} that the model was made for" in done.err


def test_notes_are_not_repeated(forge: Forge, tmp_path: Path) -> None:
    notes = forge("types", tiny_llama(tmp_path), "-t", "IQ1_S,IQ2_M", "-v").err.splitlines()
    assert notes and len(notes) == len(set(notes))


def test_the_help_names_the_default_of_each_command(forge: Forge) -> None:
    defaults = {"types": "[default: all]", "demo": "[default: Q4_K_M]", "convert": "quantized itself, auto]"}
    for command, default in defaults.items():
        words = " ".join(forge(command, "--help").out.replace("│", " ").split())
        assert default in words, command


def test_stars_and_empty_errors_are_explained(forge: Forge, tmp_path: Path) -> None:
    out = forge("types", tiny_llama(tmp_path), "-t", "IQ1_S,IQ2_M").out
    assert "* needs an importance matrix" in out and "no error: " in out


def test_a_quantized_source_is_told(forge: Forge, tmp_path: Path) -> None:
    (base,) = convert(tiny_llama(tmp_path), tmp_path, types="Q8_0")
    assert "needs --allow-requantize" in forge("types", base.path, "-t", "Q4_K_M").out
    rows = forge("types", base.path, "-t", "Q4_K_M,Q8_0", "--json").json["types"]
    assert {row["type"]: row["needs_requantize"] for row in rows} == {"Q4_K_M": True, "Q8_0": False}


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--fit", "lots", "--fit: invalid size 'lots'"),
        ("--fit", "8", "hint: did you mean --fit 8G?"),
        ("--fit", "7.5", "hint: did you mean --fit 7.5G?"),
        ("--context", "lots", "use one such as 4096, or 32k"),
        ("--context", "8192.5", "'8192.5' is no number of tokens"),
        ("--context", "8G", "'8G' is no number of tokens"),
        ("--context", "0", "'0' is no number of tokens"),
    ],
)
def test_a_wrong_size_is_refused(forge: Forge, tmp_path: Path, option: str, value: str, words: str) -> None:
    done = forge("types", tiny_llama(tmp_path), option, value)
    assert done.code == 2 and words in done.err
