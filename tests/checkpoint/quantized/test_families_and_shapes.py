"""Every variant of every scheme in models of several kinds, in shapes that no case of the corpus has.

The values that the formats stand for are computed with NumPy from their definitions, and those of the files are read by
gguf-py.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import CORPUS, Cases
from gguf import GGUFReader, dequantize
from quantized_models import FAMILY, RUNS, Sizes, digest_of_values, make, matrices
from quantized_variants import VARIANTS

from gguf_forge import convert, verify_gguf
from gguf_forge.checkpoint import Checkpoint
from gguf_forge.checkpoint.logical import logical_tensors
from gguf_forge.checkpoint.quantized import schemes
from gguf_forge.checkpoint.quantized.scheme import Quantization
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.dequantized import stored_as

TESTS = Path(__file__).parents[2]
# Made by reference/make_quantized_variants.py and reference/make_quantized_values.py.
BY_REFERENCE: dict[str, dict[str, Any] | None] = json.loads((TESTS / "quantized_variants.json").read_text())
BY_LIBRARY: dict[str, dict[str, str]] = json.loads((TESTS / "quantized_values.json").read_text())


def misread(variant: str) -> bool:
    """Whether the reference converts a variant, and the file is wrong."""
    return VARIANTS[variant].is_misread


# The schemes that only one family can have, tested in test_packed_experts.py: stacks of GPT-OSS's experts, whose rows
# of gate and up take turns.
_OF_ONE_FAMILY = {"MXFP4": "gpt-oss"}
_ROLES = ("self_attn.q_proj", "mlp.up_proj")


@pytest.mark.parametrize(("family", "sizes"), RUNS)
@pytest.mark.parametrize("variant", [name for name, runs in BY_REFERENCE.items() if runs is None or misread(name)])
def test_the_values_of_what_the_reference_refuses(variant: str, family: str, sizes: Sizes, tmp_path: Path) -> None:
    made = make(family, sizes, VARIANTS[variant], tmp_path / "hf")
    (file,) = convert(made.folder, tmp_path / "m.gguf", types="F32", pre_tokenizer=made.pre_tokenizer)
    found = {
        tensor.name: dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        for tensor in GGUFReader(file.path).tensors
    }
    for name, wanted in made.values.items():
        values = found[name]
        scale = found.get(name.replace(".weight", ".scale"))  # what NVFP4's blocks have no place for
        if scale is not None:
            values = values * scale.reshape(-1, *[1] * (values.ndim - 1))
        np.testing.assert_array_equal(values, wanted, err_msg=name)


@pytest.mark.parametrize("variant", sorted(BY_LIBRARY))
def test_the_values_are_those_of_the_library(variant: str) -> None:
    values = (VARIANTS[variant].make("model", given)[1] for _, given in matrices(VARIANTS[variant]))
    assert digest_of_values(values) == BY_LIBRARY[variant]["sha256"]


@pytest.mark.parametrize(("variant", "run"), [(name, run) for name, runs in BY_REFERENCE.items() for run in runs or ()])
def test_the_file_is_that_of_the_reference(variant: str, run: str, tmp_path: Path) -> None:
    family, sizes = next((family, sizes) for family, sizes in RUNS if run == f"{family} {sizes.width}")
    made = make(family, sizes, VARIANTS[variant], tmp_path / "hf")
    words = {"pre_tokenizer": made.pre_tokenizer, "as_reference": misread(variant)}
    (file,) = convert(made.folder, tmp_path / "m.gguf", types="auto", **words)
    data = file.path.read_bytes()
    found = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert found == (BY_REFERENCE[variant] or {})[run]


@pytest.mark.parametrize("variant", [name for name in VARIANTS if misread(name)])
def test_the_file_is_another_one_where_the_reference_is_wrong(variant: str, tmp_path: Path) -> None:
    family, sizes = RUNS[0]
    made = make(family, sizes, VARIANTS[variant], tmp_path / "hf")
    words = {"pre_tokenizer": made.pre_tokenizer}
    right, wrong = (
        convert(made.folder, tmp_path / f"{wrong}.gguf", types="auto", as_reference=wrong, **words)[0].path
        for wrong in (False, True)
    )
    # Keys show whose file it is; weights alone do not.
    assert verify_gguf(wrong, made.folder, as_reference="16 bits" not in variant, **words).ok
    kinds = [GGUFReader(path).fields["general.file_type"].contents() for path in (right, wrong)]
    assert kinds == ([32, 39] if "16 bits" in variant else [32, 32])
    assert right.read_bytes() != wrong.read_bytes()


@pytest.mark.parametrize(("family", "sizes"), [RUNS[0], RUNS[2]])
@pytest.mark.parametrize("variant", ["FP8 in blocks", "ModelOpt FP8", "ModelOpt FP8 and NVFP4"])
def test_verify_finds_that_fp8_became_q8_0(variant: str, family: str, sizes: Sizes, tmp_path: Path) -> None:
    made = make(family, sizes, VARIANTS[variant], tmp_path / "hf")
    words = {"pre_tokenizer": made.pre_tokenizer}
    (file,) = convert(made.folder, tmp_path / "q8.gguf", types="auto", fp8_as_q8=True, **words)
    assert verify_gguf(file.path, made.folder, **words).ok


def test_every_scheme_is_reached_in_two_families_and_two_new_shapes(cases: Cases) -> None:
    taken = shapes_of_cases(cases)
    for name, variant in VARIANTS.items():
        reached = {
            (family, shape)
            for family, sizes in RUNS
            for shape in FAMILY[family].projections(sizes).values()
            if variant.fits(shape)
        }
        assert len({family for family, _ in reached}) >= 2, name
        assert len({shape for _, shape in reached} - taken) >= 2, name


def test_every_scheme_has_a_variant_or_belongs_to_one_family(tmp_path: Path) -> None:
    found = set(_OF_ONE_FAMILY)
    values = np.random.default_rng(1).standard_normal((96, 192), np.float32)
    for variant in VARIANTS.values():
        parts: dict[str, Any] = {f"{role}{end}": None for role in _ROLES for end in variant.make(role, values)[0]}
        said = variant.config.get("quantization_config") or {"quant_method": "mlx" if variant.config else "quanto"}
        quantization = Quantization(said, LocalFolder(tmp_path))
        found.add(next(scheme.name for scheme in schemes() if scheme.fits(quantization, parts)))
    assert found == {scheme.name for scheme in schemes()}


def shapes_of_cases(cases: Cases) -> set[tuple[int, ...]]:
    """The shapes of all quantized matrices of the corpus."""
    shapes: set[tuple[int, ...]] = set()
    for case in sorted(CORPUS.glob("quantized/*")):
        with Checkpoint.of(LocalFolder(cases.folder_of(case) / "hf")) as checkpoint:
            found = logical_tensors(checkpoint).values()
            shapes |= {expr.shape[-2:] for expr in found if stored_as(expr) not in ("BF16", "F16", "F32")}
    return shapes
