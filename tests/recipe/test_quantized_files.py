"""Order, names, types, shapes and keys equal those of files that llama-quantize wrote."""

from __future__ import annotations

from typing import Any

import pytest
import recipe_digests as digests

from gguf_forge.gguf_file.values import Value
from gguf_forge.recipe import make_recipe

CASES = {**digests.stored(), **digests.from_corpus()}
FILES = [
    pytest.param(digest, file, id=f"{case}-{file['base']}-{' '.join(file['args'])}")
    for case, digest in CASES.items()
    for file in digest["files"]
]


def listed(value: Value) -> list[Any]:
    data = list(value.data) if value.element is not None else value.data
    return [value.type.name, value.element.name if value.element is not None else None, data]


@pytest.mark.parametrize(("digest", "file"), FILES)
def test_recipe_equals_the_reference(digest: digests.Digest, file: digests.Digest) -> None:
    base = digest["bases"][file["base"]]
    recipe = make_recipe(
        digests.tensors(base["tensors"]), digests.metadata(base["kv"]), digests.options(file["args"], digest)
    )
    got = [[a.output.name, a.output.type.name, *a.output.shape] for a in recipe.assignments]
    assert got == digests.expand(file["tensors"], base["tensors"])
    keys = [[key, *listed(value)] for key, value in recipe.metadata.items()]
    assert keys == digests.expand(file["kv"], base["kv"])
