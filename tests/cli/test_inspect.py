"""`inspect`: what it shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import Forge
from raw_gguf import ARRAY, F32_VALUE, STRING, RawTensor, key, raw_gguf, text, write

from gguf_forge import convert
from gguf_forge.cli.shown import escaped, json_value, value_text
from gguf_forge.gguf_file.values import Value, ValueType, array, boolean, f32, string, u32


@pytest.fixture
def source(model: Path, tmp_path: Path) -> Path:
    return convert(model, tmp_path / "m.gguf", types="Q4_K_M")[0].path


def test_keys_tensors_and_types(forge: Forge, source: Path) -> None:
    ran = forge("inspect", source)
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["format", "GGUF", "version", "3,", "little-endian"] in lines
    assert ["general.architecture", "STRING", "llama"] in lines
    assert ["tokenizer.ggml.add_bos_token", "BOOL", "true"] in lines
    assert ["blk.0.attn_q.weight", "256", "x", "256", "Q4_K", "65.54", "K", "36.9", "kB", "4.50"] in lines
    assert any(line[:2] == ["Q4_K", "13"] for line in lines)
    assert "... 825 more]" in ran.out
    only_keys = forge("inspect", source, "--no-tensors").out
    assert "general.architecture" in only_keys
    assert "blk.0" not in only_keys
    only_tensors = forge("inspect", source, "--no-metadata").out
    assert "general.architecture" not in only_tensors
    assert "blk.0" in only_tensors


def test_json(forge: Forge, source: Path) -> None:
    """The names of gguf_dump, and more."""
    found = forge("inspect", source, "--json").json
    assert (found["filename"], found["endian"], found["size"]) == (str(source), "LITTLE", source.stat().st_size)
    assert found["metadata"]["llama.block_count"] == {"index": 4, "type": "UINT32", "value": 2}
    tokens = found["metadata"]["tokenizer.ggml.tokens"]
    assert (tokens["array_types"], tokens["count"], "value" in tokens) == (["STRING"], 831, False)
    assert found["tensors"]["blk.0.attn_q.weight"]["shape"] == [256, 256]
    full = forge("inspect", source, "--json-array", "--no-tensors").json
    assert len(full["metadata"]["tokenizer.ggml.tokens"]["value"]) == 831
    assert full["tensors"] == {}
    assert forge("inspect", source, "--json", "--no-metadata").json["metadata"] == {}


def test_keys_in_full(forge: Forge, tmp_path: Path) -> None:
    template = "one\n{# " + "x" * 200 + " #}\x1b[2J"
    path = write(tmp_path, raw_gguf([key(b"a.b", STRING, text(template.encode())), key(b"a.c", STRING, text(b"c"))]))
    alone = forge("inspect", path, "--key", "a.b").out
    assert alone == template.replace("\x1b", "\\x1b") + "\n"
    assert forge("inspect", path, "--key", "a.*").out.splitlines()[-1] == "a.c = c"
    assert forge("inspect", path, "--key", "a.c", "--json").json["metadata"] == {
        "a.c": {"index": 1, "type": "STRING", "value": "c"}
    }
    missing = forge("inspect", path, "--key", "b")
    assert (missing.code, "no key is called b" in missing.err) == (2, True)


def test_values_of_tensors(forge: Forge, source: Path) -> None:
    ran = forge("inspect", source, "--tensor", "blk.0.attn_[qk].weight", "--block", "5:0", "--bins", "7")
    assert ran.code == 0
    assert "blk.0.attn_q.weight" in ran.out
    assert "blk.0.attn_k.weight" in ran.out
    assert "blk.0.attn_v.weight" not in ran.out
    assert ran.out.count("block 0 of row 5: columns 0 to 255 (Q4_K; bytes in hexadecimal)") == 2
    assert ran.out.count("dmin") == 2
    assert ran.out.count("%") == 2 * (7 + 1)
    views = forge("inspect", source, "--tensor", "blk.0.attn_?.weight", "--block", "5", "--json").json["tensors"]
    assert [view["name"] for view in views] == [f"blk.0.attn_{part}.weight" for part in "kqv"]
    assert sum(views[0]["histogram"]["counts"]) == views[0]["values"]
    assert len(views[0]["block"]["values"]) == 256
    assert sorted(views[0]["block"]["fields"]) == ["d", "dmin", "qs", "scales"]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_blocks_are_whole_on_any_terminal(
    forge: Forge, source: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "blk.0.attn_q.weight"
    block = forge("inspect", source, "--tensor", name, "--block", "5", "--json").json["tensors"][0]["block"]
    monkeypatch.setenv("COLUMNS", str(width))
    shown = forge("inspect", source, "--tensor", name, "--block", "5").out
    lines = shown[shown.index("hexadecimal)") :].splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    assert words[words.index("qs") + 1 : words.index("levels")] == [f"{byte:02x}" for byte in block["fields"]["qs"]]
    assert words[words.index("levels") + 1 : words.index("values")] == [str(level) for level in block["levels"]]
    assert words[words.index("values") + 1 :] == [f"{value:.6g}" for value in block["values"]]


def test_mistakes(forge: Forge, source: Path) -> None:
    for arguments in (["--block", "3"], ["--tensor", "x"], ["--tensor", "output.weight", "--block", "x"]):
        assert forge("inspect", source, *arguments).code == 2
    assert forge("inspect", "missing.gguf").code == 4


HOSTILE = "\x1b]0;owned\x07\r\u202e"


def test_hostile_names_stay_text(forge: Forge, tmp_path: Path) -> None:
    raw = HOSTILE.encode()
    keys = [
        key(raw, STRING, text(raw + b"\xff")),
        key(b"b", ARRAY, (8).to_bytes(4, "little") + (1).to_bytes(8, "little") + text(raw)),
        key(b"nan", F32_VALUE, np.float32("nan").tobytes()),
    ]
    data = np.array([[np.nan] * 32, [1] * 32], np.float32).tobytes()
    path = write(tmp_path, raw_gguf(keys, [RawTensor(raw, (32, 2))], data), name=f"a{HOSTILE}.gguf")
    shown = [forge("inspect", path, *more) for more in ([], ["--tensor", "*", "--block", "0"], ["--key", "*"])]
    shown.append(forge("inspect", path, "--tensor", HOSTILE + "x"))
    assert [ran.code for ran in shown] == [0, 0, 0, 2]
    for ran in shown:
        assert all(char.isprintable() or char == "\n" for char in ran.out + ran.err)
    assert "\\x1b]0;owned\\x07\\r\\u202e" in shown[0].out
    found = json.loads(forge("inspect", path, "--json-array").out, parse_constant=pytest.fail)
    assert found["metadata"]["nan"]["value"] == "nan"
    assert found["metadata"][HOSTILE]["value"] == HOSTILE + "\udcff"
    block = json.loads(
        forge("inspect", path, "--tensor", "*", "--block", "0", "--json").out, parse_constant=pytest.fail
    )
    assert block["tensors"][0]["block"]["values"] == ["nan"]
    assert block["tensors"][0]["nonfinite"] == 32


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (u32(7), "7"),
        (f32(1e-5), "1e-05"),
        (f32(float("-inf")), "-inf"),
        (Value(ValueType.FLOAT64, 0.1), "0.1"),
        (boolean(False), "false"),
        (string("tab\there"), "tab\\there"),
        (string("x" * 20), "xxxxxxxxxx... 10 more characters"),
        (string(b"\xff"), "\\udcff"),
        (array(ValueType.STRING, ["a'b", "c" * 40]), f"[\"a'b\", '{'c' * 32}... 8 more characters']"),
        (array(ValueType.FLOAT32, [np.float32(0.1)] * 7), "[0.1, 0.1, 0.1, 0.1, 0.1, 0.1, ... 1 more]"),
        (array(ValueType.BOOL, []), "[]"),
    ],
)
def test_values(value: Value, shown: str) -> None:
    assert value_text(value, 10) == shown


def test_values_in_json() -> None:
    assert json_value(array(ValueType.FLOAT32, [np.float32(0.1), float("nan")])) == [0.1, "nan"]
    assert json_value(string(b"a\xff")) == "a\udcff"
    assert json_value(boolean(True)) is True
    assert escaped("a\nb\x00", keep="\n") == "a\nb\\x00"


def test_a_folder_leads_to_what_takes_one(forge: Forge, model: Path) -> None:
    run = forge("inspect", model)
    assert run.code == 4
    assert "a model's folder is for `gguf-forge convert`, `plan` and `types`" in run.err


def test_a_later_part_of_a_split_is_shown(forge: Forge, model: Path, tmp_path: Path) -> None:
    line = ("convert", model, "-o", tmp_path / "m.gguf", "--split-max-tensors", "8", "-q")
    assert forge(*line).code == 0
    run = forge("inspect", tmp_path / "m-00002-of-00003.gguf")
    assert run.code == 0
    assert "blk." in run.out
