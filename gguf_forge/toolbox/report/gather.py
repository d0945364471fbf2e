"""Everything a page shows, gathered from a file and its source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import inf
from pathlib import Path

import numpy as np

from gguf_forge.engine.threads import Progress
from gguf_forge.errors import UnsupportedError, UsageError
from gguf_forge.gguf_file.opened import GgufFile
from gguf_forge.gguf_file.tensor import GgufTensor
from gguf_forge.kernels.binding import dequantizable_types
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.toolbox.inspect.measure import Distance, distance_between, overall
from gguf_forge.toolbox.inspect.rows_of import with_short_rows
from gguf_forge.toolbox.report.data import BlockError, BlockView, Error, Lessons, Overall, Portrait, Report, Tensor
from gguf_forge.toolbox.report.lessons import make_lessons
from gguf_forge.toolbox.report.model import describe, fallback_types, layer_and_role, visible
from gguf_forge.toolbox.report.sample import Sample, block_errors, block_view, levels_of, portrait_of, take_sample
from gguf_forge.toolbox.verify.integrity import Problem, problems_of
from gguf_forge.types.tensor_type import TensorType
from gguf_forge.wording import log_of

log = log_of(__name__)


_PORTRAITS = 4
_POOL = 6


@dataclass(frozen=True)
class Origin:
    """What a file was made of: its name, and its tensors by the names that the file has for them."""

    name: str
    tensors: Mapping[str, TensorExpr]

    @property
    def files(self) -> frozenset[Path]:
        """What its tensors are read from."""
        return frozenset(source.path for expr in self.tensors.values() for source in expr.sources())


@dataclass(frozen=True)
class _Subject:
    """A tensor of the file, the same tensor in the source, and the results for it."""

    tensor: GgufTensor
    stored: TensorExpr | None
    source: TensorExpr | None

    @property
    def is_readable(self) -> bool:
        tensor_type = self.tensor.type
        is_number = tensor_type.block_elements == 1 or tensor_type in dequantizable_types()
        return self.stored is not None and self.tensor.info.n_elements > 0 and is_number

    def sample(self, rows: np.ndarray | None = None) -> Sample:
        if self.stored is None:
            raise UnsupportedError("the tensor cannot be read", tensor=self.tensor.name)
        stored = self.stored if self.source is not None else with_short_rows(self.stored)
        return take_sample(visible(self.tensor.name), stored, self.source, rows)


def gather(
    gguf: GgufFile, origin: Origin | None, *, threads: int | None = None, progress: Progress = lambda n_bytes: None
) -> Report:
    """Reads a file once, and what it was made of once, in row ranges.

    Args:
        gguf: The file.
        origin: What it was made of, if that is at hand.
        threads: Defaults to the processors this process may use.
        progress: Told the bytes of tensors as they are done: all of them once, and once more with a source.

    Raises:
        UsageError: no tensor of the file can be compared with the source.
    """
    wanted = fallback_types([tensor.info for tensor in gguf.tensors], gguf.typed_metadata)
    subjects = [_subject(tensor, origin) for tensor in gguf.tensors]
    if origin is not None and subjects and all(subject.source is None for subject in subjects):
        raise UsageError(
            f"nothing can be compared: no tensor of the file has the name and shape of one in {visible(origin.name)}",
            file=gguf.paths[0],
            hint="name the model that the file was made of with --source",
        )
    problems = _problems(gguf, threads, progress)
    tensors, distances = [], []
    for subject in subjects:
        found, distance = _measure(subject, wanted.get(subject.tensor.name), threads)
        tensors.append(found)
        if distance is not None:
            distances.append(distance)
        if origin is not None:
            progress(subject.tensor.nbytes)
    told = list(zip(subjects, tensors, strict=True))
    return Report(
        version=version("gguf-forge"),
        model=describe(gguf),
        source=visible(origin.name) if origin else None,
        missing=tuple(found.name for subject, found in told if origin and subject.source is None),
        error=_together(distances) if distances else None,
        problems=problems,
        tensors=tuple(tensors),
        portraits=tuple(_portraits(told)),
        blocks=tuple(_blocks(told)),
        lessons=_lessons(told),
    )


def _problems(gguf: GgufFile, threads: int | None, progress: Progress) -> tuple[Problem, ...] | None:
    try:
        return problems_of(gguf, threads=threads, progress=progress)
    except UnsupportedError as error:
        log.warning("blocks are not checked: %s", error.as_written)
        return None


def _subject(tensor: GgufTensor, origin: Origin | None) -> _Subject:
    try:
        stored = tensor.expression()
    except UnsupportedError as error:
        log.warning("%s", error.as_written)
        return _Subject(tensor, None, None)
    source = origin.tensors.get(tensor.name) if origin else None
    fits = source is not None and (source.n_rows, source.shape[-1]) == (stored.n_rows, stored.shape[-1])
    return _Subject(tensor, stored, source if fits else None)


def _measure(subject: _Subject, wanted: TensorType | None, threads: int | None) -> tuple[Tensor, Distance | None]:
    info = subject.tensor.info
    layer, role = layer_and_role(info.name)
    distance = levels = None
    if subject.is_readable and subject.stored is not None:
        if subject.source is not None:
            distance = distance_between(subject.source, subject.stored, threads=threads)
        levels = levels_of(subject.sample()) if not info.type.is_float and info.type.block_elements > 1 else None
    return (
        Tensor(
            name=visible(info.name),
            layer=layer,
            role=visible(role, 60),
            shape=info.shape,
            type=info.type.name,
            parameters=info.n_elements,
            nbytes=info.nbytes,
            wanted=wanted.name if wanted else None,
            error=_error(distance) if distance else None,
            levels=levels,
        ),
        distance,
    )


def _error(distance: Distance) -> Error:
    worst, worst_relative = distance.worst, distance.worst_relative
    return Error(
        rmse=distance.rmse,
        relative=inf if distance.relative is None else distance.relative,
        snr_db=distance.snr,
        largest=distance.max_error,
        cosine=distance.cosine,
        nonfinite=distance.nonfinite,
        worst=BlockError(worst.row, worst.block, worst_relative) if worst and worst_relative is not None else None,
    )


def _together(distances: Sequence[Distance]) -> Overall:
    together = overall(distances)
    return Overall(
        tensors=len(distances),
        relative=inf if together.relative is None else together.relative,
        snr_db=together.snr,
        largest=max(one.max_error for one in distances),
        nonfinite=sum(one.nonfinite for one in distances),
    )


_Told = Sequence[tuple[_Subject, Tensor]]


def _matrices(told: _Told) -> list[tuple[_Subject, Tensor]]:
    return [(subject, found) for subject, found in told if subject.is_readable and len(found.shape) > 1]


def _relative(found: Tensor) -> float:
    return found.error.relative if found.error else 0.0


def _portraits(told: _Told) -> Iterable[Portrait]:
    """The distributions of a few tensors that are worth a look."""
    matrices = _matrices(told)
    rounded = [pair for pair in matrices if _relative(pair[1]) > 0]
    packed = [pair for pair in matrices if pair[1].levels]
    reasons: list[tuple[str, tuple[_Subject, Tensor]]] = []
    if rounded:
        by_error = sorted(rounded, key=lambda pair: _relative(pair[1]))
        reasons += [("the largest error", by_error[-1]), ("the smallest error", by_error[0])]
        reasons.append(("a typical error", by_error[len(by_error) // 2]))
    elif packed:
        by_ends = sorted(packed, key=lambda pair: pair[1].levels.at_ends if pair[1].levels else 0.0)
        reasons += [("most values on the first and last level", by_ends[-1])]
        reasons += [("fewest values on the first and last level", by_ends[0])]
    if matrices:
        reasons.append(("the most weights", max(matrices, key=lambda pair: pair[1].parameters)))
        reasons.append(("the middle of the model", matrices[len(matrices) // 2]))
    seen: set[str] = set()
    for why, (subject, found) in reasons:
        if found.name in seen or len(seen) == _PORTRAITS:
            continue
        portrait = portrait_of(subject.sample(), why)
        if portrait:
            seen.add(found.name)
            yield portrait


def _blocks(told: _Told) -> Iterable[BlockView]:
    """Blocks of the type that most weights have: with a source, the one that lost most, a hard one and an easy one."""
    packed = [pair for pair in _matrices(told) if pair[1].levels]
    if not packed:
        return
    weights: Counter[str] = Counter()
    for _, found in packed:
        weights[found.type] += found.parameters
    main = weights.most_common(1)[0][0]
    subject, found = max((pair for pair in packed if pair[1].type == main), key=lambda pair: _worst(pair[1]))
    sample = subject.sample()
    rms = _rms(found)
    errors = block_errors(sample, rms)
    known = np.flatnonzero(np.isfinite(errors))
    if found.error and found.error.worst and known.size:
        worst = found.error.worst
        row = subject.sample(np.array([worst.row]))
        order = known[np.argsort(errors[known], kind="stable")]
        views = [block_view(row, worst.block, "the block that lost most", rms)]
        views.append(block_view(sample, int(order[len(order) // 2]), "a typical block", rms))
        views.append(block_view(sample, int(order[0]), f"the block that lost least of {len(errors):,}", rms))
    else:
        powers = np.square(sample.stored, dtype=np.float64).reshape(len(errors), -1).sum(axis=1)
        views = [block_view(sample, int(np.argsort(powers)[len(powers) // 2]), "an ordinary block", rms)]
        views.append(block_view(sample, int(powers.argmax()), "the block of the largest weights", rms))
    yield from (view for view in views if view)


def _rms(found: Tensor) -> float:
    """Root of the mean square of the source's weights; 0 where nothing is known of it, or nothing was lost."""
    return found.error.rmse / found.error.relative if found.error and found.error.relative else 0.0


def _worst(found: Tensor) -> float:
    return found.error.worst.relative if found.error and found.error.worst else 0.0


def _lessons(told: _Told) -> Lessons | None:
    """The lessons, made from the source's weights, or without a source from the most precise tensors of the file."""
    usable = [pair for pair in _matrices(told) if pair[1].shape[0] % 256 == 0]
    usable = usable or [pair for pair in _matrices(told) if pair[1].shape[0] % 32 == 0]
    with_source = [pair for pair in usable if pair[0].source is not None]
    finest = max((found.bits_per_weight for _, found in usable), default=0.0)
    of_source = bool(with_source) or finest >= 16
    chosen = with_source or [pair for pair in usable if pair[1].bits_per_weight == finest]
    if not chosen:
        return None
    picked = np.unique(np.linspace(0, len(chosen) - 1, _POOL).astype(int))
    pool = [chosen[at][0].sample().as_rows() for at in picked]
    own = frozenset(found.type for _, found in told)
    return make_lessons(pool, of_source=of_source, finest=inf if of_source else finest, own=own)
