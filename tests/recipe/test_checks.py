from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_models import header, model

from gguf_forge.errors import ForgeError, InputError, UnsupportedError, UsageError
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.recipe import FileType, ImportanceMatrix, Options, assign, check, importance_of
from gguf_forge.types.tensor_type import F32, TENSOR_TYPES


def matrix(**sizes: int) -> ImportanceMatrix:
    return ImportanceMatrix("m.gguf", {name.replace("__", "."): np.ones(n, np.float32) for name, n in sizes.items()})


def refusal(tensors: list[TensorInfo], metadata: Metadata | None = None, **options: Any) -> ForgeError:
    given_options = Options(FileType.named(options.pop("file_type", "Q4_K_M")), **options)
    with pytest.raises(ForgeError) as caught:
        check(assign(tensors, metadata or header(), given_options), given_options)
    return caught.value


V = TensorInfo("blk.0.attn_v.weight", (256, 8), F32)
Q = TensorInfo("blk.0.attn_q.weight", (256, 8), F32)


def test_small_types_need_an_importance_matrix() -> None:
    error = refusal(model(4, 256, "output"), file_type="IQ2_XXS")
    assert isinstance(error, UsageError)
    assert "IQ2_XXS needs an importance matrix for 24 tensors: blk.0.attn_k.weight, " in str(error)
    assert "and 21 more" in str(error) and "imatrix=" in str(error) and ": output" not in str(error)
    assert "blk.0.attn_q.weight" in str(refusal([Q], file_type="Q2_K_S"))
    assert "needs importance for 1 tensors" in str(
        refusal([Q, V], file_type="IQ2_XXS", imatrix=matrix(blk__0__attn_v__weight=256))
    )
    assert "blk.0.attn_q.weight" in str(refusal([Q], file_type="IQ2_XXS", imatrix=matrix()))


def test_importance_for_the_tensors_that_need_it_is_enough() -> None:
    options = Options(FileType.named("IQ2_XXS"), imatrix=matrix(blk__0__attn_q__weight=256))
    check(assign([Q], header(), options), options)
    same = TensorInfo(Q.name, Q.shape, TENSOR_TYPES["IQ2_XXS"])
    other = Options(FileType.named("IQ2_XXS"), imatrix=matrix(other=256))
    check(assign([same], header(), other), other)
    assert isinstance(refusal([same], file_type="IQ2_XXS"), UsageError)
    larger = Options(FileType.named("Q2_K"))
    check(assign([Q], header(), larger), larger)


def test_a_pruned_tensor_finds_its_importance_under_its_old_name() -> None:
    tensors = [TensorInfo(f"blk.{i}.attn_q.weight", (256, 8), F32) for i in (0, 1)]
    options = Options(FileType.named("IQ2_XXS"), prune_layers=(0,), imatrix=matrix(blk__1__attn_q__weight=256))
    check(assign(tensors, header(), options), options)


def test_what_the_matrix_lacks_is_quantized_without_or_refused() -> None:
    """llama-imatrix runs no layers that predict further tokens, so a matrix lacks them."""
    names = ("nextn.eh_proj", "attn_q", "ffn_down")
    extra = [TensorInfo(f"blk.4.{name}.weight", (256, 8), F32) for name in names]
    given = matrix(**{info.name.replace(".", "__"): 256 for info in model(4) if len(info.shape) > 1})
    metadata = header(5, nextn_predict_layers=1)
    for name in ("Q4_K_M", "IQ4_XS", "Q2_K"):
        options = Options(FileType.named(name), imatrix=given)
        assignments = assign([*model(4), *extra], metadata, options)
        check(assignments, options)
        weighted = {a.name for a in assignments if importance_of(a, options) is not None}
        assert weighted == set(given.importance)
    error = refusal([*model(4), *extra], metadata, file_type="IQ2_XXS", imatrix=given)
    assert isinstance(error, UsageError)
    assert "needs importance for 3 tensors that the matrix lacks: blk.4." in str(error)


def test_a_matrix_of_another_model_is_refused() -> None:
    error = refusal([V], imatrix=matrix(blk__0__attn_v__weight=128))
    assert isinstance(error, InputError) and "blk.0.attn_v.weight" in str(error)
    experts = TensorInfo("blk.0.ffn_up_exps.weight", (256, 8, 4), F32)
    options = Options(FileType.named("Q4_K_M"), imatrix=matrix(blk__0__ffn_up_exps__weight=1024))
    check(assign([experts], header(), options), options)
    embedding = Options(FileType.named("Q4_K_M"), imatrix=matrix(token_embd__weight=1))
    check(assign([TensorInfo("token_embd.weight", (256, 8), F32)], header(), embedding), embedding)


def test_named_types_do_not_fall_back() -> None:
    tensors = [TensorInfo("output.weight", (96, 8), F32)]
    error = refusal(tensors, output_tensor_type=TENSOR_TYPES["Q6_K"])
    assert isinstance(error, UsageError) and "output.weight" in str(error)


def test_what_is_quantized_already_needs_permission() -> None:
    tensors = [TensorInfo(V.name, V.shape, TENSOR_TYPES["MXFP4"])]
    error = refusal(tensors, file_type="Q8_0")
    assert isinstance(error, UsageError) and "allow_requantize=True" in str(error)
    allowed = Options(FileType.named("Q8_0"), allow_requantize=True)
    check(assign(tensors, header(), allowed), allowed)
    integers = [TensorInfo(V.name, V.shape, TENSOR_TYPES["I32"])]
    assert isinstance(refusal(integers, allow_requantize=True), UnsupportedError)


def test_selected_importance() -> None:
    both = matrix(blk__0__attn_q=1, blk__1__attn_q=1, blk__1__attn_v=1)
    assert set(both.selected(include=["attn_v", "blk.0"]).importance) == {"blk.0.attn_q", "blk.1.attn_v"}
    assert set(both.selected(exclude=["attn_v", "blk.0"]).importance) == {"blk.1.attn_q"}
    with pytest.raises(UsageError, match="cannot be used together"):
        both.selected(["a"], ["b"])
