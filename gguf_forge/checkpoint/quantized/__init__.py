"""Quantized checkpoints. Each scheme has a file of its own and is found by the checkpoint's config.

A scheme turns the stored tensors of a checkpoint (`w.qweight`, `w.scales`, ...) into logical tensors (`w.weight`).
These are expressions that dequantize row by row, or that repack the blocks if ggml has the same blocks. A new scheme
needs only a new file here that defines a `SCHEME`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from gguf_forge.checkpoint.checkpoint import Checkpoint
from gguf_forge.checkpoint.quantized.scheme import Quantization, Scheme, Tensors
from gguf_forge.errors import InputError, UnsupportedError, printable
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.json_file import read_json_object
from gguf_forge.tensors.dequantized import in_scheme
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import as_vector
from gguf_forge.types.element_type import ElementType
from gguf_forge.wording import log_of

log = log_of(__name__)

# Keys under which multimodal configs describe the language model.
_TEXT_PARTS = ("text_config", "llm_config", "lm_config", "language_config")
# ModelOpt's algorithms and compressed-tensors' format whose weights are NVFP4.
_NVFP4, _NVFP4_FORMAT = ("NVFP4", "W4A16_NVFP4"), "nvfp4-pack-quantized"


def quantization_of(checkpoint: Checkpoint) -> Quantization | None:
    """The quantization that a checkpoint's config describes, or a file next to the config; None if there is none."""
    config = checkpoint.config
    parts = (config, *(config[part] for part in _TEXT_PARTS if isinstance(config.get(part), dict)))
    said, of_mlx = (
        next(filter(None, (_object(part, key) for part in parts)), {})
        for key in ("quantization_config", "quantization")
    )
    if of_mlx and "quant_method" not in said:
        said = {**of_mlx, "quant_method": "mlx"}
    elif not said.get("quant_algo") or not said.get("quantized_layers"):
        said = {**said, **_of_modelopt(checkpoint.folder, said)}
    if not said and checkpoint.folder.has("quanto_qmap.json"):
        said = {"quant_method": "quanto"}
    return Quantization(said, checkpoint.folder) if said else None


def named_blocks(checkpoint: Checkpoint) -> str | None:
    """The blocks that a checkpoint's config names, whether it holds some or not; None for none.

    The reference's converter judges by this when it writes `general.file_type`.
    """
    quantization = quantization_of(checkpoint)
    if quantization is None:
        return None
    config, form = quantization.config, quantization.config.get("format")
    groups, layers = (_object(config, key).values() for key in ("config_groups", "quantized_layers"))
    formats = [group.get("format") for group in groups if isinstance(group, dict)]
    algorithms = [str(layer.get("quant_algo")) for layer in layers if isinstance(layer, dict)]
    if config.get("quant_algo") in _NVFP4 or any(algorithm.endswith("NVFP4") for algorithm in algorithms):
        return "NVFP4"
    if quantization.method == "compressed-tensors":
        named = formats if form == "mixed-precision" else [form]
        return "NVFP4" if named and all(each == _NVFP4_FORMAT for each in named) else None
    return "MXFP4" if quantization.method == "mxfp4" else None


def _of_modelopt(folder: Folder, said: Mapping[str, Any]) -> Mapping[str, Any]:
    """The quantization config in ModelOpt's own file. If config.json names no method, the file's producer is it."""
    if not folder.has("hf_quant_config.json"):
        return {}
    file = read_json_object(folder, "hf_quant_config.json")
    method = said.get("quant_method") or str(_object(file, "producer").get("name", "modelopt")).lower()
    return {"quant_method": method, **_object(file, "quantization")}


def _object(of: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = of.get(key)
    return found if isinstance(found, dict) else {}


@lru_cache
def schemes() -> tuple[Scheme, ...]:
    """Every scheme, in the order of the file names."""
    names = sorted(module.name for module in iter_modules(__path__))
    modules = (import_module(f"{__name__}.{name}") for name in names)
    return tuple(module.SCHEME for module in modules if hasattr(module, "SCHEME"))


def resolved(stored: Tensors, quantization: Quantization) -> Tensors:
    """The logical tensors of a checkpoint whose config describes a quantization.

    Raises:
        UnsupportedError: no scheme is known for the checkpoint's quantization.
        InputError: the parts of a weight contradict each other or the config.
    """
    parts = {name: _part(name, expr) for name, expr in stored.items()}
    found = _resolved(parts, quantization)
    return {name: stored[name] if expr is parts.get(name) else expr for name, expr in found.items()}


def _part(name: str, expr: TensorExpr) -> TensorExpr:
    """A stored tensor as schemes take it: with one number or more, and with a dimension."""
    if 0 in expr.shape:
        raise InputError("it holds no numbers", tensor=name, hint="get an intact copy of the model")
    if isinstance(expr.dtype, ElementType) and (expr.dtype.is_packed or expr.dtype.dtype.kind == "c"):
        raise UnsupportedError(
            f"numbers of type {expr.dtype} in a quantized checkpoint are not known",
            tensor=name,
            hint="convert the original 16-bit checkpoint",
        )
    return as_vector(expr)


def _resolved(stored: Tensors, quantization: Quantization) -> Tensors:
    scheme = next((scheme for scheme in schemes() if scheme.fits(quantization, stored)), None)
    if not any(_may_be_codes(expr) for expr in stored.values()):
        log.warning(
            "%s: the config speaks of quantization (%s), and no weight is quantized: they are taken as they are",
            quantization.folder.path,
            printable(quantization.method),
        )
        return scheme.logical(stored, quantization) if scheme else stored
    if scheme is None:
        raise UnsupportedError(
            f"checkpoints quantized with {printable(quantization.method)} are not supported yet",
            file=quantization.folder.path / "config.json",
            hint="convert the original 16-bit checkpoint",
        )
    found = scheme.logical(stored, quantization)
    return {name: expr if expr is stored.get(name) else in_scheme(expr, scheme.name) for name, expr in found.items()}


def _may_be_codes(expr: TensorExpr) -> bool:
    """Whether a tensor may hold codes. I64 and BOOL are for positions and masks, and no scheme uses them for codes."""
    return isinstance(expr.dtype, ElementType) and expr.dtype.name not in ("I64", "BOOL", "F64")
