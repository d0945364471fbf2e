"""Verifies a GGUF file: by itself, with checksums, or byte by byte against what it was made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from gguf_forge.engine.batches import RowSource
from gguf_forge.engine.threads import Progress
from gguf_forge.errors import ForgeError, UsageError, printable
from gguf_forge.gguf_file.opened import GgufFile, open_gguf
from gguf_forge.gguf_file.rules import OF_OTHER_PROGRAMS, BrokenRule, refuse
from gguf_forge.gguf_file.tensor import GgufTensor
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import ValueType
from gguf_forge.kernels.rows import dequantize
from gguf_forge.planning.file_plan import TensorChoice
from gguf_forge.planning.making import refuse_two_mixes
from gguf_forge.planning.model import FileContent
from gguf_forge.recipe import Options
from gguf_forge.recipe.requested import options_of
from gguf_forge.recipe.tensor_rules import trimmed
from gguf_forge.request import Request, refuse_unknown
from gguf_forge.run_settings import RunSettings
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.storage.paths import is_folder
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import Constant, stored_in
from gguf_forge.toolbox.inspect.metadata_diff import KeyDifference, metadata_differences
from gguf_forge.toolbox.inspect.rows_of import in_order, row_ranges
from gguf_forge.toolbox.tokens import TokenCheck, check_tokens
from gguf_forge.toolbox.verify.checksums import SumsCheck, check_sums, own_sums, read_sums
from gguf_forge.toolbox.verify.differences import Differences, differences_between
from gguf_forge.toolbox.verify.expected import expecting, folder_names, repacked
from gguf_forge.toolbox.verify.integrity import Problem, problems_of
from gguf_forge.toolbox.verify.transforms import omissions, steps_of
from gguf_forge.toolbox.verify.verdict import TensorCheck, Verdict, verdict_on, verdict_on_file
from gguf_forge.types.rows import PackedRows, Rows
from gguf_forge.types.tensor_type import BF16, F16, F32, TensorType

_OTHER_NAMES = (
    "names that differ come from the name of the source's folder and do not count; --model-name NAME compares the name"
)

_TENSORS_ALONE = "--only-tensors compares the tensors alone"
_ON_PURPOSE = "--override-kv names a key that was set on purpose, and its value"
_OVERRIDABLE = (ValueType.UINT32, ValueType.FLOAT32, ValueType.BOOL, ValueType.STRING)

# Types of files that others are requantized from, the most usual ones first.
_BETWEEN = tuple(map(TensorType.named, ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0", "Q5_0", "Q5_1", "Q4_1")))


@dataclass(frozen=True)
class Verification:
    """What `verify_gguf` found.

    Attributes:
        paths: The file, or the files of a split.
        size: Bytes of all files.
        n_tensors: How many tensors they have.
        problems: What is wrong with the file by itself.
        sums: How it compares with checksums; None if none were given.
        verdict: How it compares with its source; None if none was given.
        sentences: The same in words.
        notes: What a user should know of how the file was compared.
        broken: Why llama.cpp does not load the file, if other programs do.
        keys: Metadata keys that differ.
        names: Keys that differ and do not count, because the source's folder has another name.
        order: The first tensor out of its place; None if the order is right.
        tensors: Every tensor, and what became of it; none without a source.
        tokens: How the vocabulary compares with the source's own tokenizer; None if that was not asked for.
    """

    paths: tuple[Path, ...]
    size: int
    n_tensors: int
    problems: tuple[Problem, ...]
    sums: SumsCheck | None = None
    verdict: Verdict | None = None
    sentences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    broken: tuple[BrokenRule, ...] = ()
    keys: tuple[KeyDifference, ...] = ()
    names: tuple[KeyDifference, ...] = ()
    order: str | None = None
    tensors: tuple[TensorCheck, ...] = ()
    tokens: TokenCheck | None = None

    def __repr__(self) -> str:
        state = "ok" if self.ok else "not ok"
        compared = "not compared with a source" if self.verdict is None else self.verdict.value
        return f"<Verification {self.paths[0]}: {state}, {compared}, {self.n_tensors} tensors>"

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with the file."""
        return self._is_sound and self.verdict in (None, Verdict.IDENTICAL)

    @property
    def only_fused(self) -> bool:
        """Whether the only differences are those that fused multiply-add makes."""
        return self._is_sound and self.verdict is Verdict.FUSED and not (self.keys or self.order)

    @property
    def only_metadata(self) -> bool:
        """Whether all tensors are identical, and only metadata keys or the order of tensors differ."""
        return self._is_sound and self.verdict is Verdict.METADATA

    @property
    def _is_sound(self) -> bool:
        has_tokens = self.tokens is None or self.tokens.ok
        return not self.problems and (self.sums is None or self.sums.ok) and has_tokens

    @property
    def first(self) -> TensorCheck | None:
        """The first tensor that differs."""
        return next((check for check in self.tensors if check.verdict is not Verdict.IDENTICAL), None)


def verify_gguf(
    file: str | PathLike[str],
    source: str | PathLike[str] | None = None,
    *,
    file_type: str | None = None,
    options: Options | None = None,
    base_type: str | None = None,
    sums: str | PathLike[str] | None = None,
    only_tensors: bool = False,
    texts: Sequence[str] | None = None,
    threads: int | None = None,
    backend: str | None = None,
    progress: Progress = lambda n_bytes: None,
    **more: Any,
) -> Verification:
    """Checks a GGUF file: its structure and blocks, checksums, and every byte against its source.

    With a source, each tensor is made again, a few rows at a time, and compared. If the arguments do not give the file
    type, it is read from the file, and so is the type of each tensor.

    Args:
        file: The file, or the first one of a split.
        source: What it was made of: a Hugging Face folder, or a GGUF file.
        file_type: The file type that it should have, and the types of tensors with it.
        options: What deviates from the file type's mix: importance matrix, overrides, pruned layers.
        base_type: The float type of the file that was quantized, where that is not the checkpoint's own.
        sums: A file of checksums, of `write_sums`, llama-gguf-hash or sha256sum; or the file's digest.
        only_tensors: Leave the metadata out of the comparison.
        texts: Texts that the vocabulary must split as the source's own tokenizer does; None to leave that out. It needs
            the extra `tokens`.
        threads, backend: How it is run; see `RunSettings`.
        progress: Told bytes of the file, each as often as it is read.
        more: How the file was made, in fields of `Request`: `imatrix`, `model_name`, `pre_tokenizer`, `lora`,
            `as_reference` and others, as for `convert`.

    Raises:
        TypeError: there is no such keyword.
        InputError: the file breaks a rule of the format, or the source does.
        UsageError: an importance matrix is needed and none is given.
        UnsupportedError: the source is of a kind that this version does not know.

    Example:
        >>> verify_gguf("Qwen3-0.6B-Q4_K_M.gguf", "Qwen3-0.6B").ok  # doctest: +SKIP
        True
    """
    refuse_unknown(verify_gguf, more)
    request = None
    if source is not None:
        refuse_two_mixes(options, more)
        request = Request(**{"source": source, "types": file_type, **more})
        options = options_of(request) if options is None else replace(options, as_reference=request.as_reference)
    elif more or file_type or base_type:
        refuse_recipe_without_source()
    run = RunSettings(threads=threads, backend=backend)
    return verify(
        *(file, request, run, options or Options()),
        base_type=base_type,
        sums=sums,
        only_tensors=only_tensors,
        texts=texts,
        progress=progress,
    )


def refuse_recipe_without_source() -> NoReturn:
    """Raises UsageError: what says how a file was made has a use only with what it was made of."""
    problem = "options that say how the file was made need --source"
    raise UsageError(problem, hint="add --source DIR, what it was made of")


def verify(
    path: str | PathLike[str],
    request: Request | None,
    run: RunSettings,
    options: Options,
    *,
    base_type: str | None = None,
    sums: str | PathLike[str] | None = None,
    only_tensors: bool = False,
    texts: Sequence[str] | None = None,
    progress: Progress = lambda n_bytes: None,
) -> Verification:
    """Checks a GGUF file as `verify_gguf` does; a request, if there is one, says what it was made of and how."""
    # The arguments are checked before the file is read, because reading may take long.
    lines = read_sums(sums) if sums is not None else None
    if texts is not None and (request is None or not is_folder(Path(request.source))):
        raise UsageError("tokens are compared with those of a model folder", hint="name it with --source")
    with (
        open_to_verify(path, of_source=request is not None) as gguf,
        expecting(gguf, request, options, base_type) if request is not None else nullcontext() as expected,
    ):
        own = own_sums(gguf, lines, sums) if lines is not None and sums is not None else None
        found = Verification(
            gguf.paths,
            sum(file.stat().st_size for file in gguf.paths),
            len(gguf.tensors),
            problems_of(gguf, threads=run.threads, progress=progress),
            broken=gguf.broken,
        )
        if own is not None:
            found = replace(found, sums=check_sums(gguf, own, threads=run.threads, progress=progress))
        if expected is not None:
            of_folder = folder_names(request) if request is not None else frozenset()
            found = _compared(found, gguf, expected, of_folder, only_tensors, run, progress)
        gguf.check_unchanged()
        if texts is not None and request is not None:
            folder = LocalFolder(Path(request.source))
            found = replace(found, tokens=check_tokens(gguf.typed_metadata, folder, texts))
    return found


def open_to_verify(path: str | PathLike[str], *, of_source: bool) -> GgufFile:
    """Opens a file that is verified. Files that other programs write on purpose are taken, if there is no source: how
    they are made nobody here knows."""
    gguf = open_gguf(path, lenient=not of_source)
    try:
        refuse(gguf.broken, but=OF_OTHER_PROGRAMS)
    except ForgeError:
        gguf.close()
        raise
    return gguf


def _compared(
    found: Verification,
    gguf: GgufFile,
    expected: FileContent,
    of_folder: frozenset[str],
    only_tensors: bool,
    run: RunSettings,
    progress: Progress,
) -> Verification:
    tensors = _checks(gguf, expected, run, progress)
    for source in {id(s): s for chosen in expected.tensors for s in chosen.source.expr.sources()}.values():
        source.check_unchanged()
    keys = () if only_tensors else metadata_differences(expected.metadata, gguf.typed_metadata)
    names = keys if all(each.key in of_folder for each in keys) else ()
    keys = () if names else keys
    order = None if only_tensors else _out_of_order(gguf, expected)
    verdict, sentences = verdict_on_file(tensors, bool(keys or order))
    hints = (_OTHER_NAMES,) if names else tuple(_hints(keys)) if verdict is Verdict.METADATA else ()
    return replace(
        found,
        verdict=verdict,
        sentences=sentences,
        notes=(*expected.notes, *hints),
        keys=keys,
        names=names,
        order=order,
        tensors=tensors,
    )


def _hints(keys: Sequence[KeyDifference]) -> Iterator[str]:
    """How a file is verified whose tensors are right, and whose keys were changed on purpose."""
    yield _TENSORS_ALONE
    if any(each.found is not None and each.found.type in _OVERRIDABLE for each in keys):
        yield _ON_PURPOSE


def _out_of_order(gguf: GgufFile, expected: FileContent) -> str | None:
    wanted, there = [chosen.info.name for chosen in expected.tensors], [tensor.name for tensor in gguf.tensors]
    common = set(wanted) & set(there)
    pairs = zip([n for n in wanted if n in common], [n for n in there if n in common], strict=True)
    return next((printable(mine) for mine, theirs in pairs if mine != theirs), None)


def _checks(gguf: GgufFile, expected: FileContent, run: RunSettings, progress: Progress) -> tuple[TensorCheck, ...]:
    """Every tensor of the file with the tensor that it should be, in the file's order. Missing tensors come last."""
    wanted = {chosen.info.name: chosen for chosen in expected.tensors}
    checks: dict[str, TensorCheck] = {}
    pairs = []
    for tensor in gguf.tensors:
        chosen = wanted.get(tensor.name)
        checks[tensor.name] = check = _before_comparing(tensor, chosen)
        if chosen is not None and check.verdict is Verdict.IDENTICAL:
            pairs.append(_Pair(tensor, tensor.expression(), chosen))
    for pair, found, ranges in _differing(pairs, run, progress):
        check = checks[pair.tensor.name]
        weighed = pair.chosen.source.importance is not None
        verdict = verdict_on(found, pair.tensor.type, check.blocks, by_importance=weighed)
        explanation = _explained(pair, ranges, run)
        checks[pair.tensor.name] = replace(check, verdict=verdict, differences=found, explanation=explanation)
    missing = [_check(chosen.info, chosen, Verdict.MISSING) for name, chosen in wanted.items() if name not in checks]
    return (*checks.values(), *missing)


def _before_comparing(tensor: GgufTensor, chosen: TensorChoice | None) -> TensorCheck:
    info = replace(tensor.info, shape=trimmed(tensor.shape))
    if chosen is None:
        return _check(info, None, Verdict.EXTRA)
    shape = trimmed(chosen.info.shape)
    if shape != info.shape:
        return _check(info, chosen, Verdict.SHAPE, " x ".join(map(str, shape)))
    if chosen.info.type != info.type:
        return _check(info, chosen, Verdict.TYPE, chosen.info.type.name)
    return _check(info, chosen, Verdict.IDENTICAL)


def _check(info: TensorInfo, chosen: TensorChoice | None, verdict: Verdict, expected: str | None = None) -> TensorCheck:
    blocks = info.n_elements // info.type.block_elements
    if chosen is None:
        return TensorCheck(info, verdict, blocks)
    names = tuple(dict.fromkeys(stored.name for stored in stored_in(chosen.source.expr)))
    return TensorCheck(info, verdict, blocks, names, steps_of(chosen.source, info.type), expected)


class _Pair(NamedTuple):
    """A tensor of the file, and what it should be."""

    tensor: GgufTensor
    expr: TensorExpr
    chosen: TensorChoice


_RowSpan = tuple[int, int]


def _differing(
    pairs: list[_Pair], run: RunSettings, progress: Progress
) -> Iterator[tuple[_Pair, Differences, list[_RowSpan]]]:
    """The tensors whose bytes differ, where, and in which ranges of rows."""
    work = (
        (pair, rows)
        for pair in pairs
        for rows in row_ranges(pair.chosen.source.expr, by_matrix=pair.chosen.source.importance is not None)
    )
    current: tuple[_Pair, Differences, list[_RowSpan]] | None = None
    for pair, rows, nbytes, found in in_order(partial(_compare, run.backend), work, threads=run.threads):
        progress(nbytes)
        if found is None:
            continue
        if current is not None and current[0] is not pair:
            yield current
            current = None
        before = current or (pair, Differences(), [])
        current = pair, before[1].plus(found), [*before[2], rows]
    if current is not None:
        yield current


def _compare(backend: str | None, work: tuple[_Pair, _RowSpan]) -> tuple[_Pair, _RowSpan, int, Differences | None]:
    pair, (start, stop) = work
    tensor_type = pair.tensor.type
    found = _stored(pair, start, stop)
    expected = repacked(pair.chosen.source, tensor_type, start, stop, backend=backend)
    if np.array_equal(expected, found):
        return pair, (start, stop), found.nbytes, None
    source = pair.chosen.source
    values = repacked(source, F32, start, stop, backend=backend).view(np.float32)
    differences = differences_between(
        expected, found, tensor_type, values, importance=source.importance_of(start), first_row=start
    )
    return pair, (start, stop), found.nbytes, differences


def _stored(pair: _Pair, start: int, stop: int) -> PackedRows:
    return np.ascontiguousarray(pair.expr.rows(start, stop)).view(np.uint8).reshape(stop - start, -1)


# Makes rows of a tensor, as bytes.
_Way = Callable[[int, int], Rows]


def _explained(pair: _Pair, ranges: list[_RowSpan], run: RunSettings) -> str | None:
    """Another way of making a tensor that gives what the file has in all ranges that differ, in words.

    One row is enough to rule out most ways.
    """
    start, _ = ranges[0]
    for words, way in _other_ways(pair.chosen.source, pair.tensor.type, run.backend):
        is_made = partial(_is_made, pair, way)
        if is_made((start, start + 1)) and all(in_order(is_made, ranges, threads=run.threads)):
            return words
    return None


def _is_made(pair: _Pair, way: _Way, rows: _RowSpan) -> bool:
    return np.array_equal(way(*rows), _stored(pair, *rows))


def _other_ways(source: RowSource, tensor_type: TensorType, backend: str | None) -> Iterator[tuple[str, _Way]]:
    def by(other: RowSource) -> _Way:
        return partial(repacked, other, tensor_type, backend=backend)

    of_floats, is_packed = source.expr.dtype.is_float, not tensor_type.is_float
    other_bases = [base for base in (F16, BF16, F32) if base != source.base] if of_floats else []
    by_way = {f"by way of {base} instead of {source.base}": replace(source, base=base) for base in other_bases}
    if is_packed:
        for words, based in by_way.items():
            yield words, by(based)
    if source.importance is not None and is_packed:
        yield "without the importance matrix", by(replace(source, importance=None))
    for words, without in omissions(source.expr):
        yield words, by(replace(source, expr=without))
    for between in _BETWEEN:
        if of_floats and between != tensor_type and source.expr.shape[-1] % between.block_elements == 0:
            yield f"when requantized from {between}", partial(_requantized, source, between, tensor_type, backend)
            for words, based in by_way.items():
                yield (
                    f"when requantized from {between}, {words}",
                    partial(_requantized, based, between, tensor_type, backend),
                )


def _requantized(
    source: RowSource, between: TensorType, tensor_type: TensorType, backend: str | None, start: int, stop: int
) -> Rows:
    """Rows that were packed to another type, unpacked, and then packed to `tensor_type`."""
    blocks = repacked(replace(source, importance=None), between, start, stop, backend=backend)
    base = tensor_type if tensor_type.is_float else F32
    again = RowSource(Constant(dequantize(blocks, between)), base, source.importance_of(start))
    return repacked(again, tensor_type, 0, stop - start, backend=backend)
