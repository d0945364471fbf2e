"""optimum-quanto: `w.weight._data` (int8 or FP8) and `w.weight._scale`. The file `quanto_qmap.json` identifies it.

Weights of 4 and 2 bits are `w.weight._data._data`, `_scale` and `_shift`: a matrix of groups, packed in planes. It does
not contain the weight's shape, so we take it from the model's width: a projection of a decoder layer reads the hidden
state, or adds to it. Source: optimum-quanto's `QBytesTensor`, `QBitsTensor` and `PackedTensor`.
"""

from __future__ import annotations

from gguf_forge.checkpoint.quantized.parts import endings, integers, of_weight, part, put_together, scaled, without
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.json_file import read_json_object
from gguf_forge.tensors.arithmetic import Multiply
from gguf_forge.tensors.codes import RowPlanes
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.row_maps import RowRange, reshaped

_UNUSED = (".input_scale", ".output_scale")
_DATA, _SCALE, _SHIFT = (f".weight.{part}" for part in ("_data", "_scale", "_shift"))
_PACKED = f"{_DATA}._data"
# Projections whose columns are the hidden state, and those whose rows are.
_READING = ("q_proj", "k_proj", "v_proj", "qkv_proj", "gate_proj", "up_proj", "gate_up_proj", "fc1", "lm_head")
_ADDING = ("o_proj", "out_proj", "down_proj", "fc2")


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    stored = without(stored, _UNUSED)
    packed = endings(stored, _PACKED)
    if packed:
        width = _width(quantization.folder)
        stored = put_together(stored, packed, (_PACKED, _SCALE, _SHIFT), lambda stem: _of_bits(stem, stored, width))
    return put_together(
        stored,
        endings(stored, _DATA),
        (_DATA, _SCALE),
        lambda stem: scaled(
            f"{stem}.weight", stored[stem + _DATA], part(stored, f"{stem}.weight", stem + _SCALE), None
        ),
    )


def _width(folder: Folder) -> int:
    """The width of the hidden state."""
    config = read_json_object(folder, "config.json")
    text = config.get("text_config")
    width = config.get("hidden_size", text.get("hidden_size") if isinstance(text, dict) else None)
    if type(width) is not int or width < 1:
        raise InputError(f"hidden_size is {width!r:.20}, not a whole number", file=folder.path / "config.json")
    return width


def _of_bits(stem: str, stored: Tensors, width: int) -> TensorExpr:
    """A weight of 4 or 2 bits: its codes times scales, less shifts."""
    name = f"{stem}.weight"
    packed, scales, shifts = (part(stored, name, stem + end) for end in (_PACKED, _SCALE, _SHIFT))
    role = stem.rpartition(".")[2]
    if role not in (*_READING, *_ADDING):
        raise UnsupportedError(
            "the shape of quanto's weights of 4 and 2 bits is known for usual projections only",
            tensor=name,
            hint="convert the original 16-bit checkpoint",
        )
    with of_weight(name):
        n_groups, group = scales.shape[0], packed.shape[-1]
        count = n_groups * group
        bits = next((bits for bits in (4, 2) if packed.shape[0] == -(-n_groups * bits // 8)), None)
        if bits is None or count % width:
            raise InputError(f"{packed.shape} codes in {n_groups} groups are not rows or columns of width {width}")
        planes = RowPlanes(integers(packed), bits, tuple(range(8 // bits)))
        codes = reshaped(RowRange(planes, 0, n_groups), (n_groups, group))
        groups = Scaled(codes, scales, 1, group, shifts=Multiply(shifts, -1), kind=f"{bits} bit, g{group}")
        return reshaped(groups, (count // width, width) if role in _READING else (width, count // width))


SCHEME = Scheme("quanto", lambda quantization, stored: quantization.method == "quanto", _logical)
