"""The logical tensors of a checkpoint: the tensors that its model computes with, however they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gguf_forge.checkpoint.as_stored import as_stored, widened
from gguf_forge.checkpoint.checkpoint import Checkpoint
from gguf_forge.checkpoint.merging import merged
from gguf_forge.checkpoint.quantized import quantization_of, resolved
from gguf_forge.tensors.expression import TensorExpr


def logical_tensors(checkpoint: Checkpoint, *, as_reference: bool = False) -> Mapping[str, TensorExpr]:
    """Every tensor of a checkpoint by its name, with quantized storage resolved and adapters merged in, in the order of
    llama.cpp's converter.

    Tensors of element types that are never weights keep their type; code that needs one of them checks it.

    Args:
        checkpoint: An opened folder.
        as_reference: Give weights the values that the reference's converter gives them by mistake.

    Raises:
        UnsupportedError: the checkpoint is quantized in a way that is not known.
        InputError: its quantization contradicts itself, or an adapter was made for another model.
    """
    stored: Mapping[str, TensorExpr] = {name: as_stored(tensor) for name, tensor in checkpoint.tensors.items()}
    quantization = quantization_of(checkpoint)
    if quantization is not None:
        stored = resolved(stored, replace(quantization, as_reference=as_reference))
    logical = {name: widened(expr, in_quantized=quantization is not None) for name, expr in stored.items()}
    return merged(logical, checkpoint.adapters)
