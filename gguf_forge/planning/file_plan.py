"""Plans of files, whatever they are made of: how they are checked, and how they are written.

A plan decides every byte of a file except the values of the weights.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

from gguf_forge.engine.batches import RowSource, Shard
from gguf_forge.engine.complete import difference
from gguf_forge.engine.forge import default_threads, forge
from gguf_forge.errors import RefusedError, UnsupportedError, UsageError, printable
from gguf_forge.gguf_file.split import PartName, is_header_of_part
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.kernels.binding import backend_lanes, default_backend, dequantizable_types, quantizable_types
from gguf_forge.planning.notebook import FileTable, line, size_text
from gguf_forge.recipe import Assignment, FileType, Options, importance_of, make_recipe
from gguf_forge.recipe.recipe import WOULD_BE_REFUSED
from gguf_forge.run_settings import Observer, RunSettings
from gguf_forge.storage.local.held_folder import HeldFolder, held, made_folder
from gguf_forge.storage.local.output import refuse_existing
from gguf_forge.storage.local.publish import check_output, check_room, published_together, tidy, unfinished
from gguf_forge.storage.memory import check_memory
from gguf_forge.storage.paths import is_there
from gguf_forge.storage.source import Source
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.wording import log_of

log = log_of(__name__)


@dataclass(frozen=True)
class TensorChoice:
    """A tensor of a file.

    Attributes:
        info: Its name, shape and type.
        source: Where its values come from.
        origin: Its name in that source.
        is_fallback: Whether its type is not the wanted one, because its rows do not divide into the blocks of that.
        is_kept: Whether it keeps the blocks of the source at the user's wish.
        lacks_importance: Its type is refused without importance, and it has none.
        rule: What decided its type, in words; empty where the file type alone did.
    """

    info: TensorInfo
    source: RowSource
    origin: str
    is_fallback: bool = False
    is_kept: bool = False
    lacks_importance: bool = False
    rule: str = ""


@dataclass(frozen=True)
class FilePlan:
    """The plan of one file, or of all parts of a split one: every byte except the values of the weights.

    Attributes:
        file_type: Its file type, with `auto` resolved.
        metadata: Its keys, in order, but for those that tell how it is split; none of a file that is no GGUF file.
        shards: The parts, in order; one if it is not split.
        fallbacks: Tensors that got another type, because their rows do not divide into the blocks of the wanted type.
        warnings: What the user asked for that has no effect.
        source_bytes: Bytes of the tensors as the source holds them.
        inputs: Every file that is read.
        kept: Tensors that keep the blocks of the source at the user's wish; None if that was not wished.
        lacking: Tensors whose types are refused without importance, and that have none. Only a plan that cannot be
            carried out has them.
        rules: What decided the type of each tensor, by its name, in words; those that the file type alone decided are
            left out.
        part: The part of the model that it is: main, mmproj, mtp, dspark, or lora-TASK.
    """

    file_type: FileType
    metadata: Metadata
    shards: tuple[Shard, ...]
    fallbacks: tuple[str, ...]
    warnings: tuple[str, ...]
    source_bytes: int
    inputs: tuple[Path, ...]
    kept: tuple[str, ...] | None = None
    lacking: tuple[str, ...] = ()
    rules: Mapping[str, str] = field(default_factory=dict)
    part: str = "main"

    def __repr__(self) -> str:
        return line("FilePlan", self.facts)

    @property
    def facts(self) -> dict[str, str]:
        """What a notebook shows of it. The whole header would be megabytes."""
        return {
            "file": str(self.path),
            "type": self.file_type.name,
            "size": size_text(self.size),
            "bits a weight": f"{self.bits_per_weight:.2f}",
            "tensors": str(len(self.tensors)),
        }

    @property
    def path(self) -> Path:
        """Where the file goes; of a split, its first part."""
        return self.shards[0].path

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(shard.layout.size for shard in self.shards)

    @property
    def sources(self) -> tuple[RowSource, ...]:
        """Where each tensor's values come from."""
        return tuple(source for shard in self.shards for source in shard.sources)

    @property
    def read_from(self) -> tuple[Source, ...]:
        """The files that the values of tensors come from."""
        return tuple({id(read): read for row in self.sources for read in row.expr.sources()}.values())

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """Names, shapes and types, in file order."""
        return tuple(placed.info for shard in self.shards for placed in shard.layout.tensors)

    @property
    def bytes_to_write(self) -> int:
        """Bytes of headers and tensors: the sum of all bytes that an observer is told about."""
        return sum(shard.bytes_to_write for shard in self.shards)

    @property
    def bits_per_weight(self) -> float:
        """Bits of tensor data for each weight; 0 for a vocabulary alone."""
        weights = sum(info.n_elements for info in self.tensors)
        return 8 * sum(info.nbytes for info in self.tensors) / weights if weights else 0.0

    @property
    def fallen(self) -> tuple[TensorInfo, ...]:
        """The tensors of `fallbacks`, with the types they get."""
        names = set(self.fallbacks)
        return tuple(info for info in self.tensors if info.name in names)

    @property
    def fallback_share(self) -> float:
        """The share of the weights that are in the tensors of `fallbacks`."""
        fallen = sum(info.n_elements for info in self.fallen)
        return fallen / sum(info.n_elements for info in self.tensors) if fallen else 0.0

    @property
    def types(self) -> Mapping[str, int]:
        """How many tensors have each type, the most frequent first."""
        return dict(Counter(info.type.name for info in self.tensors).most_common())


@dataclass(frozen=True)
class WrittenFile:
    """A file that was written.

    Attributes:
        file: What was planned.
        seconds: Of the run that wrote it, perhaps with others.
        resumed_tensors: How many of its tensors a stopped run had finished.
        was_complete: An earlier run had finished all of it, and this one left it as it was.
    """

    file: FilePlan
    seconds: float
    resumed_tensors: int = 0
    was_complete: bool = False

    def __repr__(self) -> str:
        return line("WrittenFile", self.facts)

    @property
    def facts(self) -> dict[str, str]:
        """What a notebook shows of it."""
        return {**self.file.facts, "seconds": f"{self.seconds:.1f}"}

    @property
    def path(self) -> Path:
        """Where the file is; of a split, its first part."""
        return self.file.path


@dataclass(frozen=True)
class BaseFile:
    """The input of llama-quantize: a GGUF file that exists, or the one that llama.cpp's converter would make.

    Attributes:
        infos: Its tensors.
        expressions: Their values, by name.
        metadata: Its keys.
        kept: Expressions of packed types that have the values of tensors, by name. They are taken instead of
            quantizing these tensors.
    """

    infos: Sequence[TensorInfo]
    expressions: Mapping[str, TensorExpr]
    metadata: Metadata
    kept: Mapping[str, TensorExpr] = field(default_factory=dict)

    def quantized(
        self, options: Options, *, only_planned: bool = False
    ) -> tuple[Metadata, list[TensorChoice], tuple[str, ...]]:
        """The keys, tensors and warnings of the file that llama-quantize would make of this one."""
        kept = {name: expr.dtype for name, expr in self.kept.items()}
        recipe = make_recipe(self.infos, self.metadata, options, kept, only_planned=only_planned)
        chosen = [
            TensorChoice(
                assignment.output,
                self._source(assignment, options),
                assignment.info.name,
                assignment.fallback,
                assignment.is_kept,
                assignment.needs_imatrix and importance_of(assignment, options) is None,
                assignment.rule,
            )
            for assignment in recipe.assignments
        ]
        return recipe.metadata, chosen, recipe.warnings

    def _source(self, assignment: Assignment, options: Options) -> RowSource:
        name = assignment.info.name
        if assignment.is_kept:
            return RowSource(self.kept[name], assignment.type)
        return RowSource(self.expressions[name], assignment.info.type, importance_of(assignment, options))


def said_and_checked(files: Iterable[FilePlan], *, strict: bool, may_keep_split: bool = False) -> tuple[FilePlan, ...]:
    """Logs the warnings of the plans of one run, each once, and gives the plans.

    Args:
        files: The plans.
        strict: Refuse other types than the wanted ones.
        may_keep_split: The source is a split that the output could follow.

    Raises:
        InputError: the plans of so many tensors and types would take more memory than the run may.
        UsageError: two files would have the same path; a whole file would have the name of a part.
        RefusedError: with `strict`, a tensor would get another type because its rows do not fit.
    """
    every = tuple(_within_memory(files))
    for warning in dict.fromkeys(_warnings_of(every)):
        log.warning("%s", warning)
    refuse_equal_paths(every)
    for file in every:
        refuse_part_name(file.path, file.shards[0].layout.header, ", or add --keep-split" if may_keep_split else "")
    if strict:
        refuse_fallbacks(every)
    return every


def _within_memory(files: Iterable[FilePlan]) -> Iterator[FilePlan]:
    """The plans, which are made one after the other, as long as the memory suffices for another one like the last."""
    for number, file in enumerate(files):
        yield file
        if number:
            headers = sum(len(shard.layout.header) for shard in file.shards)
            need = headers + _MEMORY_OF_TENSOR * len(file.tensors)
            check_memory(need, f"the plan of another file type than the first {number + 1}", file.inputs[0])


def _warnings_of(files: Iterable[FilePlan]) -> Iterator[str]:
    """The warnings of files. Several files that lack importance have one warning together."""
    lacking: dict[str, str] = {}
    for file in files:
        wanting = f"{WOULD_BE_REFUSED}{file.file_type} needs "
        for warning in file.warnings:
            if file.lacking and warning.startswith(wanting):
                lacking[str(file.file_type)] = warning
            else:
                yield warning
    if len(lacking) > 1:
        names = ", ".join(lacking)
        yield f"{len(lacking)} types would be refused, as they need an importance matrix (--imatrix): {names}"
    else:
        yield from lacking.values()


def refuse_part_name(path: Path, header: bytes, other_way: str = "") -> None:
    """Raise UsageError if a whole file would have the name of a part of a split, which readers would take it for. They
    take the only part of a split for a whole file.

    Args:
        path: Of the file.
        header: Its encoded header.
        other_way: What else helps; the end of the hint.
    """
    name = PartName.read(path.name)
    if name and name.total > 1 and not is_header_of_part(header, name.total):
        raise UsageError(
            f"this is the name of one of {name.total} parts of a split, and the output is a whole file",
            file=path,
            hint=f"choose {printable(name.stem)}.gguf{other_way}",
        )


def refuse_equal_paths(files: Sequence[FilePlan]) -> None:
    """Raise UsageError if two files would have the same path, even if they have different numbers of parts."""
    names = [PartName.read(file.path.name) for file in files]
    paths = Counter(
        file.path.with_name(name.stem) if name else file.path for file, name in zip(files, names, strict=True)
    )
    path, n_files = paths.most_common(1)[0]
    if n_files > 1:
        raise UsageError(
            f"{n_files} files, but only one output name: {path}",
            hint="give a folder (models/), or put {ftype} in the name",
        )


def refuse_fallbacks(files: Iterable[FilePlan]) -> None:
    """Raise RefusedError if a tensor would get another type than the wanted one, because its rows do not fit."""
    for file in files:
        if file.fallen:
            first = ", ".join(f"{printable(info.name)} as {info.type}" for info in file.fallen[:_NAMED])
            raise RefusedError(
                f"as {file.file_type}, {len(file.fallen)} of {len(file.tensors)} tensors "
                f"({file.fallback_share:.1%} of the weights) would get another type, because their row length is not "
                f"a multiple of the block size: {first}{', ...' if len(file.fallen) > _NAMED else ''}",
                hint="leave out --strict, take a type with blocks of 32 such as Q8_0, or name types with --tensor-type",
            )


_NAMED = 3  # tensors that a message names
_MEMORY_OF_TENSOR = 500  # bytes that a plan holds for each tensor, besides the header


def make_files(files: Iterable[FilePlan], run: RunSettings) -> FileTable[WrittenFile]:
    """Checks planned files and writes them; raises what `check_files` and `write_files` do.

    Folders that are missing are made. A run that fails removes them again.
    """
    every = tuple(files)
    with ExitStack() as made:
        folders = {place: made.enter_context(made_folder(place)) for place in _places(every)}
        check_files(every, run, folders)
        kernels = run.backend or default_backend()
        threads = run.threads or default_threads()
        log.info("kernels: %s (%d lanes); threads: %d", kernels, backend_lanes(kernels), threads)
        return write_files(every, run, folders)


def _places(files: Iterable[FilePlan]) -> dict[Path, None]:
    """The folders of all files, each once."""
    return dict.fromkeys(shard.path.parent for file in files for shard in file.shards)


def check_files(
    files: Iterable[FilePlan], run: RunSettings, folders: Mapping[Path, HeldFolder] = MappingProxyType({})
) -> None:
    """Raises the errors that can be known before any work.

    Args:
        files: The files.
        run: How it is run.
        folders: Their folders that are held open, by their paths. Other folders may be missing.

    Raises:
        UnsupportedError: no kernel makes a type that a file needs, or reads one that it is made of.
        UsageError: this machine cannot run the backend.
        RefusedError: a file is one of the inputs, or exists and may not be replaced.
        OutputError: a file cannot be written there, or the disk has too little room for all of them.
    """
    every = tuple(files)
    check_kernels(every, run)
    todo = []
    with ExitStack() as opened:
        there = (place for place in _places(every) if place not in folders and is_there(place))
        folders = {**folders, **{place: opened.enter_context(held(place)) for place in there}}
        for file in every:
            for shard in file.shards:
                why = _why_unfinished(file, shard, run)
                if why is None:
                    continue
                replaces, folder = run.overwrite or run.resume, folders.get(shard.path.parent)
                check_output(shard.path, shard.layout.size, file.inputs, overwrite=replaces, folder=folder)
                if folder is not None and run.resume and not run.overwrite:
                    problem = f"already exists, and is not what this run would make: {why}"
                    refuse_existing(folder, shard.path, problem)
                todo.append((shard.path, shard.layout.size))
    check_room(every[0].path.parent, todo)


def _why_unfinished(file: FilePlan, shard: Shard, run: RunSettings) -> str | None:
    """The reason why a file or part is written; None if it is complete already and is kept."""
    return difference(shard, file.inputs) if run.resume and not run.overwrite else "it is made anew"


def check_kernels(files: Iterable[FilePlan], run: RunSettings) -> None:
    """Raises those errors of `check_files` that are about kernels: UsageError or UnsupportedError."""
    backend_lanes(run.backend or default_backend())
    for file in files:
        _check_types(file)


def _check_types(file: FilePlan) -> None:
    changed = [
        (source.expr.dtype, info.type)
        for info, source in zip(file.tensors, file.sources, strict=True)
        if source.expr.dtype != info.type
    ]
    missing = sorted({target.name for _, target in changed if target not in quantizable_types()})
    if missing:
        raise UnsupportedError(
            f"as {file.file_type}, this model has {', '.join(missing)} tensors, which this version cannot make yet",
            hint="choose another type",
        )
    packed = {stored for stored, _ in changed if not stored.is_float}
    unreadable = sorted(stored.name for stored in packed - dequantizable_types())
    if unreadable:
        raise UnsupportedError(
            f"the model has {', '.join(unreadable)} tensors, which this version cannot unpack yet",
            hint="start from a 16-bit or 32-bit file of the model",
        )


def write_files(
    files: Iterable[FilePlan], run: RunSettings, folders: Mapping[Path, HeldFolder]
) -> FileTable[WrittenFile]:
    """Writes planned files into their folders, which are held open. The sources are read only once for all of them.

    To resume, files and parts that are complete stay as they are, unless the settings ask for new ones.

    Raises:
        OutputError: a file cannot be written. No file is left under any of the names.
    """
    every, watcher = tuple(files), run.observer or Observer()
    begun = time.perf_counter()
    complete = {s.path for file in every for s in file.shards if _why_unfinished(file, s, run) is None}
    unfinished = [file for file in every if not _is_complete(file, complete)]
    todo = [shard for file in unfinished for shard in file.shards if shard.path not in complete]
    for path in complete:
        tidy(path, folders[path.parent])
    if len(unfinished) < len(every):
        watcher.complete([file for file in every if _is_complete(file, complete)])
    there = sum(s.bytes_to_write for file in unfinished for s in file.shards if s.path in complete)

    def begin() -> None:
        if unfinished:
            watcher.begin(unfinished)
        if there:
            watcher.resumed(there)

    publish = partial(published_together, folders=folders)
    resumed = forge(todo, run, watcher.advance, publish, watcher.resumed, begin)
    if run.resume:
        for folder in folders.values():
            _tell_of_unfinished(folder)
    found = {shard.path: n for shard, n in zip(todo, resumed, strict=True)}
    seconds = time.perf_counter() - begun
    return FileTable(
        WrittenFile(file, seconds, _resumed_tensors(file, found), was_complete=_is_complete(file, complete))
        for file in every
    )


def _tell_of_unfinished(folder: HeldFolder) -> None:
    """Says that runs with other options, such as more parts or types, left unfinished files that this one has no use
    for."""
    count, nbytes = unfinished(folder)
    if count:
        log.warning(
            "%s: %d unfinished files of other outputs are left (.gguf-forge-*.partial, %s): --resume with the options "
            "that began them continues them; remove them if nobody wants that",
            *(folder.path, count, size_text(nbytes)),
        )


def _is_complete(file: FilePlan, complete: Collection[Path]) -> bool:
    return all(shard.path in complete for shard in file.shards)


def _resumed_tensors(file: FilePlan, found: Mapping[Path, int]) -> int:
    """How many tensors an earlier run had finished, also in parts that this run completed."""
    return sum(found.get(shard.path, len(shard.sources)) for shard in file.shards)
