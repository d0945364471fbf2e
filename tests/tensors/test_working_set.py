"""What a batch needs in memory, as it is computed beforehand, beside what it takes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from gguf_forge.checkpoint.quantized.gptq import gptq_weight
from gguf_forge.engine.batches import Batch, RowSource, Target, cut
from gguf_forge.engine.pack import pack
from gguf_forge.gguf_file.layout import PlacedTensor
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.storage import buffers
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.tensors.arithmetic import (
    Add,
    Divide,
    FoldedNorm,
    LogNeg,
    Multiply,
    NegExp,
    Product,
    Reciprocal,
    Softplus,
    Sum,
)
from gguf_forge.tensors.centered import Centered, Uncentered
from gguf_forge.tensors.codebook import Codebook
from gguf_forge.tensors.codes import ColumnCodes, Gathered, Lookup, RowCodes, RowPlanes
from gguf_forge.tensors.dequantized import Scaled
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import Stack, concat
from gguf_forge.tensors.merged import AddedVector, Merged, ReplacedRows, Rounded, Unpacked
from gguf_forge.tensors.network import ThroughNetwork
from gguf_forge.tensors.packed import RepackMxfp4, RepackNvfp4
from gguf_forge.tensors.q4_grid import OnQ4Grid
from gguf_forge.tensors.resized import Resized
from gguf_forge.tensors.row_maps import Reorder, Repeat, Reshape, RowRange, Slice, Transpose, permute_rope, reshaped
from gguf_forge.tensors.scaled_blocks import RepackScaled
from gguf_forge.tensors.stored import (
    AsI32,
    BigEndian,
    Constant,
    MinusIndex,
    PlusIndex,
    Stored,
    StoredElements,
    Widened,
    Zeros,
)
from gguf_forge.tensors.ternary import Ternary, Unrounded
from gguf_forge.types.element_type import ELEMENT_TYPES
from gguf_forge.types.tensor_type import BF16, F16, F32, Q4_0, Q4_1, Q5_0, Q8_0, TENSOR_TYPES, TensorType

# Objects of the interpreter, which no tensor makes larger.
_SMALL = 20_000


@pytest.fixture(scope="module")
def zeros(tmp_path_factory: pytest.TempPathFactory) -> SourceFile:
    path = tmp_path_factory.mktemp("zeros") / "zeros"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    return SourceFile(path)


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """tracemalloc knows nothing of mapped pages."""
    monkeypatch.setattr(buffers, "OWN_PAGES", 1 << 60)


def stored(zeros: SourceFile, shape: tuple[int, ...], dtype: TensorType = BF16) -> Stored:
    return Stored("t", zeros, 0, shape, dtype)


def elements(zeros: SourceFile, shape: tuple[int, ...], name: str) -> StoredElements:
    return StoredElements("t", zeros, 0, shape, ELEMENT_TYPES[name])


EXPRESSIONS = {
    "stored": lambda z: stored(z, (4096, 256)),
    "constant": lambda z: Constant(np.zeros((4096, 256), np.float32)),
    "zeros": lambda z: Zeros((4096, 256), BF16),
    "vector": lambda z: stored(z, (1 << 20,)),
    "permuted": lambda z: permute_rope(stored(z, (4096, 256)), 4),
    "permuted heads": lambda z: permute_rope(stored(z, (4096, 256)), 64),
    "permuted vector": lambda z: permute_rope(stored(z, (1 << 16,)), 4),
    "big endian": lambda z: BigEndian(stored(z, (4096, 256), F32)),
    "big endian blocks": lambda z: BigEndian(stored(z, (4096, 256), TensorType.named("Q4_K"))),
    "columns": lambda z: Slice(stored(z, (4096, 256)), -1, 0, 256, 2),
    "every other row": lambda z: Slice(stored(z, (2, 4096, 256)), -2, 1, 4096, 2),
    "part of each matrix": lambda z: Slice(stored(z, (16, 512, 256)), -2, 128, 384),
    "transposed": lambda z: Transpose(stored(z, (256, 4096))),
    "transposed, large": lambda z: Transpose(stored(z, (4096, 4096))),
    "transposed experts": lambda z: Transpose(stored(z, (4, 256, 1024))),
    "widened": lambda z: Widened(elements(z, (4096, 256), "F64")),
    "integers as I32": lambda z: AsI32(elements(z, (4096, 256), "I64")),
    "plus their places": lambda z: PlusIndex(elements(z, (1 << 18,), "I64")),
    "added": lambda z: Add(stored(z, (4096, 256)), 1.0),
    "stacked": lambda z: Stack((stored(z, (1024, 256)),) * 4),
    "600 experts": lambda z: Stack((stored(z, (64, 64)),) * 600),
    "some of the rows": lambda z: RowRange(Stack((stored(z, (1024, 256)),) * 8), 512, 4608),
    "merged": lambda z: reshaped(stored(z, (4096, 16, 16)), (4096, 256)),
    "with an adapter": lambda z: Merged(stored(z, (4096, 256)), stored(z, (16, 256), F32), stored(z, (4096, 16)), 2.0),
    "with an adapter, transposed": lambda z: Transpose(
        Merged(Transpose(stored(z, (256, 4096))), stored(z, (8, 256), F32), stored(z, (4096, 8)), 2.0)
    ),
    "with DoRA": lambda z: Merged(
        stored(z, (4096, 256)), stored(z, (64, 256)), stored(z, (4096, 64)), 1.0, magnitude=stored(z, (4096,))
    ),
    "with DoRA after another": lambda z: Rounded(
        Merged(
            *(stored(z, (4096, 256)), stored(z, (8, 256)), stored(z, (4096, 8)), 1.0, "", stored(z, (4096, 256))),
            stored(z, (4096,), F32),
        ),
        BF16,
    ),
    "bias with an adapter": lambda z: AddedVector(stored(z, (1 << 16,)), stored(z, (1 << 16,)), 2.0),
    "some rows replaced": lambda z: ReplacedRows(
        stored(z, (4096, 256)), stored(z, (512, 256)), tuple(range(0, 4096, 8))
    ),
    "unpacked": lambda z: Unpacked(stored(z, (4096, 256), TensorType.named("MXFP4"))),
    "seen otherwise": lambda z: Reshape(stored(z, (4096, 256)), (64, 64, 256)),
    "cut rows": lambda z: Reshape(stored(z, (256, 4096)), (4096, 256)),
    "stacked of two types": lambda z: Stack((stored(z, (1024, 256)), stored(z, (1024, 256), F32)) * 2),
    "joined": lambda z: concat((stored(z, (1024, 256)), stored(z, (512, 256)))),
    "joined columns": lambda z: concat((stored(z, (4096, 64)), stored(z, (4096, 192), F32)), -1),
    "repeated": lambda z: Repeat(stored(z, (1024, 256)), -2, 4),
    "reordered columns": lambda z: Reorder(stored(z, (4096, 256)), -1, (2, 128), (1, 0)),
    "multiplied by each other": lambda z: Product((stored(z, (4096, 256)), stored(z, (4096, 256)))),
    "softplus": lambda z: Softplus(stored(z, (4096, 256))),
    "folded norm": lambda z: FoldedNorm(*(stored(z, (4096,)) for _ in range(4))),
    "summed": lambda z: Sum((stored(z, (4096, 256), F16), stored(z, (4096, 256)))),
    "multiplied": lambda z: Multiply(stored(z, (4096, 256), F16), 3.0),
    "minus e to its power": lambda z: NegExp(stored(z, (4096, 256))),
    "logarithm": lambda z: LogNeg(stored(z, (4096, 256), F16)),
    "through a network": lambda z: ThroughNetwork(
        *(stored(z, shape) for shape in ((4096, 256), (256, 256), (256,), (128, 256), (128,))), "silu"
    ),
    "codebook": lambda z: Codebook(stored(z, (4096, 256)), stored(z, (4096,))),
    "resized grid": lambda z: Resized(stored(z, (1, 4096, 256)), 32),
    "without its mean": lambda z: Centered(stored(z, (1 << 16,))),
    "with a mean again": lambda z: Uncentered(stored(z, (1 << 16,))),
    "multiplied, undone": lambda z: Multiply(stored(z, (4096, 256), F16), 3.0).inverse(stored(z, (4096, 256), F16)),
    "softplus undone": lambda z: Softplus(stored(z, (4096, 256))).inverse(stored(z, (4096, 256))),
    "minus its place": lambda z: MinusIndex(stored(z, (1 << 16,), TENSOR_TYPES["I64"])),
    "divided": lambda z: Divide(stored(z, (4096, 256)), 3.0),
    "blocks with scales": lambda z: Scaled(elements(z, (4096, 256), "F8_E4M3"), stored(z, (32, 2), F32), 128, 128),
    "rows with scales": lambda z: Scaled(elements(z, (4096, 256), "I8"), stored(z, (4096, 1), BF16), 1, 256),
    "codes less zero points": lambda z: Scaled(
        RowCodes(elements(z, (4096, 128), "U8"), 4, 256),
        stored(z, (4096, 4)),
        1,
        64,
        ColumnCodes(elements(z, (512, 4), "I32"), 4, 4096),
    ),
    "codes plus biases": lambda z: Scaled(
        RowCodes(elements(z, (4096, 32), "U32"), 4, 256), stored(z, (4096, 4)), 1, 64, shifts=stored(z, (4096, 4))
    ),
    "codes kept as Q4_1": lambda z: RepackScaled(
        Scaled(
            RowCodes(elements(z, (4096, 32), "U32"), 4, 256), stored(z, (4096, 4)), 1, 64, shifts=stored(z, (4096, 4))
        ),
        Q4_1,
    ),
    "codes kept as Q5_0": lambda z: RepackScaled(
        Scaled(
            RowCodes(elements(z, (4096, 32), "I32"), 4, 256),
            stored(z, (4096, 8)),
            1,
            32,
            ColumnCodes(elements(z, (512, 8), "I32"), 4, 4096),
        ),
        Q5_0,
    ),
    "bytes kept as Q8_0": lambda z: RepackScaled(
        Scaled(elements(z, (4096, 256), "I8"), stored(z, (4096, 1)), 1, 256), Q8_0
    ),
    "gptq kept as Q4_0": lambda z: RepackScaled(
        Scaled(
            Transpose(ColumnCodes(elements(z, (512, 1024), "I32"), 4, 4096)),
            Gathered(Transpose(stored(z, (128, 1024), F16)), elements(z, (128,), "I32")),
            1,
            32,
            Gathered(Transpose(RowCodes(elements(z, (128, 128), "I32"), 4, 1024)), elements(z, (128,), "I32")),
        ),
        Q4_0,
    ),
    "weights on the grid of Q4_0": lambda z: OnQ4Grid(stored(z, (4096, 256))),
    "levels that are far apart": lambda z: OnQ4Grid(Constant(np.tile(np.array([-5, 0, 7, 5], np.float32), (4096, 64)))),
    "codes of bytes": lambda z: RowCodes(elements(z, (4096, 128), "U8"), 4, 256),
    "codes in another order": lambda z: RowCodes(elements(z, (4096, 32), "I32"), 4, 256, (0, 4, 1, 5, 2, 6, 3, 7)),
    "codes of a stream": lambda z: RowCodes(elements(z, (4096, 24), "I32"), 3, 256),
    "codes along columns": lambda z: ColumnCodes(elements(z, (512, 256), "I32"), 4, 4096),
    "codes across words": lambda z: ColumnCodes(elements(z, (384, 256), "I32"), 3, 4096),
    "planes": lambda z: RowPlanes(elements(z, (1024, 256), "U8"), 2, (0, 1, 2, 3)),
    "planes of words": lambda z: RowPlanes(elements(z, (512, 256), "I32"), 3, tuple(range(9, -1, -1))),
    "looked up": lambda z: Lookup(elements(z, (4096, 256), "U8"), Constant(np.zeros(256, np.float32))),
    "gathered columns": lambda z: Gathered(stored(z, (4096, 4)), elements(z, (256,), "I32")),
    "columns of codes along columns": lambda z: Transpose(ColumnCodes(elements(z, (512, 1024), "I32"), 4, 4096)),
    "columns of codes along rows": lambda z: Transpose(RowCodes(elements(z, (4096, 128), "I32"), 4, 1024)),
    "columns of many": lambda z: Transpose(RowCodes(elements(z, (4, 512, 128), "I32"), 4, 1024)),
    "rounded to three values": lambda z: Ternary(stored(z, (4096, 256))),
    "made of three values": lambda z: Unrounded(stored(z, (4096, 256))),
    "reciprocal": lambda z: Reciprocal(stored(z, (4096, 256))),
    "gptq": lambda z: gptq_weight(
        elements(z, (512, 1024), "I32"),
        elements(z, (32, 128), "I32"),
        stored(z, (32, 1024), F16),
        elements(z, (4096,), "I32"),
        128,
        1,
    ),
    "short rows": lambda z: permute_rope(stored(z, (1 << 18, 4)), 64),
    "repacked": lambda z: RepackMxfp4(elements(z, (4096, 128), "U8"), elements(z, (4096, 8), "U8")),
    "repacked nvfp4": lambda z: RepackNvfp4(elements(z, (4096, 128), "U8"), elements(z, (4096, 16), "F8_E4M3")),
    "of many": lambda z: Add(Transpose(Slice(Stack((stored(z, (512, 512)),) * 4), -2, 1, 512, 2)), 1.0),
    "packed": lambda z: stored(z, (4096, 256), TensorType.named("Q8_0")),
}


def peak_of(act: object) -> int:
    act()  # type: ignore[operator]  # what is made once and stays, such as tables
    tracemalloc.start()
    try:
        act()  # type: ignore[operator]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_taking_rows_holds_no_more_than_was_said(zeros: SourceFile, name: str) -> None:
    expr: TensorExpr = EXPRESSIONS[name](zeros)
    for n_rows in {1, -(-expr.n_rows // 3), expr.n_rows}:
        said = expr.working_set(n_rows)
        held = peak_of(lambda n_rows=n_rows: expr.rows(expr.n_rows - n_rows, expr.n_rows))
        assert held <= said + _SMALL
        # nor is it much too careful: such batches would be small
        assert said <= 8 * held + (1 << 20)


@pytest.mark.parametrize("name", ["rounded to three values", "made of three values"])
def test_the_mean_of_a_whole_matrix_holds_no_more_than_was_said(zeros: SourceFile, name: str) -> None:
    def new() -> TensorExpr:
        return EXPRESSIONS[name](zeros)

    assert peak_of(lambda: new().rows(0, 1)) <= new().working_set(1) + _SMALL


TARGETS = {
    "one": [(BF16, "Q4_K")],
    "as it is": [(BF16, "BF16")],
    "rounded": [(F16, "F16")],
    "several": [(BF16, "Q4_K"), (BF16, "Q8_0"), (BF16, "Q6_K"), (BF16, "Q4_K"), (F32, "F32"), (F16, "F16")],
    "weighed": [(BF16, "IQ2_XXS")],
}


def batch_of(expr: TensorExpr, targets: list[tuple[TensorType, str]]) -> Batch:
    def target(number: int, base: TensorType, name: str) -> Target:
        importance = np.ones(expr.shape[-1] * expr.n_rows // expr.matrix_rows, np.float32)
        source = RowSource(expr, base, importance if name.startswith("I") else None)
        return Target(number, PlacedTensor(TensorInfo("t", expr.shape[::-1], TensorType.named(name)), 0), source)

    return Batch(expr, 0, expr.n_rows, tuple(target(number, *kind) for number, kind in enumerate(targets)))


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("name", ["stored", "permuted", "transposed", "repacked", "packed"])
def test_a_batch_holds_no_more_than_was_said(zeros: SourceFile, name: str, targets: str) -> None:
    batch = batch_of(EXPRESSIONS[name](zeros), TARGETS[targets])

    def run() -> None:
        rows = batch.expr.rows(batch.start, batch.stop)
        for _, packed in pack(rows, batch):
            del packed

    assert peak_of(run) <= batch.nbytes + _SMALL


def test_batches_are_cut_to_what_they_may_hold(zeros: SourceFile) -> None:
    for name in ("stored", "transposed", "600 experts", "permuted"):
        whole = batch_of(EXPRESSIONS[name](zeros), TARGETS["several"])
        batches = list(cut([whole], 1 << 20, share=1 << 19, total=1 << 23))
        assert max(batch.nbytes for batch in batches) <= (1 << 23 if whole.expr.is_columnwise else 1 << 19)
        assert [batch.start for batch in batches[1:]] == [batch.stop for batch in batches[:-1]]
        assert (batches[0].start, batches[-1].stop) == (0, whole.expr.n_rows)


def test_a_matrix_that_is_read_by_columns_is_not_cut_without_need(zeros: SourceFile) -> None:
    whole = batch_of(EXPRESSIONS["transposed"](zeros), TARGETS["one"])
    assert len(list(cut([whole], 1000, share=1000, total=1 << 30))) == 1
