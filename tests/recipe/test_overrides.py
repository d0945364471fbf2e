from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_forge.errors import InputError, UsageError
from gguf_forge.gguf_file.values import Value, boolean, f32, string, u32
from gguf_forge.recipe import (
    KeyOverride,
    parse_key_override,
    parse_prune_layers,
    parse_target_type,
    parse_tensor_type,
    parse_tensor_type_file,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k=int:7", u32(7)),
        ("k=int:4294967295", u32(4294967295)),
        ("k=float:1.5", f32(1.5)),
        ("k=float:-1e3", f32(-1000.0)),
        ("k=bool:true", boolean(True)),
        ("k=bool:false", boolean(False)),
        ("k=str:", string("")),
        ("k=str:a=b:c", string("a=b:c")),
        ("k=str:" + "é" * 63, string("é" * 63)),
    ],
)
def test_key_override(text: str, value: Value) -> None:
    assert parse_key_override(text) == KeyOverride("k", value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "k", "=int:1", "k=", "k=7", "k=long:7", "k=int", "k=int:", "k=int:x", "k=int:1.5", "k=int:1_0"),
        *("k=int:-1", "k=int:4294967296", "k=float:", "k=float:x", "k=float:1e39", "k=bool:True", "k=bool:1"),
        *("k=str:" + "é" * 64, "k" * 128 + "=int:1", "general.alignment=int:64"),
        *("split.count=int:2", "split.no=float:1e9", "split.tensors.count=str:x"),
    ],
)
def test_key_override_refused(text: str) -> None:
    with pytest.raises(UsageError, match="override_kv="):
        parse_key_override(text)


def test_what_a_key_of_the_layout_says_is_told() -> None:
    for key, said in (
        ("general.alignment", "where the tensor data begins"),
        ("split.count", "which files belong together"),
    ):
        with pytest.raises(UsageError) as error:
            parse_key_override(f"{key}=int:64")
        assert said in str(error.value.words.hint)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_key_override_or_a_usage_error(text: str) -> None:
    try:
        assert parse_key_override(text).key == text.split("=")[0]
    except UsageError as error:
        assert error.exit_code == 2


def test_tensor_type_splits_at_the_first_equals_sign() -> None:
    found = parse_tensor_type(r"blk\.1\.FFN_DOWN=q5_0")
    assert (found.pattern.source, found.type.name, str(found)) == (
        r"blk\.1\.FFN_DOWN",
        "Q5_0",
        r"blk\.1\.FFN_DOWN=Q5_0",
    )


@pytest.mark.parametrize("text", ["", "attn_v", "=q8_0", "attn_v=", "(=q8_0", "a=q9", "a=Q4_K_M", "(?=a)=q8_0"])
def test_tensor_type_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_tensor_type(text)


@pytest.mark.parametrize("name", ["i32", "f64", "q8_1", "Q8_K", "q4_k_m", ""])
def test_types_that_nothing_is_quantized_to(name: str) -> None:
    with pytest.raises(UsageError, match="tensor types: F32, F16"):
        parse_target_type(name)


def test_tensor_type_file(tmp_path: Path) -> None:
    path = tmp_path / "types.txt"
    path.write_text("attn_v=q8_0 ffn_down=q6_k\n\n\toutput=f16\n")
    assert [str(entry) for entry in parse_tensor_type_file(path)] == [
        "attn_v=Q8_0",
        "ffn_down=Q6_K",
        "output=F16",
    ]


def test_tensor_type_file_refused(tmp_path: Path) -> None:
    path = tmp_path / "types.txt"
    with pytest.raises(InputError, match=r"types\.txt"):
        parse_tensor_type_file(path)
    path.write_bytes(b"attn_v=q8_0\n\xff")
    with pytest.raises(InputError, match=r"types\.txt"):
        parse_tensor_type_file(path)
    path.write_text("attn_v=q8_0 nonsense")
    with pytest.raises(UsageError, match=r"types\.txt: line 1: tensor_type='nonsense'"):
        parse_tensor_type_file(path)


def test_prune_layers() -> None:
    assert parse_prune_layers("3,1, 2,1") == (1, 2, 3)


@pytest.mark.parametrize("text", ["", ",", "1,", "x", "-1", "1-3", "1.5"])
def test_prune_layers_refused(text: str) -> None:
    with pytest.raises(UsageError, match="prune_layers="):
        parse_prune_layers(text)


def test_tensor_type_file_with_comments_and_wrong_lines(tmp_path: Path) -> None:
    path = tmp_path / "types.txt"
    path.write_text("# the mix of a friend\nattn_v=q8_0  # a little more\n\nffn_#=q6_k ffn_up=q5_k\n")
    assert [entry.type.name for entry in parse_tensor_type_file(path)] == ["Q8_0", "Q6_K", "Q5_K"]
    path.write_text("# two\nattn_v=q8_0\nffn_up=q99\n")
    with pytest.raises(UsageError, match="line 3: cannot quantize to tensor type 'q99'"):
        parse_tensor_type_file(path)


def test_a_tensor_type_file_with_more_patterns_than_any_model_needs(tmp_path: Path) -> None:
    (tmp_path / "types").write_text("a=q8_0 b=f16\n" * 4096)
    assert len(parse_tensor_type_file(tmp_path / "types")) == 8192
    (tmp_path / "types").write_text("a=q8_0 b=f16\n" * 4097)
    with pytest.raises(UsageError, match="more than 8,192 patterns"):
        parse_tensor_type_file(tmp_path / "types")
