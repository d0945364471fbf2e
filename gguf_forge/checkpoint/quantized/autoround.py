"""Intel's AutoRound, whose weights are packed as in GPTQ or AWQ. `packing_format` names the packing.

Source: AutoRound's exporters. Its own packing and that of `gptqmodel` store zero points unchanged. The packing of
`auto_gptq` stores them minus one.
"""

from __future__ import annotations

from gguf_forge.checkpoint.quantized.awq import awq_weights
from gguf_forge.checkpoint.quantized.gptq import gptq_weights
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import UnsupportedError

_METHODS = ("auto-round", "intel/auto-round")
# The packing -> the number that is added to stored zero points.
_AS_GPTQ = {"auto_round": 0, "auto_round:gptqmodel": 0, "auto_round:auto_gptq": 1}
_AS_AWQ = "auto_round:auto_awq"
# 5, 6 and 7 bits are streams of bits, as 3 are: 32 codes in as many words as a code has bits.
_BITS = (2, 3, 4, 5, 6, 7, 8)


def _logical(stored: Tensors, quantization: Quantization) -> Tensors:
    config = quantization.config
    packing = str(config.get("packing_format", config.get("backend", "auto_round")))
    if packing == _AS_AWQ:
        return awq_weights(stored)
    if packing not in _AS_GPTQ:
        raise UnsupportedError(
            f"AutoRound with packing_format {packing:.40} is not known",
            file="config.json",
            hint=f"known: {', '.join((*_AS_GPTQ, _AS_AWQ))}",
        )
    return gptq_weights(stored, quantization, _AS_GPTQ[packing], _BITS)


SCHEME = Scheme("AutoRound", lambda quantization, stored: quantization.method in _METHODS, _logical)
