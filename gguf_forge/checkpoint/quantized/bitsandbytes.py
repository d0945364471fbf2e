"""bitsandbytes: 4-bit codes of a table in blocks (NF4, FP4), and LLM.int8().

Source: the library's pure-torch backend. With double quantization the blocks' scales are quantized, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import gcd, prod
from typing import Any

from gguf_forge.checkpoint.quantized.parts import endings, numbers_of, of_weight, part, scaled, viewed
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import InputError
from gguf_forge.tensors.arithmetic import Add, Multiply
from gguf_forge.tensors.codes import Lookup, RowCodes
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import reshaped

_PARTS = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
_STATES = (".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")
# The order of the two codes in a byte: the first is in the high half.
_ORDER = (1, 0)
# The factor of an 8-bit code, as in the library's kernels: 1 / 127 as a float32.
_PER_INT8 = 0.007874015718698502


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    found = dict(stored)
    for state in _STATES:
        for name in endings(stored, state):
            found[name] = _of_blocks(name, stored, stored[name + state], state[-3:].upper())
            for end in (*_PARTS, state):
                found.pop(name + end, None)
    for stem in endings(stored, ".SCB"):
        name = f"{stem}.weight"
        found[name] = Multiply(scaled(name, part(stored, stem, name), stored[f"{stem}.SCB"], None), _PER_INT8)
        for end in (".SCB", ".weight_format"):
            found.pop(stem + end, None)
    return found


def _of_blocks(name: str, stored: Tensors, said: TensorExpr, kind: str) -> TensorExpr:
    packed, absmax, levels = (part(stored, name, name + end) for end in ("", ".absmax", ".quant_map"))
    with of_weight(name):
        state = _state(said)
        shape, block = _shape(state), _whole(state, "blocksize")
        count = prod(shape)
        # A block may end inside a row of the weight. So we use shorter rows, which divide both a block and a row.
        width = gcd(block, count)
        if width % 2:
            raise InputError(f"{list(shape)} weights are no whole bytes of codes in blocks of {block}")
        codes = RowCodes(viewed(packed, (count // width, width // 2)), 4, width, _ORDER)
        scales = viewed(absmax, (-(-count // block), 1))
        if "nested_blocksize" in state or f"{name}.nested_absmax" in stored:
            nested = (part(stored, name, name + end) for end in (".nested_quant_map", ".nested_absmax"))
            scales = _nested(scales, *nested, state=state)
        return reshaped(Scaled(Lookup(codes, levels), scales, block // width, width, kind=f"{kind}, g{block}"), shape)


def _nested(codes: TensorExpr, levels: TensorExpr, absmax: TensorExpr, *, state: Mapping[str, Any]) -> TensorExpr:
    """The scales of blocks, if these scales are quantized themselves."""
    block, offset = _whole(state, "nested_blocksize"), state.get("nested_offset")
    if not isinstance(offset, float):
        raise InputError(f"its nested_offset is {offset!r:.40}, not a number")
    return Add(Scaled(Lookup(codes, levels), viewed(absmax, (-(-codes.n_rows // block), 1)), block, 1), offset)


def _state(said: TensorExpr) -> Mapping[str, Any]:
    """The stored JSON object that describes how a weight is quantized."""
    try:
        state = json.loads(numbers_of(said).tobytes())
    except (ValueError, RecursionError):
        state = None
    if not isinstance(state, dict):
        raise InputError("its quant_state is not a JSON object")
    return state


def _shape(state: Mapping[str, Any]) -> tuple[int, ...]:
    shape = state.get("shape")
    if not isinstance(shape, list) or not shape or not all(type(size) is int and 0 < size < 1 << 32 for size in shape):
        raise InputError(f"the shape in its quant_state is {shape!r:.60}")
    return tuple(shape)


def _whole(state: Mapping[str, Any], key: str) -> int:
    number = state.get(key)
    if type(number) is not int or number < 1:
        raise InputError(f"the {key} in its quant_state is {number!r:.40}, not a whole number")
    return number


SCHEME = Scheme("bitsandbytes", lambda quantization, stored: quantization.method == "bitsandbytes", _logical)
