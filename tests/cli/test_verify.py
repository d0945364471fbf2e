"""`gguf-forge verify` and `gguf-forge compare`."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

import pytest
from command_line import Forge
from raw_gguf import RawTensor, raw_gguf, write

from gguf_forge import convert, open_gguf


@pytest.fixture
def made(model: Path, tmp_path: Path) -> Path:
    return convert(model, tmp_path / "m.gguf", types="Q4_K_M")[0].path


@pytest.fixture
def damaged(made: Path) -> Path:
    path = made.with_name("damaged.gguf")
    raw = bytearray(made.read_bytes())
    with open_gguf(made) as gguf:
        tensor = next(t for t in gguf.tensors if t.name == "blk.0.attn_q.weight")
    raw[tensor.offset + 2 * 144 + 7] ^= 0x20
    path.write_bytes(raw)
    return path


def test_a_right_file(forge: Forge, made: Path, model: Path) -> None:
    run = forge("verify", made, "--source", model)
    assert run.code == 0
    assert run.out.startswith(f"{made}  verified") and "structure  ok" in run.out
    assert "All 21 tensors are identical to a fresh conversion" in run.out
    assert "rows permuted for rotary embedding, 4 heads, packed to Q4_K" in run.out
    alone = forge("verify", made)
    assert alone.out.startswith(f"{made}  no problem found (nothing compared)")
    assert "not compared with a source (only --source or --check-sums shows changed weights)" in " ".join(
        alone.out.split()
    )


def test_a_wrong_file(forge: Forge, damaged: Path, model: Path) -> None:
    run = forge("verify", damaged, "--source", model)
    assert run.code == 7
    for text in (
        "DIFFERS",
        "blk.0.attn_q.weight, Q4_K of 256 x 256",
        "model.layers.0.self_attn.q_proj.weight",
        "row 2, block 0, scales[3] (byte 295 of the tensor)",
        "1 of 256 blocks (0.391 %), 1 bytes",
        "Damaged: a few blocks of 1 tensor",
    ):
        assert text in run.out
    assert run.err == ""
    quiet = forge("verify", damaged, "--source", model, "--quiet")
    assert (quiet.code, quiet.out) == (7, "")


def test_a_folder_of_another_name(forge: Forge, made: Path, model: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(model, tmp_path / "mydl"))
    run = forge("verify", made, "--source", other)
    assert run.code == 0 and "verified" in run.out
    assert "general.name" in run.out and "--model-name" in run.out
    source = forge("verify", made, "--source", other, "--json").json["source"]
    assert source["verdict"] == "identical" and source["metadata"] == []
    assert "general.name" in {each["key"] for each in source["names"]}
    assert forge("verify", made, "--source", other, "--model-name", "Mydl").code == 7


def test_a_key_that_was_set_afterwards(forge: Forge, made: Path, model: Path) -> None:
    assert forge("edit", made, "--set", "general.license=str:mit").code == 0
    run = forge("verify", made, "--source", model)
    assert run.code == 7 and run.out.startswith(f"{made}  tensors verified; metadata differs")
    assert "--only-tensors" in run.out and "--override-kv names a key" in run.out
    for option in (["--only-tensors"], ["--override-kv", "general.license=str:mit"]):
        right = forge("verify", made, "--source", model, *option)
        assert right.code == 0 and right.out.startswith(f"{made}  verified") and "note: " not in right.out


def test_other_tensors_and_keys_differ(forge: Forge, damaged: Path, model: Path) -> None:
    assert forge("edit", damaged, "--set", "general.license=str:mit").code == 0
    run = forge("verify", damaged, "--source", model)
    assert run.code == 7 and run.out.startswith(f"{damaged}  DIFFERS") and "--only-tensors" not in run.out


def test_a_name_in_a_gguf_source_is_no_folders_name(forge: Forge, made: Path, model: Path, tmp_path: Path) -> None:
    base = convert(model, tmp_path / "base.gguf", types="BF16", model_name="Another")[0].path
    run = forge("verify", made, "--source", base)
    assert run.code == 7 and "metadata differs" in run.out and "general.name" in run.out


def test_json(forge: Forge, damaged: Path, made: Path, model: Path) -> None:
    run = forge("verify", damaged, "--source", model, "--json")
    assert run.code == 7 and not run.json["ok"]
    found = run.json["source"]
    assert (found["verdict"], found["metadata"], found["out_of_order"]) == ("damaged", [], None)
    [wrong] = [tensor for tensor in found["tensors"] if tensor["verdict"] != "identical"]
    first = wrong["differences"]["first"]
    assert (wrong["name"], first["row"], first["block"], first["field"]) == ("blk.0.attn_q.weight", 2, 0, "scales[3]")
    assert first["expected"] ^ first["found"] == 0x20
    assert wrong["steps"][0].startswith("rows permuted")
    right = forge("verify", made, "--json")
    assert right.code == 0 and right.json["ok"] and right.json["source"] is None


def test_sums(forge: Forge, made: Path, damaged: Path) -> None:
    ran = forge("verify", made, "--write-sums", "sums")
    assert (ran.code, "written to sums" in ran.out) == (0, True)
    assert forge("verify", made, "--check-sums", "sums").code == 0
    run = forge("verify", damaged, "--check-sums", "sums")
    assert run.code == 7 and "wrong: damaged.gguf:blk.0.attn_q.weight" in run.out
    assert forge("verify", made, "--write-sums", "sums").code == 8
    assert forge("verify", made, "--write-sums", "sums", "--overwrite").code == 0


def test_one_list_for_all_files_of_a_folder(forge: Forge, made: Path, damaged: Path) -> None:
    files = [made, damaged, Path(shutil.copy(made, made.with_name("third.gguf")))]
    Path("SHA256SUMS").write_text("".join(f"{sha256(each.read_bytes()).hexdigest()}  {each.name}\n" for each in files))
    for file in files:
        run = forge("verify", file, "--check-sums", "SHA256SUMS")
        assert run.code == 0 and "1 match, 2 for other files" in run.out
    stranger = made.rename(made.with_name("fourth.gguf"))
    run = forge("verify", stranger, "--check-sums", "SHA256SUMS")
    assert (run.code, run.out) == (4, "") and "SHA256SUMS: no checksum in it is for fourth.gguf" in run.err


def test_a_digest_is_pasted(forge: Forge, made: Path) -> None:
    assert forge("verify", made, "--check-sums", sha256(made.read_bytes()).hexdigest()).code == 0
    assert forge("verify", made, "--check-sums", "0" * 64).code == 7


def test_what_was_given_is_looked_at_before_the_file_is_read(forge: Forge, made: Path, model: Path) -> None:
    Path("sums").write_text("not sums")
    mistakes: list[tuple[list[object], int]] = [
        (["--source", "no-such-model"], 4),
        (["--source", model, "--imatrix", "no-such-matrix"], 4),
        (["--check-sums", "no-such-sums"], 4),
        (["--check-sums", "sums"], 4),
        (["--write-sums", "sums"], 8),
        (["--write-sums", "sums/in-a-file"], 5),
    ]
    for options, code in mistakes:
        with patch("gguf_forge.toolbox.verify.verify.problems_of", side_effect=AssertionError("the file was read")):
            run = forge("verify", made, *options)
        assert (run.code, run.out) == (code, ""), options
        assert Path(str(options[-1])).parts[0] in run.err


def test_no_sums_of_a_wrong_file(forge: Forge, damaged: Path, model: Path) -> None:
    assert forge("verify", damaged, "--source", model, "--write-sums", "sums").code == 7
    assert not Path("sums").exists()


def test_options_of_the_source_need_one(forge: Forge, made: Path) -> None:
    for option in (["--pure"], ["--base-type", "F16"], ["--only-tensors"], ["--allow-fused"]):
        run = forge("verify", made, *option)
        assert run.code == 2 and "--source" in run.err


def test_a_broken_file(forge: Forge, made: Path) -> None:
    made.write_bytes(made.read_bytes()[:50_000])
    assert forge("verify", made).code == 4


def test_all_tensors(forge: Forge, made: Path, model: Path) -> None:
    run = forge("verify", made, "--source", model, "--all")
    assert run.out.count(" identical  ") == 21


def test_hostile_names_are_escaped(forge: Forge, tmp_path: Path) -> None:
    name = b"\x1b]0;owned\x07"
    paths = [
        write(tmp_path, raw_gguf([], [RawTensor(name, (16,), 1)], bytes([0, fill]) * 16), f"{fill}.gguf")
        for fill in (0x7C, 0x7D)
    ]
    for run in (forge("verify", paths[0]), forge("compare", *paths)):
        assert run.code == 7
        assert "\x1b" not in run.out and "\x07" not in run.out and "owned" in run.out


def test_compare(forge: Forge, made: Path, damaged: Path) -> None:
    same = forge("compare", made, made)
    assert same.code == 0 and same.out.startswith("the same")
    run = forge("compare", made, damaged)
    assert run.code == 7
    assert "20 same, 1 different" in run.out and "blk.0.attn_q.weight" in run.out
    assert "blk.0.attn_k.weight" in forge("compare", made, damaged, "--all").out
    quiet = forge("compare", made, damaged, "-q")
    assert (quiet.code, quiet.out) == (7, "")


def test_an_overall_figure_ranks_two_files(forge: Forge, made: Path, model: Path, tmp_path: Path) -> None:
    base, coarse = (convert(model, tmp_path / f"{kind}.gguf", types=kind)[0].path for kind in ("BF16", "Q2_K"))
    fine = forge("compare", base, made, "--json").json["overall"]
    worse = forge("compare", base, coarse, "--json").json["overall"]
    assert 0 < fine["relative"] < worse["relative"] < 1 and fine["snr_db"] > worse["snr_db"] > 0
    assert f"relative RMSE {fine['relative']:.2%} ({fine['snr_db']:.1f} dB)" in forge("compare", base, made).out
    assert forge("compare", made, made, "--json").json["overall"] is None


def test_keys_of_a_split_are_told_and_do_not_count(forge: Forge, made: Path, tmp_path: Path) -> None:
    assert forge("split", made, tmp_path / "p", "--split-max-tensors", "10").code == 0
    assert forge("merge", tmp_path / "p-00001-of-00003.gguf", tmp_path / "back.gguf").code == 0
    run = forge("compare", made, tmp_path / "back.gguf")
    assert run.code == 0 and "no difference but in split.no" in run.out
    assert forge("compare", made, made).out.count("split.") == 0


def test_compare_json(forge: Forge, made: Path, model: Path, tmp_path: Path) -> None:
    other = convert(model, tmp_path / "bf16.gguf", types="BF16", model_name="Another")[0].path
    run = forge("compare", other, made, "--json")
    assert run.code == 7 and not run.json["same"]
    keys = {each["key"]: each for each in run.json["metadata"]}
    assert keys["general.name"]["expected"] == {"type": "STRING", "value": "Another"}
    tensor = next(each for each in run.json["tensors"] if each["name"] == "blk.0.attn_q.weight")
    assert tensor["distance"]["snr_db"] > 20 and tensor["a"]["type"] == "BF16"
    tensors = forge("compare", other, made, "--json", "--only-tensors").json
    assert tensors["metadata"] == [] and tensors["same_order"]
    assert json.dumps(tensors, allow_nan=False)
