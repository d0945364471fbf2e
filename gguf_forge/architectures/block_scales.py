"""What llama.cpp computes with beside NVFP4 blocks: scales of whole matrices, which blocks have no place for.

Source: `_write_scale_tensor` and `_write_scales_tensor` of the reference's converter.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import UnsupportedError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.packed import RepackNvfp4

# A scale so near to 1 is not written; those of stacked experts may be a little farther from it.
_NEAR, _NEAR_OF_EXPERTS = 1e-6, 1e-6 + 1e-5


def repacked(expr: TensorExpr) -> tuple[RepackNvfp4, ...]:
    """The matrices of NVFP4 that a tensor is made of."""
    if isinstance(expr, RepackNvfp4):
        return (expr,)
    return tuple(found for child in expr.children() for found in repacked(child))


def block_scales(expr: TensorExpr) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """What the file has beside a tensor of NVFP4 blocks: the endings of names that stand for `.weight`, and values.

    Raises:
        UnsupportedError: matrices were joined that have different scales.
    """
    parts = repacked(expr)
    of_experts = len(expr.shape) == 3
    for end, scales in (
        (".scale", [part.tensor_scale for part in parts]),
        (".input_scale", [part.input_scale for part in parts]),
    ):
        if len(set(scales)) == 1 and not of_experts:
            scales = scales[:1]
        if len(scales) != (expr.shape[0] if of_experts else 1):
            raise UnsupportedError(f"{len(scales)} matrices of NVFP4 blocks with scales of their own make one tensor")
        if any(abs(scale - 1) >= (_NEAR_OF_EXPERTS if of_experts else _NEAR) for scale in scales):
            yield end, np.array(scales, np.float32)
