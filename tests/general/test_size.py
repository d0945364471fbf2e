from __future__ import annotations

import pytest

from gguf_forge.general import ParameterCount, parameter_count
from gguf_forge.general.size import size_label
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.types.tensor_type import F32, TENSOR_TYPES


def info(name: str, *shape: int) -> TensorInfo:
    return TensorInfo(name, shape, F32)


def test_dense() -> None:
    tensors = [TensorInfo("a.weight", (256, 3), TENSOR_TYPES["Q4_K"]), info("b.weight", 5)]
    assert parameter_count(tensors) == ParameterCount(773, 773, 0, 0)


def test_experts_are_counted_once() -> None:
    tensors = [
        info("token_embd.weight", 8, 10),
        info("blk.0.ffn_up_exps.weight", 8, 4, 16),
        info("blk.0.ffn_up_exps.bias", 4, 16),
        info("blk.1.ffn_up_exps.weight", 8, 4, 8),
    ]
    assert parameter_count(tensors) == ParameterCount(80 + 512 + 64 + 256, 80 + 64, 32 + 32, 12)


def test_an_adapter_counts_as_the_matrices_it_adds_to() -> None:
    tensors = [info("a.weight.lora_a", 100, 4), info("a.weight.lora_b", 4, 50)]
    assert parameter_count(tensors) == ParameterCount(-5000, 5000, 0, 0)
    assert parameter_count(tensors[::-1]) == ParameterCount()


def test_no_experts_in_a_stack_of_them() -> None:
    assert parameter_count([info("blk.0.ffn_up_exps.weight", 8, 4, 0)]) == ParameterCount()


@pytest.mark.parametrize(
    ("total", "label"),
    [
        (0, "0.00K"),
        (1, "0.00K"),
        (999, "1.0K"),
        (1_000_000, "1000K"),
        (1_000_001, "1.0M"),
        (131_072, "131K"),
        (1_440_000, "1.4M"),
        (70_553_706_496, "71B"),
        (1_500_000_000_000, "1.5T"),
        (-8_030_261_248, "8.0B"),
    ],
)
def test_size_label(total: int, label: str) -> None:
    assert size_label(ParameterCount(total, abs(total))) == label


def test_size_label_of_experts() -> None:
    assert size_label(ParameterCount(46_702_792_704, 1_605_636_096, 5_637_144_576, 8)) == "8x7.2B"
