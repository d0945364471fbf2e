"""A GGUF file, or all files of a split one, opened for reading."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from gguf_forge.errors import ForgeError, InputError, printable
from gguf_forge.gguf_file.joined import hint_for_piece, joined_parts, pieces_of
from gguf_forge.gguf_file.reader import GgufHeader, read_header
from gguf_forge.gguf_file.rules import INCOMPLETE, BrokenRule, FormatRule, refuse
from gguf_forge.gguf_file.split import SPLIT_COUNT, SPLIT_NO, SPLIT_TENSORS, PartName
from gguf_forge.gguf_file.tensor import GgufTensor
from gguf_forge.gguf_file.values import ByteOrder, Metadata, ValueType
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.storage.paths import is_there
from gguf_forge.storage.source import Source
from gguf_forge.storage.views import Concatenated

_MOST_RANGES = 8
_INTEGERS = frozenset(kind for kind in ValueType if "INT" in kind.name)


class GgufFile:
    """The contents of a GGUF file, or of all files of a split one.

    Opening reads the headers and no tensor: it costs milliseconds, whatever the size.

    Attributes:
        paths: The file, or the files of the split in order.
        on_disk: The files on the disk. They are others than those of `paths` if `open_parts` found files joined, or
            cut.
        version: 2 or 3.
        byte_order: "<" little-endian, ">" big-endian.
        typed_metadata: Keys and typed values in file order, those of the first file.
        tensors: In file order: `name`, `shape` (the row length first), `type`, `nbytes`, and the `offset` of its data
            in the file `source.path`.
        shards: The tensors of each file.
        repeated: Further values of keys that are there several times; `typed_metadata` has the first.
        broken: The rules that the files break, and what is missing; none unless they were opened leniently.

    Example:
        >>> with open_gguf("Qwen3-0.6B-Q4_K_M.gguf") as gguf:  # doctest: +SKIP
        ...     tensor = gguf["blk.0.ffn_down.weight"]
        ...     values = tensor.values()
        >>> tensor.type.name, tensor.shape, values.shape, values.dtype  # doctest: +SKIP
        ('Q6_K', (3072, 1024), (1024, 3072), dtype('float32'))
    """

    def __init__(
        self,
        files: Sequence[Source],
        headers: Sequence[GgufHeader],
        missing: BrokenRule | None = None,
        *,
        on_disk: Sequence[Source] | None = None,
    ):
        self._files = tuple(files)
        self.on_disk = self._files if on_disk is None else tuple(on_disk)
        self.paths = tuple(file.path for file in files)
        self.version = headers[0].version
        self.byte_order: ByteOrder = headers[0].byte_order
        self.typed_metadata: Metadata = headers[0].metadata
        self.shards = tuple(header.tensors for header in headers)
        self.tensors: tuple[GgufTensor, ...] = tuple(tensor for shard in self.shards for tensor in shard)
        self.repeated = headers[0].repeated
        self.broken = (*itertools.chain.from_iterable(header.broken for header in headers), *filter(None, [missing]))

    def __repr__(self) -> str:
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return f"<GgufFile {self.paths[0]}{more}: {len(self.typed_metadata)} keys, {len(self.tensors)} tensors>"

    def __getitem__(self, name: str) -> GgufTensor:
        """The tensor with this name; KeyError if there is none."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise KeyError(name)

    def breaks(self, rule: FormatRule) -> bool:
        """Whether the files break this rule."""
        return any(each.rule is rule for each in self.broken)

    @property
    def pieces(self) -> tuple[Path, ...]:
        """The paths of the files on the disk."""
        return tuple(file.path for file in self.on_disk)

    @property
    def metadata(self) -> dict[str, Any]:
        """Key -> int, float, bool, str (bytes where it is not valid UTF-8), or a sequence of those."""
        return {
            key: value.data.item() if isinstance(value.data, np.float32) else value.data
            for key, value in self.typed_metadata.items()
        }

    def data(self) -> Iterator[tuple[Source, int, Sequence[tuple[int, int]]]]:
        """Each file, the byte where its tensor data begins (its end if it has none), offset and size of each tensor."""
        for file, shard in zip(self._files, self.shards, strict=True):
            tensors = [(tensor.offset, tensor.nbytes) for tensor in shard]
            yield file, min((offset for offset, _ in tensors), default=file.size), tensors

    def check_unchanged(self) -> None:
        """Raise InputError if a file was written to or replaced since it was opened."""
        for file in self._files:
            file.check_unchanged()

    def close(self) -> None:
        """Closes the files. No tensor data can be read afterwards."""
        for file in (*self._files, *self.on_disk):
            file.close()

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_gguf(source: str | PathLike[str], *, lenient: bool = False, partial: bool = False) -> GgufFile:
    """Opens a GGUF file; of a split one all files, given the first.

    Args:
        source: The file. The others of a split (`NAME-00001-of-00003.gguf`) are in the same folder.
        lenient: Also open files that llama.cpp does not load but whose bytes can be found: with tensor types that are
            not known, five dimensions, or a key that is there twice; files that are cut short behind their header;
            what is there of a split, or a later part of one by itself. `broken` says what is wrong.
        partial: Of a split, parts may be missing or cut short. `broken` says which.

    Raises:
        InputError: a file is missing, damaged, cut short, or contradicts itself or its siblings.
        UnsupportedError: a version or tensor type that this version does not know.

    Example:
        >>> with open_gguf("Qwen3-0.6B-Q4_K_M.gguf") as gguf:  # doctest: +SKIP
        ...     print(gguf.metadata["general.architecture"], [tensor.name for tensor in gguf.tensors])
    """
    with ExitStack() as opened, _telling_of_pieces(Path(source)):
        first = opened.enter_context(SourceFile(Path(source)))
        header = read_header(first, lenient=True)
        try:
            gguf = _with_siblings(first, header)
        except ForgeError as error:
            gguf = GgufFile([first], [header], BrokenRule(FormatRule.SPLIT, error, (printable(first.path.name),)))
        opened.push(gguf)
        if not lenient:
            refuse(gguf.broken, but=INCOMPLETE if partial else ())
        opened.pop_all()
        return gguf


def open_parts(source: str | PathLike[str]) -> GgufFile:
    """Opens what is to be merged: a split as a lenient `open_gguf` does, and also parts of a split that were joined by
    `cat`, or a file that was cut into plain pieces.

    Raises:
        ForgeError: as for `open_gguf`.
    """
    path = Path(source)
    with ExitStack() as opened:
        if pieces := pieces_of(path):
            files = [opened.enter_context(SourceFile(piece)) for piece in pieces]
            whole = Concatenated(files)
            try:
                header = read_header(whole)
            except InputError as error:
                hint = f"the pieces up to {pieces[-1].name} were joined: is there a further one?"
                raise InputError(error.words.problem, file=error.file, tensor=error.tensor, hint=hint) from error
            opened.pop_all()
            return GgufFile([whole], [header], on_disk=files)
        first = opened.enter_context(SourceFile(path))
        parts = joined_parts(first, read_header(first, lenient=True))
        if len(parts) == 1:
            return open_gguf(source, lenient=True)
        headers = [read_header(part) for part in parts]
        count = _number(headers[0].metadata, SPLIT_COUNT, path)
        if len(parts) != count:
            problem = f"{len(parts)} GGUF files are here one behind the other, and {SPLIT_COUNT} is {count}"
            raise InputError(problem, file=path, hint="get the parts again, and merge those")
        _check_split(dict(enumerate(parts)), dict(enumerate(headers)), len(parts))
        opened.pop_all()
        return GgufFile(parts, headers, on_disk=[first])


@contextmanager
def _telling_of_pieces(path: Path) -> Iterator[None]:
    """Replaces the hint of errors if the name of the file is that of a plain piece."""
    try:
        yield
    except InputError as error:
        hint = hint_for_piece(path) if is_there(path) else None
        if hint is None:
            raise
        raise InputError(error.words.problem, file=error.file, tensor=error.tensor, hint=hint) from error


def _with_siblings(first: SourceFile, header: GgufHeader) -> GgufFile:
    """The file with all others of its split that are there."""
    split = _split_beginning_with(first, header)
    if split is None:
        return GgufFile([first], [header])
    files, headers, missing = {0: first}, {0: header}, []
    with ExitStack() as opened:
        for number in range(1, split.total):
            path = first.path.with_name(str(split._replace(number=number)))
            if is_there(path):
                files[number] = opened.enter_context(SourceFile(path))
                headers[number] = read_header(files[number], lenient=True)
            else:
                missing.append(number)
        _check_split(files, headers, split.total)
        opened.pop_all()
    broken = _missing_parts(missing, split, first.path) if missing else None
    return GgufFile([*files.values()], [*headers.values()], broken)


def _missing_parts(missing: Sequence[int], split: PartName, first: Path) -> BrokenRule:
    """All missing parts, in the message as ranges of their numbers."""
    runs: list[list[int]] = []
    for number in missing:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    ranges = [" to ".join(f"{number + 1:05}" for number in run) for run in runs]
    more = f" and {len(ranges) - _MOST_RANGES} more ranges" if len(ranges) > _MOST_RANGES else ""
    verb = "is" if len(missing) == 1 else "are"
    here = f"{split.total - len(missing)} of {split.total} parts are here"
    names = [str(split._replace(number=number)) for number in missing]
    error = InputError(
        f"{here}; {', '.join(ranges[:_MOST_RANGES])}{more} {verb} missing",
        file=first.with_name(names[0]),
        hint="put all parts into one folder, under their own names; quantize, split and merge take what is here with "
        "--partial",
    )
    return BrokenRule(FormatRule.PARTS, error, tuple(map(printable, names)))


def _split_beginning_with(first: SourceFile, header: GgufHeader) -> PartName | None:
    """The split that begins with this file; None if it is whole."""
    path, metadata = first.path, header.metadata
    count = _number(metadata, SPLIT_COUNT, path) if SPLIT_COUNT in metadata else 0
    name = PartName.read(path.name)
    named = name.total if name else 1
    if count > 1 and name is None and len(joined_parts(first, header)) > 1:
        raise InputError(
            f"these are files of a split of {count}, one behind the other",
            file=path,
            hint=f"take them apart and make one file of them: `gguf-forge merge {path} OUT.gguf`",
        )
    if count <= 1:
        if named > 1:
            raise InputError(
                f"the name says that this is one of {named} files, but {SPLIT_COUNT} does not",
                file=path,
                hint="rename it if it is whole",
            )
        return None
    if name is None or count != named:
        raise InputError(
            f"{SPLIT_COUNT} is {count}, but the name does not end in -of-{count:05}.gguf",
            file=path,
            hint=f"give the files of a split their names back, from -00001-of-{count:05}.gguf",
        )
    if name.number != 0:
        raise InputError("this is not the first file of its split", file=path, hint=f"name {name._replace(number=0)}")
    return name


def _check_split(files: Mapping[int, Source], headers: Mapping[int, GgufHeader], total: int) -> None:
    """Raises InputError unless the keys of all files say that they belong together, at these places."""
    names: dict[str, Path] = {}
    for number, file in files.items():
        header = headers[number]
        for key, expected in ((SPLIT_NO, number), (SPLIT_COUNT, total)):
            if (found := _number(header.metadata, key, file.path)) != expected:
                raise InputError(
                    f"{key} is {found} where {expected} is expected",
                    file=file.path,
                    hint="the files of different splits are mixed up: get all files of one split",
                )
        for tensor in header.tensors:
            if tensor.name in names:
                other = names[tensor.name].name
                raise InputError(f"the tensor is also in {other}", file=file.path, tensor=printable(tensor.name))
            names[tensor.name] = file.path
    expected = _number(headers[0].metadata, SPLIT_TENSORS, files[0].path)
    if len(files) == total and expected != len(names):
        raise InputError(
            f"{SPLIT_TENSORS} is {expected}, but the {total} files have {len(names)} tensors",
            file=files[0].path,
            hint="the files of different splits are mixed up, or were changed one by one",
        )


def _number(metadata: Metadata, key: str, path: Path) -> int:
    value = metadata.get(key)
    if value is None or value.type not in _INTEGERS:
        raise InputError(f"{key} is {'missing' if value is None else 'not a whole number'}", file=path)
    return int(value.data)
