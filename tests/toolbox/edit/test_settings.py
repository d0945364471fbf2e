from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gguf_headers import HEADERS, INTEGERS
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge import UsageError
from gguf_forge.cli.shown import type_text
from gguf_forge.gguf_file.values import Metadata, Value, ValueType, array, boolean, f32, string, u32
from gguf_forge.toolbox.edit.settings import UntypedValue, parse_setting, typed

U64 = Value(ValueType.UINT64, 1)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("a=int:7", "a", u32(7)),
        ("a=float:1e-5", "a", f32(1e-5)),
        ("a=bool:true", "a", boolean(True)),
        ("a=str:", "a", string("")),
        ("a=str:x=y:z", "a", string("x=y:z")),
        ("a=u64:18446744073709551615", "a", Value(ValueType.UINT64, 2**64 - 1)),
        ("a=I8:-128", "a", Value(ValueType.INT8, -128)),
        ("a=FLOAT64:0.1", "a", Value(ValueType.FLOAT64, 0.1)),
        ("a=f32:-inf", "a", f32(-math.inf)),
        ('a=[str]:["b", "c"]', "a", array(ValueType.STRING, ("b", "c"))),
        ("a=[i32]:[-1, 2]", "a", array(ValueType.INT32, (-1, 2))),
        ("a=[f32]:[1, 0.5]", "a", array(ValueType.FLOAT32, (1.0, 0.5))),
        ("a=[bool]:[]", "a", array(ValueType.BOOL, ())),
        ("a=7", "a", UntypedValue("7")),
        ("a=https://x.y", "a", UntypedValue("https://x.y")),
        ("a=[u32:1", "a", UntypedValue("[u32:1")),
        ("a=", "a", UntypedValue("")),
        ("a=one\nstr:two", "a", UntypedValue("one\nstr:two")),
    ],
)
def test_settings(text: str, key: str, value: Value | UntypedValue) -> None:
    assert parse_setting(text) == (key, value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a", "is not KEY=VALUE"),
        ("=int:7", "is not KEY=VALUE"),
        ("a=int:-1", r"a is UINT32, which cannot be -1; it must be a whole number from 0 to 4294967295"),
        ("a=int:1.5", "which cannot be 1.5"),
        ("a=int:1_000", "which cannot be 1_000"),
        ("a=i8:128", "from -128 to 127"),
        ("a=f32:1e300", "which cannot be 1e[+]300"),
        ("a=bool:1", "write true or false"),
        ("a=[u32]:1,2", r"is a list of UINT32, and 1,2 is not a list; write it as JSON"),
        ("a=[u32]:3", "is a list of UINT32, not 3"),
        ('a=[u32]:"ab"', "is a list of UINT32, not 'ab'"),
        ("a=[u32]:[1.0]", "which cannot be 1.0"),
        ("a=[u32]:[true]", "which cannot be True"),
        ("a=[str]:[1]", "a is STRING"),
        ("a=[u8]:" + "[" * 100_000, "is not a list"),
        ("a=str:\udcff", "UTF-8 can hold"),
    ],
)
def test_what_is_wrong_with_them(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_setting(text)


@pytest.mark.parametrize(
    ("value", "old", "becomes"),
    [
        (UntypedValue("7"), U64, Value(ValueType.UINT64, 7)),
        (UntypedValue("7"), string("x"), string("7")),
        (UntypedValue("7"), f32(1), f32(7)),
        (UntypedValue("false"), boolean(True), boolean(False)),
        (UntypedValue("[7]"), array(ValueType.INT32, (1, 2)), array(ValueType.INT32, (7,))),
        (7, U64, Value(ValueType.UINT64, 7)),
        (7, f32(1), f32(7)),
        (7, None, u32(7)),
        (0.5, None, f32(0.5)),
        (True, None, boolean(True)),
        ("x", None, string("x")),
        (b"\xff", string("x"), string(b"\xff")),
        (["x"], None, array(ValueType.STRING, ("x",))),
        (Value(ValueType.INT8, -1), U64, Value(ValueType.INT8, -1)),
    ],
)
def test_the_type_of_a_key_is_kept(value: Any, old: Value | None, becomes: Value) -> None:
    assert typed("a", value, old) == becomes


@pytest.mark.parametrize(
    ("value", "old", "problem"),
    [
        (UntypedValue("7"), None, "a is a new key: give its type; KEY=TYPE:VALUE"),
        (UntypedValue("x"), U64, "a is UINT64, which cannot be x"),
        (-1, U64, "which cannot be -1"),
        (1, boolean(True), "write true or false"),
        (True, U64, "which cannot be True"),
        ("x", U64, "which cannot be x"),
        (None, None, "a cannot be a NoneType"),
        ([], None, "an empty list"),
        ([[1]], None, "a list of lists"),
        (Value(ValueType.UINT8, 256), None, "from 0 to 255"),
    ],
)
def test_values_that_do_not_fit(value: Any, old: Value | None, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        typed("a", value, old)


def test_a_nan_keeps_being_one() -> None:
    found = parse_setting("a=f32:nan").value
    assert isinstance(found, Value)
    assert np.isnan(found.data)


@given(st.sampled_from(list(INTEGERS)), st.integers(-(2**65), 2**65))
def test_integers_fit_or_are_refused(kind: ValueType, number: int) -> None:
    low, high = INTEGERS[kind]
    if low <= number <= high:
        assert parse_setting(f"a={kind.name}:{number}").value == Value(kind, number)
    else:
        with pytest.raises(UsageError, match=f"from {low} to {high}"):
            parse_setting(f"a={kind.name}:{number}")


@given(HEADERS[0])
def test_what_a_file_holds_can_be_set(metadata: Metadata) -> None:
    """Each value is one of its own type."""
    for key, value in metadata.items():
        if value.element is not None and not value.data:
            continue
        again = typed(key, value.data, value)
        assert type_text(again) == type_text(value)
        # a NaN of 32 bits is held otherwise, which keeps its bits
        assert "nan" in repr(value.data) or repr(again.data) == repr(value.data)
