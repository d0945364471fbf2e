"""`--keep-quantized`: which tensors of a quantized checkpoint become ggml's blocks without being quantized again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gguf_forge.architectures.mapping import PlannedTensor
from gguf_forge.errors import naming
from gguf_forge.planning.model_plan import ModelPlan
from gguf_forge.recipe.tensor_rules import may_quantize
from gguf_forge.tensors.exact_blocks import as_exact_blocks, is_quantized
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.q4_grid import on_q4_grid
from gguf_forge.wording import log_of

log = log_of(__name__)


def with_kept_blocks(plan: ModelPlan) -> ModelPlan:
    """The plan with the tensors whose values a packed type holds exactly, as blocks of this type.

    Scales and zero points are read, and a few rows of tensors that are not quantized. They decide expressions and
    types, which a run's fingerprint contains; a run also ends in an error if a file changes before the end.

    Raises:
        InputError: a scale is infinite or not a number.
    """
    kept: dict[str, TensorExpr] = {}
    for tensor in _matrices(plan):
        with naming(tensor.name):
            blocks = next(_blocks_of(tensor.expr), None)
        if blocks is not None:
            kept[tensor.name] = blocks
    return replace(plan, kept=kept)


def say_left(plan: ModelPlan) -> None:
    """Logs how many quantized tensors keep no blocks."""
    kept = plan.kept or {}
    left = sum(is_quantized(tensor.expr) and tensor.name not in kept for tensor in _matrices(plan))
    if left:
        log.warning("%d quantized tensors have values that no blocks hold exactly: they are quantized again", left)
    elif not kept:
        log.warning("--keep-quantized: no tensor of the checkpoint is quantized")


def _matrices(plan: ModelPlan) -> Iterator[PlannedTensor]:
    """The tensors that may get a quantized type."""
    architecture = str(plan.metadata["general.architecture"].data)
    return (t for t in plan.tensors if may_quantize(t.name, t.expr.shape[::-1], architecture))


def _blocks_of(expr: TensorExpr) -> Iterator[TensorExpr]:
    if expr.dtype.is_packed:
        yield expr
        return
    found = as_exact_blocks(expr) if is_quantized(expr) else on_q4_grid(expr)
    if found is not None:
        yield found
