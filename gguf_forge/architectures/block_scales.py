"""Scales of whole NVFP4 matrices. llama.cpp needs them in tensors of their own, because the blocks cannot hold them.

Source: `_write_scale_tensor` and `_write_scales_tensor` of the reference's converter.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gguf_forge.errors import UnsupportedError
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.packed import RepackNvfp4
from gguf_forge.types.tensor_type import NVFP4

# A scale is not written if it differs from 1 by less than this. Scales of stacked experts have a wider tolerance.
_NEAR, _NEAR_OF_EXPERTS = 1e-6, 1e-6 + 1e-5


def repacked(expr: TensorExpr) -> tuple[RepackNvfp4, ...]:
    """The NVFP4 matrices that a tensor of such blocks is made of."""
    if expr.dtype != NVFP4:
        return ()
    if isinstance(expr, RepackNvfp4):
        return (expr,)
    return tuple(found for child in expr.children() for found in repacked(child))


def block_scales(expr: TensorExpr) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The scale tensors that the file needs next to a tensor of NVFP4 blocks.

    Yields the ending of the name, which replaces `.weight`, and the values.

    Raises:
        UnsupportedError: matrices with different scales were joined into one tensor.
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
