from __future__ import annotations

import json

import pytest
import recipe_digests as digests

from gguf_forge.recipe import stays_f32

FLOATS = {1: "F16", 32: "BF16"}
# Families with rules of their own, and files of vision towers, which have others.
OWN_RULES = ("dbrx", "mmproj")


def converted() -> list[tuple[str, str, list[list[object]]]]:
    stored = [(case, digest["bases"]) for case, digest in digests.stored().items()]
    files = [(f"{case}-{name}", base["kv"], base["tensors"]) for case, bases in stored for name, base in bases.items()]
    for path in sorted(digests.CORPUS.glob("*/*/expected/*f16.json")):
        manifest = json.loads(path.read_text())
        if not any(own in str(path) for own in OWN_RULES):
            tensors = [[t["name"], t["type"], *t["shape"]] for t in manifest["tensors"]]
            kv = [[e["key"], e["type"], None, e.get("value")] for e in manifest["kv"]]
            files.append((f"{path.parts[-3]}-{path.stem}", kv, tensors))
    typed = ((name, {entry[0]: entry[3] for entry in kv}, tensors) for name, kv, tensors in files)
    return [
        (name, FLOATS[kv["general.file_type"]], tensors)
        for name, kv, tensors in typed
        if kv.get("general.file_type") in FLOATS
    ]


@pytest.mark.parametrize(("kind", "tensors"), [pytest.param(*rest, id=name) for name, *rest in converted()])
def test_types_equal_those_of_the_converter(kind: str, tensors: list[list[object]]) -> None:
    wrong = [entry for entry in tensors if entry[1] != ("F32" if stays_f32(str(entry[0]), len(entry[2:])) else kind)]
    assert wrong == []


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
