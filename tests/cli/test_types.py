from __future__ import annotations

from pathlib import Path

from checkpoints import tiny_llama
from command_line import Forge


def test_a_table_of_types(forge: Forge, tmp_path: Path) -> None:
    done = forge("types", tiny_llama(tmp_path), "--fit", "2M", "--context", "1k")
    assert done.code == 0 and done.err == ""
    lines = done.out.splitlines()
    assert lines[0].split() == ["type", "size", "bits", "of", "F16", "error", "memory", "what", "it", "is", "for"]
    assert any(line.startswith("IQ2_XXS *") for line in lines)
    assert lines[-1].startswith("recommended: ") and max(map(len, lines[:-1])) <= 80


def test_the_object_says_the_same(forge: Forge, tmp_path: Path) -> None:
    found = forge("types", tiny_llama(tmp_path), "--fit", "2M", "--context", "1k", "-t", "Q4_*,Q8_0", "--json").json
    assert {row["type"] for row in found["types"]} == {"Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q8_0"}
    best = next(row for row in found["types"] if row["type"] == found["recommended"])
    assert best["fits"] and best["memory"] <= found["fit"] == 2 << 20


def test_nothing_fits(forge: Forge, tmp_path: Path) -> None:
    assert "nothing to recommend fits into 1.0 kB" in forge("types", tiny_llama(tmp_path), "--fit", "1000").out


def test_a_wrong_size_is_refused(forge: Forge, tmp_path: Path) -> None:
    done = forge("types", tiny_llama(tmp_path), "--fit", "lots")
    assert done.code == 2 and "--fit: invalid size 'lots'" in done.err
