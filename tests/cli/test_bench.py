from __future__ import annotations

from command_line import Forge

from gguf_forge.kernels.bench import Workload
from gguf_forge.kernels.binding import backends
from gguf_forge.types.tensor_type import TensorType


def test_bench_as_json_has_every_combination(forge: Forge) -> None:
    wanted = ",".join(backends())
    run = forge("bench", "-t", "q8_0,Q4_K", "--backend", wanted, "--source", "f32,bf16", "--rounds", "1", "--json")
    assert run.code == 0
    found = {(m["kind"], m["work"], m["source"], m["backend"]) for m in run.json["measurements"]}
    assert {(kind, "quantize", source, backend) for kind in ("Q8_0", "Q4_K") for source in ("f32", "bf16")
            for backend in backends()} <= found  # fmt: skip
    assert all(m["million_values_per_second"] > 0 for m in run.json["measurements"])
    assert run.json["copy_gigabytes_per_second"] > 0


def test_bench_as_a_table(forge: Forge) -> None:
    run = forge("bench", "-t", "Q8_0", "--rounds", "1", "--quiet")
    assert run.code == 0
    assert "memory copy" in run.out
    assert run.err == ""


def test_a_type_that_the_other_ggml_may_not_know(forge: Forge) -> None:
    assert forge("bench", "-t", "Q2_0", "--rounds", "1", "--quiet").code == 0


def test_unknown_names_are_usage_errors(forge: Forge) -> None:
    assert forge("bench", "-t", "Q9").code == 2
    assert forge("bench", "--backend", "sse").code == 2
    assert forge("bench", "--source", "f8").code == 2


def test_both_sides_run_once_before_they_are_timed() -> None:
    calls: list[str] = []
    sides = {side: lambda side=side: calls.append(side) for side in ("ours", "theirs")}
    kind = TensorType.named("Q8_0")
    Workload(kind, "quantize", "f32", "portable", 1, 1, 1, **sides, ggml="ggml").timed(1, 1e9)
    assert calls == ["ours", "theirs"] * 2


def test_it_says_how_far_it_is(forge: Forge) -> None:
    said = forge("bench", "-t", "Q8_0,Q4_0", "--backend", "portable", "--rounds", "1").err.splitlines()
    assert [line.split(":")[0] for line in said] == [f"{number} of {len(said)}" for number in range(1, len(said) + 1)]
    assert len(said) > 3


def test_it_says_what_it_measures(forge: Forge) -> None:
    assert "unpacking writes 67 MB" in forge("bench", "-t", "Q8_0", "--rounds", "1", "--quiet").out
