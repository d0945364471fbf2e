"""`plan` and `convert --dry-run`: everything about the file, and no weight read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoints import NARROW, tiny_llama
from command_line import Forge, listing

from gguf_forge import convert
from gguf_forge.errors import RefusedError
from gguf_forge.storage.local.source_file import SourceFile


def test_json_has_every_tensor(forge: Forge, model: Path) -> None:
    ran = forge("convert", model, "--dry-run", "--json")
    assert ran.code == 0
    assert ran.err == ""
    plan = ran.file
    tensors = {tensor["name"]: tensor for tensor in plan["tensors"]}
    assert len(tensors) == 3 + 2 * 9
    n_vocab = tensors["output.weight"]["shape"][1]
    assert tensors["output.weight"] == {
        "name": "output.weight",
        "shape": [256, n_vocab],
        "source_type": "BF16",
        "type": "Q6_K",
        "nbytes": 210 * n_vocab,
        "rule": "mix of Q4_K_M",
    }
    assert tensors["blk.0.attn_k.weight"]["shape"] == [256, 128]
    assert tensors["blk.0.attn_norm.weight"]["type"] == "F32"
    assert plan["type"] == "Q4_K_M"
    assert plan["source_size"] == (model / "model.safetensors").stat().st_size - header_size(model)
    assert plan["disk"]["needed"] == plan["size"] > sum(tensor["nbytes"] for tensor in plan["tensors"])
    assert sum(plan["types"].values()) == len(tensors)


def header_size(model: Path) -> int:
    with (model / "model.safetensors").open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def test_several_types_are_several_files(forge: Forge, model: Path) -> None:
    plan = forge("plan", model, "-t", "q8_0,F16", "-t", "Q4_K", "--json").json
    assert [file["type"] for file in plan["files"]] == ["Q8_0", "F16", "Q4_K_M"]
    assert all(file["tensors"] for file in plan["files"])


def test_plan_is_dry_run_and_takes_its_options(forge: Forge, model: Path) -> None:
    options = ("--overwrite", "-j", "2", "--backend", "portable", "--json")
    plan, dry_run = forge("plan", model, *options).file, forge("convert", model, "--dry-run", *options).file
    assert {**plan, "disk": None} == {**dry_run, "disk": None}


@pytest.mark.parametrize("command", [("plan",), ("convert", "--dry-run")])
def test_reads_no_weight_and_writes_nothing(
    forge: Forge, model: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    read: list[int] = []
    real = SourceFile.read

    def noted(file: SourceFile, offset: int, nbytes: int, **options: Any) -> Any:
        if file.path.suffix == ".safetensors":
            read.append(offset + nbytes)
        return real(file, offset, nbytes, **options)

    monkeypatch.setattr(SourceFile, "read", noted)
    assert forge(*command, model).code == 0
    assert read
    assert max(read) <= header_size(model)
    assert listing(Path()) == []


def test_text_has_tensors_total_and_disk(forge: Forge, model: Path) -> None:
    ran = forge("plan", model)
    lines = ran.out.splitlines()
    assert lines[0].split() == ["Tiny-1.2M-Q4_K_M.gguf", "Q4_K_M"]
    assert any(
        line.split()[:7] == ["blk.1.ffn_down.weight", "256", "x", "256", "BF16", "Q6_K", "53.8"] for line in lines
    )
    assert lines[-1].startswith("disk ")
    assert " free" in lines[-1]
    assert ran.err == ""


def test_text_for_a_pipe_is_not_cut(forge: Forge, tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / ("long" * 40))
    out = tmp_path / ("name" * 40 + ".gguf")
    assert str(out) in forge("plan", folder, "-o", out).out.splitlines()[0]


def test_says_what_would_stop_the_conversion(forge: Forge, model: Path) -> None:
    Path("old.gguf").write_bytes(b"old")
    ran = forge("plan", model, "-o", "old.gguf")
    assert ran.code == 0
    assert "would be refused: old.gguf: already exists" in ran.err
    assert "--overwrite" in ran.err
    assert "overwrite=" not in ran.err
    assert "refused" not in forge("plan", model, "-o", "old.gguf", "--overwrite").err


def test_fallbacks_are_said(forge: Forge, tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path, NARROW)
    ran = forge("plan", folder)
    assert "fallback: " in ran.out
    plan = forge("plan", folder, "--json").file
    assert "blk.0.attn_q.weight" in plan["fallbacks"]
    assert 0.5 < plan["fallback_share"] < 1


def test_what_decided_each_type_is_said(forge: Forge, model: Path) -> None:
    options = ("--tensor-type", "ffn_down=q5_k", "--output-tensor-type", "q8_0")
    rules = {tensor["name"]: tensor["rule"] for tensor in forge("plan", model, *options, "--json").file["tensors"]}
    assert rules["output.weight"] == "--output-tensor-type"
    assert rules["blk.0.ffn_down.weight"] == "--tensor-type ffn_down=Q5_K"
    assert rules["blk.0.attn_norm.weight"] == "never quantized"
    assert rules["blk.0.attn_q.weight"] == "mix of Q4_K_M"
    shown = forge("plan", model, *options).out
    assert "decided by" in shown and "--tensor-type ffn_down=Q5_K" in shown
    assert {tensor["rule"] for tensor in forge("plan", model, "--pure", "--json").file["tensors"]} == {
        "--pure",
        "never quantized",
    }
    assert {tensor["rule"] for tensor in forge("plan", model, "-t", "F16", "--json").file["tensors"]} == {None}


def test_a_type_that_rows_do_not_fit_is_named(forge: Forge, tmp_path: Path) -> None:
    plan = forge("plan", tiny_llama(tmp_path, NARROW), "--json").file
    rules = {tensor["name"]: tensor["rule"] for tensor in plan["tensors"]}
    assert {name for name, rule in rules.items() if rule.startswith("instead of Q")} == set(plan["fallbacks"])


def test_a_gguf_file_is_planned_in_the_usual_type(forge: Forge, model: Path) -> None:
    assert forge("convert", model, "-o", "base.gguf", "-t", "F16").code == 0
    assert forge("plan", "base.gguf", "--json").file["type"] == "Q4_K_M"


def test_strict_refuses_fallbacks(forge: Forge, tmp_path: Path) -> None:
    folder, base, out = tiny_llama(tmp_path, NARROW), tmp_path / "base.gguf", tmp_path / "out.gguf"
    assert forge("convert", folder, "-o", base, "-t", "f32").code == 0
    plan = forge("plan", folder, "--json").file
    count, share = f"{len(plan['fallbacks'])} of {len(plan['tensors'])} tensors", f"{plan['fallback_share']:.1%}"
    for command in (("plan", folder), ("convert", folder, "-o", out), ("quantize", base, out, "Q4_K_M")):
        ran = forge(*command, "--strict")
        assert ran.code == RefusedError.exit_code
        assert f"as Q4_K_M, {count} ({share} of the weights)" in ran.err
        assert f"block size: {plan['fallbacks'][0]} as Q" in ran.err and "leave out --strict" in ran.err
        assert not out.exists()


def test_strict_passes_what_fits(forge: Forge, model: Path, tmp_path: Path) -> None:
    fits = ("--strict", "-t", "Q8_0")
    assert forge("plan", model, *fits).code == 0
    assert forge("convert", tiny_llama(tmp_path / "narrow", NARROW), "-o", tmp_path, *fits).code == 0


def test_options_that_decide_nothing_are_said(forge: Forge, model: Path) -> None:
    ran = forge("plan", model, "--tensor-type", "nothing=q8_0", "--prune-layers", "9")
    assert "warning: --tensor-type nothing=Q8_0 decides no tensor's type" in ran.err
    assert "no layer 9" in ran.err
    assert forge("plan", model, "--tensor-type", "nothing=q8_0", "--quiet").err == ""


@pytest.mark.parametrize(
    ("options", "tensor", "kind"),
    [
        (["--pure"], "output.weight", "Q4_K"),
        (["--leave-output-tensor"], "output.weight", "BF16"),
        (["--output-tensor-type", "q8_0"], "output.weight", "Q8_0"),
        (["--token-embedding-type", "Q5_K"], "token_embd.weight", "Q5_K"),
        (["--tensor-type", "attn_v=q8_0", "--tensor-type", "attn=q5_0"], "blk.0.attn_v.weight", "Q8_0"),
        (["--tensor-type", "attn_v=q8_0", "--tensor-type", "attn=q5_0"], "blk.0.attn_q.weight", "Q5_0"),
        (["--tensor-type-file", "types.txt"], "blk.1.ffn_up.weight", "Q6_K"),
        (["--tensor-type-file", "types.txt", "--tensor-type", "ffn_up=q8_0"], "blk.1.ffn_up.weight", "Q8_0"),
    ],
)
def test_options_of_the_mix(forge: Forge, model: Path, options: list[str], tensor: str, kind: str) -> None:
    Path("types.txt").write_text("ffn_up=q6_k\nffn_gate=q5_k\n")
    plan = forge("plan", model, "--json", *options).file
    assert {found["name"]: found["type"] for found in plan["tensors"]}[tensor] == kind


def test_prune_layers(forge: Forge, model: Path) -> None:
    plan = forge("plan", model, "--json", "--prune-layers", "0").file
    assert {name.split(".")[1] for name in (tensor["name"] for tensor in plan["tensors"]) if name[:3] == "blk"} == {"0"}


def test_vocab_only_has_no_tensors(forge: Forge, model: Path) -> None:
    plan = forge("plan", model, "--json", "--vocab-only").file
    assert plan["tensors"] == []
    assert plan["path"] == "Tiny-vocab.gguf"
    assert "none" in forge("plan", model, "--vocab-only").out


def test_quiet_prints_nothing(forge: Forge, model: Path) -> None:
    ran = forge("plan", model, "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


@pytest.mark.parametrize("out", ["new/", "new/deep/", "new/deep/x.gguf", "new/x-{ftype}.gguf"])
def test_a_folder_that_is_missing_is_made(forge: Forge, model: Path, out: str) -> None:
    planned = forge("plan", model, "-o", out, "--json")
    assert (planned.code, planned.err, listing(Path())) == (0, "", [])
    assert planned.file["disk"]["free"] > 0
    made = forge("convert", model, "-o", out, "--json")
    assert (made.code, made.file["path"]) == (0, planned.file["path"])
    assert Path(made.file["path"]).is_file()


def test_a_missing_folder_that_cannot_be_made_is_a_warning(forge: Forge, model: Path) -> None:
    Path("file").touch()
    ran = forge("plan", model, "-o", "file/new/x.gguf")
    assert ran.code == 0
    assert "converting would be refused: file: Not a directory" in ran.err


@pytest.mark.parametrize("options", [("a" * 300,), ("MODEL", "-o", "a" * 300)])
def test_names_that_are_too_long(forge: Forge, model: Path, options: tuple[str, ...]) -> None:
    ran = forge("convert", *(model if option == "MODEL" else option for option in options))
    assert ran.code in (2, 5)
    assert "long" in ran.err


def test_types_that_need_a_matrix_have_one_warning_together(forge: Forge, tmp_path: Path) -> None:
    err = forge("plan", tiny_llama(tmp_path), "-t", "IQ1_S,IQ2_M,Q8_0", "--summary").err
    assert err == "warning: 2 types would be refused, as they need an importance matrix (--imatrix): IQ1_S, IQ2_M\n"


def test_a_source_with_the_default_type_is_told(forge: Forge, tmp_path: Path) -> None:
    (base,) = convert(tiny_llama(tmp_path), tmp_path, types="Q4_K_M")
    assert "has its type of Q4_K_M already: the weights are only copied" in forge("plan", base.path).err
    assert "only copied" not in forge("plan", base.path, "-t", "COPY").err
