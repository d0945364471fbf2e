from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import recipe_digests as digests
from corpus import CORPUS, Cases, skip_if_not_reached

from gguf_forge.cli import main
from gguf_forge.recipe import stays_f32

FLOATS = {1: "F16", 32: "BF16"}
# Families with rules of their own, and files of vision towers, which have others.
OWN_RULES = ("dbrx", "mmproj")
# What the converter's classes of a few families force; there the plan of a whole file must say so.
FORCED = re.compile(r"d2t|blk\.\d+\.(hc_(attn|ffn)_fn|indexer_compressor_(ape|gate)|indexer\.[kq]_proj)\.weight")


def converted() -> list[tuple[str, str, list[list[object]], Path | None]]:
    stored = [(case, digest["bases"]) for case, digest in digests.stored().items()]
    files: list[tuple[str, list[list[object]], list[list[object]], Path | None]] = [
        (f"{case}-{name}", base["kv"], base["tensors"], None) for case, bases in stored for name, base in bases.items()
    ]
    for path in sorted(CORPUS.glob("*/*/expected/*f16.json")):
        manifest = json.loads(path.read_text())
        if not any(own in str(path) for own in OWN_RULES):
            tensors = [[t["name"], t["type"], *t["shape"]] for t in manifest["tensors"]]
            kv = [[e["key"], e["type"], None, e.get("value")] for e in manifest["kv"]]
            files.append((f"{path.parts[-3]}-{path.stem}", kv, tensors, path))
    typed = ((name, {entry[0]: entry[3] for entry in kv}, *rest) for name, kv, *rest in files)
    return [
        (name, FLOATS[kv["general.file_type"]], *rest)
        for name, kv, *rest in typed
        if kv.get("general.file_type") in FLOATS
    ]


@pytest.mark.parametrize(("kind", "tensors", "path"), [pytest.param(*rest, id=name) for name, *rest in converted()])
def test_types_equal_those_of_the_converter(
    kind: str,
    tensors: list[list[object]],
    path: Path | None,
    cases: Cases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    wrong = [entry for entry in tensors if entry[1] != ("F32" if stays_f32(str(entry[0]), len(entry[2:])) else kind)]
    assert [entry for entry in wrong if not FORCED.fullmatch(str(entry[0]))] == []
    if not wrong:
        return
    assert path is not None
    case, arguments = cases.arguments(path, tmp_path)
    monkeypatch.chdir(case)
    code = main(["convert", "--dry-run", "--json", *arguments, "-o", str(tmp_path / "out.gguf"), "-t", kind])
    out, err = capfd.readouterr()
    skip_if_not_reached(path, code, err)
    planned = {tensor["name"]: tensor["type"] for tensor in json.loads(out)["files"][0]["tensors"]}
    assert {str(name): planned.get(str(name)) for name, *_ in wrong} == {name: given for name, given, *_ in wrong}


@pytest.mark.parametrize(
    ("name", "n_dims", "stays"),
    [
        ("blk.0.attn_q.weight", 2, False),
        ("blk.0.attn_q.weight", 1, True),
        ("blk.0.attn_q.bias", 2, True),
        ("blk.0.attn_q.weight.lora_a", 2, False),
        ("blk.0.attn_q_norm.weight", 2, True),
        ("blk.12.ffn_gate_inp.weight", 2, True),
        ("blk.12.ffn_gate_inp_shexp.weight", 2, True),
        ("blk.x.ffn_gate_inp.weight", 2, False),
        ("v.blk.0.ffn_gate_inp.weight", 2, False),
        ("position_embd.weight", 2, True),
        ("v.position_embd.weight", 2, True),
        ("blk.0.position_embd.weight", 2, False),
        ("blk.0.indexer.proj.weight", 2, True),
        ("blk.0.indexerXproj.weight", 2, False),
        ("posnet.3.norm2.weight", 2, True),
        ("token_embd.weight", 2, False),
    ],
)
def test_names(name: str, n_dims: int, stays: bool) -> None:
    assert stays_f32(name, n_dims) is stays
