"""optimum-quanto: `w.weight._data` (int8 or FP8) and `w.weight._scale`. The file `quanto_qmap.json` identifies it.

Source: optimum-quanto's `QBytesTensor`. Weights of 4 and 2 bits are refused, because their stored form does not contain
the weight's shape.
"""

from __future__ import annotations

from gguf_forge.checkpoint.quantized.parts import endings, part, put_together, scaled, without
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import UnsupportedError

_UNUSED = (".input_scale", ".output_scale")
_DATA, _SCALE = ".weight._data", ".weight._scale"


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    packed = endings(stored, ".weight._data._data")
    if packed:
        raise UnsupportedError(
            "quanto's weights of 4 and 2 bits are not known",
            tensor=packed[0],
            hint="convert the original 16-bit checkpoint",
        )
    return put_together(
        without(stored, _UNUSED),
        endings(stored, _DATA),
        (_DATA, _SCALE),
        lambda stem: scaled(
            f"{stem}.weight", stored[stem + _DATA], part(stored, f"{stem}.weight", stem + _SCALE), None
        ),
    )


SCHEME = Scheme("quanto", lambda quantization, stored: quantization.method == "quanto", _logical)
