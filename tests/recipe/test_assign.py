from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import PARTS, header, model

from gguf_forge.errors import InputError, UnsupportedError, UsageError
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, ValueType, array, string, u32
from gguf_forge.recipe import FileType, Options, assign, make_recipe, parse_tensor_type
from gguf_forge.recipe.model_facts import ModelFacts
from gguf_forge.recipe.overrides import parse_key_override
from gguf_forge.types.tensor_type import BF16, F32, TENSOR_TYPES


def types(tensors: list[TensorInfo], metadata: Metadata | None = None, **options: Any) -> dict[str, str]:
    name = options.pop("file_type", "Q4_K_M")
    found = assign(tensors, metadata or header(), Options(FileType.named(name), **options))
    return {a.name.removesuffix(".weight"): a.type.name for a in found}


def overrides(*texts: str) -> dict[str, Any]:
    return {"tensor_types": tuple(parse_tensor_type(text) for text in texts)}


def test_order_is_by_layer_number_then_name() -> None:
    found = assign(model(11, 256, "output"), header(11), Options(FileType.named("Q8_0")))
    expected = [
        "output",
        "output_norm",
        "token_embd",
        *(f"blk.{i}.{part}" for i in range(11) for part in PARTS),
    ]
    assert [a.name for a in found] == [f"{name}.weight" for name in expected]


@given(st.permutations(model(3, 256, "output")), st.sampled_from(["Q4_K_M", "Q3_K_M", "IQ2_S", "COPY", "F16"]))
def test_the_order_of_the_base_file_does_not_matter(shuffled: list[TensorInfo], name: str) -> None:
    options = Options(FileType.named(name), prune_layers=(1,))
    assert assign(shuffled, header(3), options) == assign(model(3, 256, "output"), header(3), options)


def test_the_embedding_is_typed_like_the_output_only_where_it_is_the_output() -> None:
    assert types(model())["token_embd"] == "Q6_K"
    both = types(model(4, 256, "output"))
    assert (both["token_embd"], both["output"]) == ("Q4_K", "Q6_K")


def test_copy_keeps_every_type() -> None:
    tensors = [TensorInfo("blk.0.a.weight", (256, 2), BF16), TensorInfo("b", (3,), TENSOR_TYPES["I32"])]
    assert types(tensors, file_type="COPY") == {"b": "I32", "blk.0.a": "BF16"}


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_float_types_ignore_patterns_but_not_the_named_tensors(name: str) -> None:
    options = {
        **overrides("attn_v=q8_0"),
        "output_tensor_type": TENSOR_TYPES["Q6_K"],
        "token_embedding_type": TENSOR_TYPES["Q8_0"],
    }
    found = types(model(4, 256, "output"), file_type=name, **options)
    assert (found["output"], found["token_embd"], found["blk.0.attn_v"]) == ("Q6_K", "Q8_0", name)
    assert found["blk.0.attn_norm"] == "F32"


def test_auto_is_not_a_type_to_quantize_to() -> None:
    with pytest.raises(UsageError, match="auto"):
        types(model(), file_type="auto")


def test_the_first_matching_pattern_wins_and_counts_do_not_advance() -> None:
    found = types(model(8), header(8), file_type="Q3_K_M", **overrides(r"blk\.0\.attn_v=q4_0", "attn_v=f16"))
    assert {found["blk.0.attn_v"], found["blk.7.attn_v"]} == {"Q4_0", "F16"}
    counted = types(model(8), header(8), file_type="Q3_K_M", **overrides(r"blk\.0\.attn_v=q4_0"))
    assert [counted[f"blk.{i}.attn_v"] for i in range(4)] == ["Q4_0", "Q5_K", "Q5_K", "Q4_K"]


def test_named_tensors_outrank_patterns_except_the_per_layer_embedding() -> None:
    tensors = model(4, 256, "output", "per_layer_token_embd")
    options = {
        "output_tensor_type": TENSOR_TYPES["Q4_1"],
        "token_embedding_type": TENSOR_TYPES["Q5_K"],
        **overrides("output=q2_k", "token_embd=q2_k"),
    }
    found = types(tensors, **options)
    assert (found["output"], found["token_embd"], found["per_layer_token_embd"]) == ("Q4_1", "Q5_K", "Q2_K")
    without = types(tensors, token_embedding_type=TENSOR_TYPES["Q5_K"])
    assert without["per_layer_token_embd"] == "Q5_K"


def test_the_output_type_also_reaches_a_tied_embedding() -> None:
    assert types(model(), output_tensor_type=TENSOR_TYPES["Q8_0"])["token_embd"] == "Q8_0"
    assert types(model(), output_tensor_type=TENSOR_TYPES["Q8_0"], pure=True)["token_embd"] == "Q4_K"


def test_leave_output_tensor_and_pure() -> None:
    assert types(model(4, 256, "output"), leave_output_tensor=True)["output"] == "F32"
    pure = types(model(4, 256, "output"), pure=True)
    assert {kind for name, kind in pure.items() if not name.endswith("norm")} == {"Q4_K"}


@pytest.mark.parametrize(
    ("wanted", "row", "granted"),
    [
        ("Q4_K", 256, "Q4_K"),
        ("Q4_K", 96, "Q5_0"),
        ("Q5_K", 96, "Q5_1"),
        ("Q6_K", 96, "Q8_0"),
        ("Q2_K", 96, "Q4_0"),
        ("TQ2_0", 96, "Q4_0"),
        ("IQ4_XS", 96, "IQ4_NL"),
        ("IQ1_S", 96, "IQ4_NL"),
        ("Q2_0", 96, "Q4_0"),
        ("Q6_K", 100, "F16"),
        ("Q8_0", 100, "F16"),
        ("MXFP4", 100, "F16"),
        ("F32", 100, "F32"),
    ],
)
def test_rows_that_do_not_fit_fall_back(wanted: str, row: int, granted: str) -> None:
    tensor = TensorInfo("blk.0.attn_q.weight", (row, 4), F32)
    options = Options(FileType.named("Q4_K_M"), **overrides(f"attn_q={wanted}"))
    (found,) = assign([tensor], header(), options)
    assert (found.wanted.name, found.type.name, found.fallback) == (wanted, granted, wanted != granted)


@pytest.mark.parametrize("wanted", ["Q1_0", "NVFP4"])
def test_rows_without_a_fallback_are_refused_by_name(wanted: str) -> None:
    with pytest.raises(UnsupportedError, match=r"blk\.0\.attn_k\.weight: a row of 96 .*tensor_type="):
        types(model(1, 96), **overrides(f"attn={wanted}"))


def test_trailing_dimensions_of_one_are_no_matrix_and_not_written() -> None:
    (found,) = assign([TensorInfo("blk.0.x.weight", (256, 1), F32)], header(), Options(FileType.named("Q8_0")))
    assert (found.output.shape, found.output.type) == ((256,), F32)


def test_pruned_layers_go_and_those_above_move_down() -> None:
    options = Options(FileType.named("Q8_0"), prune_layers=(1, 2, 9))
    recipe = make_recipe(model(5), header(5), options)
    kept = [(a.info.name, a.name) for a in recipe.assignments if "attn_v" in a.name]
    assert kept == [(f"blk.{old}.attn_v.weight", f"blk.{new}.attn_v.weight") for old, new in ((0, 0), (3, 1), (4, 2))]
    assert recipe.metadata["llama.block_count"] == u32(3)
    assert list(recipe.metadata)[-1] == "llama.block_count"
    assert recipe.warnings == ("--prune-layers: there is no layer 9",)
    with pytest.raises(UsageError, match="leaves no layer"):
        types(model(2), prune_layers=(0, 1))


def test_layers_of_an_encoder_are_pruned_too() -> None:
    tensors = [TensorInfo(f"enc.blk.{i}.attn_v.weight", (256, 2), F32) for i in range(3)]
    assert list(types(tensors, prune_layers=(0,))) == ["enc.blk.0.attn_v", "enc.blk.1.attn_v"]


def test_idle_patterns_are_reported() -> None:
    options = Options(FileType.named("Q4_K_M"), **overrides("attn_v=q8_0", "attn_v=q6_k", "typo=q6_k", "attn_norm=f16"))
    assert make_recipe(model(), header(), options).warnings == (
        "--tensor-type attn_v=Q6_K decides no tensor's type",
        "--tensor-type typo=Q6_K decides no tensor's type",
        "--tensor-type attn_norm=F16 decides no tensor's type",
    )
    ignored = Options(FileType.named("F16"), **overrides("attn_v=q8_0"))
    assert make_recipe(model(), header(), ignored).warnings == ("--tensor-type attn_v=Q8_0 is ignored for F16",)


def test_options_in_use_are_named() -> None:
    assert Options(FileType.named("F16")).in_use == ()
    options = Options(FileType.named("F16"), pure=True, prune_layers=(1,))
    assert options.in_use == ("--pure", "--prune-layers")


@pytest.mark.parametrize(
    ("metadata", "is_70b"),
    [
        (header(80, attention__head_count_kv=1), True),
        (header(80), False),
        (header(80, attention__head_count_kv=1, expert_count=8), False),
        (header(79, attention__head_count_kv=1), False),
        (header(81, attention__head_count_kv=1, nextn_predict_layers=1), True),
        (header(80, "qwen2"), True),
        (header(80, "qwen3"), False),
        (header(68, "jais2"), True),
        (header(80, "jais2"), False),
    ],
)
def test_what_counts_as_70b(metadata: Metadata, is_70b: bool) -> None:
    assert ModelFacts.read(metadata).is_70b is is_70b


def test_facts_of_the_first_layer_count() -> None:
    metadata = header(2)
    metadata["llama.attention.head_count_kv"] = array(ValueType.INT32, (2, 8))
    assert ModelFacts.read(metadata).gqa == 4
    metadata["llama.attention.head_count_kv"] = array(ValueType.INT32, (0, 8))
    assert ModelFacts.read(metadata).gqa == 0


def test_facts_follow_overrides_as_the_reference_reads_them() -> None:
    texts = ("llama.expert_count=int:8", "llama.expert_count=int:2", "llama.block_count=str:9")
    facts = ModelFacts.read(header(4), tuple(parse_key_override(text) for text in texts))
    assert (facts.n_experts, facts.n_layers) == (8, 4)


def test_depth_of_models_that_repeat_or_add_layers() -> None:
    assert ModelFacts.read(header(4, "nanbeige", num_loops=3)).n_layers == 12
    assert ModelFacts.read(header(4, "graniteswitch")).n_layers == 5
    assert ModelFacts.read({"general.architecture": string("clip")}).n_layers == 0


@pytest.mark.parametrize("missing", ["general.architecture", "llama.block_count"])
def test_a_header_without_the_facts_is_refused(missing: str) -> None:
    metadata = header()
    del metadata[missing]
    with pytest.raises(InputError, match=missing):
        types(model(), metadata)


@pytest.mark.parametrize("wrong", [string("4"), array(ValueType.INT32, ()), array(ValueType.FLOAT32, (1.5,))])
def test_a_header_with_wrong_facts_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"llama\.block_count is not a whole number"):
        types(model(), {**header(), "llama.block_count": wrong})


def test_experts_outside_the_layers_need_a_type() -> None:
    tensors = [TensorInfo("mtp.ffn_down_exps.weight", (256, 4, 4), F32)]
    with pytest.raises(UnsupportedError, match=r"mtp\.ffn_down_exps\.weight: .*tensor_type="):
        types(tensors, header(expert_count=4))
    assert types(tensors, header(expert_count=4), **overrides("mtp=q8_0")) == {"mtp.ffn_down_exps": "Q8_0"}
