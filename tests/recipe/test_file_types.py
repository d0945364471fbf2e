from __future__ import annotations

import pytest

from gguf_forge.errors import UsageError
from gguf_forge.recipe import FILE_TYPES, FileType


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Q4_K_M", "Q4_K_M"),
        ("q4_k", "Q4_K_M"),
        ("Q3_K", "Q3_K_M"),
        ("q5_K", "Q5_K_M"),
        ("15", "Q4_K_M"),
        ("0", "F32"),
        ("copy", "COPY"),
        ("AUTO", "auto"),
        ("mxfp4_moe", "MXFP4_MOE"),
        (" bf16 ", "BF16"),
    ],
)
def test_names_aliases_numbers_and_any_case(given: str, name: str) -> None:
    assert FileType.named(given) is FILE_TYPES[name]


@pytest.mark.parametrize("given", ["", "Q7_K", "4", "39", "-1", "Q4_K_XL"])
def test_an_unknown_type_lists_the_known_ones(given: str) -> None:
    with pytest.raises(UsageError, match=r"known file types: F32, F16, .*Q4_K_M.*Q3_K"):
        FileType.named(given)


def test_only_the_types_of_the_converter_are_float() -> None:
    assert {name for name, found in FILE_TYPES.items() if found.is_float} == {"F32", "F16", "BF16", "auto"}


def test_numbers_are_unique() -> None:
    numbers = [found.id for found in FILE_TYPES.values() if found.id is not None]
    assert len(set(numbers)) == len(numbers) == 35


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("q4-k-m", "did you mean Q4_K_M?"),
        ("iq2xxs", "did you mean IQ2_XXS?"),
        ("Q4_K_", "did you mean Q4_K_S or Q4_K_M?"),
        ("nonsense", "known file types: F32"),
    ],
)
def test_a_wrong_name_leads_to_what_it_can_only_mean(name: str, advice: str) -> None:
    with pytest.raises(UsageError) as error:
        FileType.named(name)
    assert str(error.value.hint).startswith(advice)
