"""Checksums of a GGUF file: of each tensor, of all tensors, and of the file.

The lines for tensors are those of llama.cpp's llama-gguf-hash: type, hash, FILE:TENSOR, and for all tensors of a file
together FILE. A line of type `sha256sum` is the hash of the file itself, as the program of that name and model hubs
show it. Other lines that are read: those of sha256sum, sha1sum and md5sum (without a type, or with --tag), a digest
alone, and the pointer that Git LFS keeps in place of a file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice, takewhile
from os import PathLike, fsdecode
from os.path import lexists
from pathlib import Path
from typing import TypeAlias

from gguf_forge.engine.threads import Progress
from gguf_forge.errors import InputError, printable
from gguf_forge.gguf_file.opened import GgufFile, open_gguf
from gguf_forge.gguf_file.rules import COPYABLE, refuse
from gguf_forge.gguf_file.tensor import GgufTensor
from gguf_forge.storage.local.held_folder import made_folder
from gguf_forge.storage.local.publish import check_output, published
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.storage.source import Source
from gguf_forge.toolbox.inspect.rows_of import in_order

SUMS = "a list of checksums"  # what messages call it
_OF_FILE = "sum"
TENSORS = "sha256"

_EXPLAINED = (
    "# sha256sum: the file, as the program sha256sum prints it; sha256: a tensor, or all tensors without metadata"
)
_AT_ONCE = 4 << 20
# The limits of a file of sums, and of a line in it. A file of many tensors has a line of some 150 characters for each.
_MOST_BYTES, _MOST_SUMS, _LONGEST_LINE = 32 << 20, 1 << 18, 2000
_MOST_COLONS = 64  # in a line of a file and a tensor
_MOST_SHOWN = 5
_ALGORITHMS = {64: "sha256", 40: "sha1", 32: "md5"}  # by the length of a digest in hexadecimal
_HASH = f"(?P<hash>{'|'.join(f'[0-9a-fA-F]{{{length}}}' for length in _ALGORITHMS)})"
_LINE = re.compile(rf"(?:(?P<kind>[a-z0-9]+)\s+)?{_HASH}\s+\*?(?P<name>.+)")
_TAGGED = re.compile(rf"(?P<kind>[A-Z0-9]+)\s*\((?P<name>.+)\)\s*=\s*{_HASH}")
_ALONE = re.compile(rf"(?:(?:oid\s+)?(?P<kind>[a-z0-9]+):)?{_HASH}")
_XXH64 = re.compile(r"xxh64\s+[0-9a-fA-F]{16}\s+.+")


@dataclass(frozen=True)
class Checksum:
    """One line: the hash of a tensor, of all tensors of a file, or of a file.

    Attributes:
        kind: The hash function, such as `sha256`, for tensors; with "sum" behind it for a file.
        hash: In hexadecimal.
        file: The name of the file; empty if the digest stands alone.
        tensor: Whose hash it is; None for all.
    """

    kind: str
    hash: str
    file: str
    tensor: str | None = None

    def __str__(self) -> str:
        return f"{self.kind:<8}  {self.hash}  {self.name}"

    @property
    def name(self) -> str:
        """FILE, or FILE:TENSOR."""
        return self.file if self.tensor is None else f"{self.file}:{self.tensor}"


@dataclass(frozen=True)
class SumsCheck:
    """The result of checking sums. Names are those of files, or FILE:TENSOR.

    Attributes:
        matching: How many hashes are right.
        different: The names whose hashes are wrong.
        missing: The names in the sums that the file does not have.
        unnamed: Tensors that the sums do not name, if they name any, and parts of a split that they do not name.
        others: How many lines are for other files.
        listed_as: The name that the sums have for the file, if that is another one.
    """

    matching: int
    different: tuple[str, ...]
    missing: tuple[str, ...]
    unnamed: tuple[str, ...]
    others: int = 0
    listed_as: str | None = None

    @property
    def ok(self) -> bool:
        return not (self.different or self.missing or self.unnamed)


def write_sums(
    source: str | PathLike[str],
    out: str | PathLike[str],
    *,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda n_bytes: None,
) -> tuple[Checksum, ...]:
    """Writes the SHA-256 of each tensor of a GGUF file, of all of them, and of the file.

    Args:
        source: The file, or the first one of a split.
        out: The file to write.
        threads: Defaults to the processors this process may use.
        overwrite: Replace `out` if it exists.
        progress: Told bytes as they are hashed: those of tensors twice, those of the files once.

    Raises:
        InputError: a file is damaged, or a name has a line break.
        RefusedError: `out` exists.

    Example:
        >>> write_sums("model.gguf", "model.gguf.sums")  # doctest: +SKIP
    """
    with made_folder(Path(out).parent) as folder:
        with open_gguf(source, lenient=True) as gguf:
            refuse(gguf.broken, but=COPYABLE)
            check_output(Path(out), 0, gguf.paths, overwrite=overwrite, folder=folder, content=SUMS)
            sums = sums_of(gguf, threads=threads, progress=progress)
            gguf.check_unchanged()
        broken = next((line for line in sums if "\n" in str(line)), None)
        if broken is not None:
            problem = "a name has a line break, which no file of sums can hold"
            raise InputError(problem, file=source, tensor=broken.tensor)
        text = "".join(f"{line}\n" for line in (_EXPLAINED, *sums)).encode(errors="surrogateescape")
        with published(Path(out), len(text), overwrite=overwrite, folder=folder) as file:
            file.write_at(0, memoryview(text))
    return sums


def sums_of(
    gguf: GgufFile, *, threads: int | None = None, progress: Progress = lambda n_bytes: None
) -> tuple[Checksum, ...]:
    """All sums of an opened file, in its order."""
    shards = zip(gguf.paths, gguf.shards, strict=True)
    jobs = [job for path, tensors in shards for job in _jobs(path, tensors, TENSORS)]
    return tuple(_hashed(jobs, threads, progress))


_Piece = tuple[int, int]


@dataclass(frozen=True)
class _Job:
    """Something to hash: pieces (offset, bytes) of a file."""

    kind: str
    path: Path
    tensor: str | None
    source: Source | None
    pieces: Sequence[_Piece]

    @property
    def algorithm(self) -> str:
        return self.kind.removesuffix(_OF_FILE)


def _jobs(path: Path, tensors: Sequence[GgufTensor], algorithm: str) -> Iterator[_Job]:
    for tensor in tensors:
        yield _Job(algorithm, path, tensor.name, tensor.source, [(tensor.offset, tensor.nbytes)])
    if tensors:
        yield _Job(algorithm, path, None, tensors[0].source, [(tensor.offset, tensor.nbytes) for tensor in tensors])
    yield _Job(algorithm + _OF_FILE, path, None, None, ())


def _hashed(jobs: Sequence[_Job], threads: int | None, progress: Progress) -> Iterator[Checksum]:
    def run(job: _Job) -> tuple[Checksum, int]:
        state = hashlib.new(job.algorithm, usedforsecurity=False)
        done = 0
        for piece in _read(job):
            state.update(piece)
            done += len(piece)
        return Checksum(job.kind, state.hexdigest(), job.path.name, job.tensor), done

    # The longest items are hashed first, so that several threads finish at about the same time.
    order = sorted(range(len(jobs)), key=lambda n: (jobs[n].tensor is not None, n))
    found: dict[int, Checksum] = {}
    for number, (result, done) in zip(order, in_order(run, [jobs[n] for n in order], threads=threads), strict=True):
        progress(done)
        found[number] = result
    return (found[number] for number in range(len(jobs)))


def _read(job: _Job) -> Iterator[memoryview]:
    if job.source is None:
        with SourceFile(job.path) as file:
            yield from _in_pieces(file, [(0, file.size)])
    else:
        yield from _in_pieces(job.source, job.pieces)


def _in_pieces(source: Source, pieces: Sequence[_Piece]) -> Iterator[memoryview]:
    for offset, nbytes in pieces:
        for start in range(offset, offset + nbytes, _AT_ONCE):
            yield source.read(start, min(_AT_ONCE, offset + nbytes - start)).data


def read_sums(path: str | PathLike[str]) -> tuple[Checksum, ...]:
    """Reads a file of sums: those that `write_sums`, llama-gguf-hash, sha256sum, sha1sum or md5sum write, or a digest.

    A digest in place of the path is taken as it is, if no file has that name.

    Other lines are passed over. A name with a colon in it stays whole; `own_sums` knows the names of tensors.

    Raises:
        InputError: the file can't be read, has no digest in it that is known, or far more than any model needs.
    """
    given = _read_line(fsdecode(path).strip())
    if given is not None and not given.file and not lexists(path):
        return (given,)
    with SourceFile(Path(path)) as file:
        if file.size > _MOST_BYTES:
            raise InputError(f"has {file.size} bytes: these are no sums", file=path)
        data = file.read(0, file.size).tobytes()
    found = list(islice(filter(None, map(_read_line, _lines(data))), _MOST_SUMS + 1))
    if len(found) > _MOST_SUMS:
        raise InputError(f"has more than {_MOST_SUMS:,} sums", file=path)
    if found:
        return tuple(found)
    if any(map(_XXH64.fullmatch, _lines(data))):
        hint = "make the sums with `llama-gguf-hash --sha256`, or with `gguf-forge verify FILE --write-sums SUMS`"
        raise InputError("xxh64 is not supported, and there are no other sums", file=path, hint=hint)
    problem = "no line has a SHA-256, SHA-1 or MD5 digest in it"
    raise InputError(problem, file=path, hint="make sums with `gguf-forge verify FILE --write-sums SUMS`")


def _lines(data: bytes) -> Iterator[str]:
    """The lines that are short enough for a sum, one at a time."""
    return (line.decode(errors="surrogateescape").strip() for line in BytesIO(data) if len(line) <= _LONGEST_LINE)


def _read_line(line: str) -> Checksum | None:
    match = _LINE.fullmatch(line) or _TAGGED.fullmatch(line) or _ALONE.fullmatch(line)
    if match is None:
        return None
    digest = match["hash"].lower()
    algorithm, kind = _ALGORITHMS[len(digest)], (match["kind"] or "").lower()
    if match.re is not _LINE or not kind:  # what the other forms call SHA256 is that of a file
        kind = (kind or algorithm) + _OF_FILE
    if kind not in (algorithm, algorithm + _OF_FILE):
        return None
    return Checksum(kind, digest, match.groupdict().get("name") or "")


@dataclass(frozen=True)
class OwnSums:
    """The lines of a list that are for one model.

    Attributes:
        path: The list.
        lines: Each with the file and the tensor that it is for.
        others: How many lines are for other files.
        listed_as: The name that the list has for the file, if that is another one.
    """

    path: str
    lines: tuple[Checksum, ...]
    others: int = 0
    listed_as: str | None = None


def own_sums(gguf: GgufFile, sums: Sequence[Checksum], path: str | PathLike[str]) -> OwnSums:
    """Picks the lines that are for a file, out of all that `read_sums` gave.

    Files go by their names without folders; where a list has a name in several folders, those decide that the file's
    own path ends with. A single file may be called otherwise in a list of one file.

    Raises:
        InputError: no line is for the file; a digest alone is given for several files; or the list has different files
            of its name, and the path does not tell which one it is.
    """
    own = {path.name for path in gguf.paths}
    if len(own) > 1 and any(not line.file for line in sums):
        hint = "write the name of its file behind each digest"
        raise InputError(f"a digest alone does not say which of {len(own)} files it is for", hint=hint)
    names = own | {Path(line.file).name for line in sums if line.kind.endswith(_OF_FILE)}
    tensors = {tensor.name for tensor in gguf.tensors}
    lines = [_placed(line, names, tensors) for line in sums]
    ours = _of_its_files(gguf, zip(lines, map(_folder, sums, lines), strict=True), path)
    theirs = list(dict.fromkeys(line.file for line in lines if line.file not in own))
    is_renamed = not ours and len(own) == len(theirs) == 1
    if not ours and not is_renamed:
        raise _no_line(gguf, theirs, path)
    only = gguf.paths[0].name if len(own) == 1 else None
    chosen = tuple(replace(line, file=only or line.file) for line in (lines if is_renamed else ours))
    return OwnSums(str(path), chosen, len(lines) - len(chosen), theirs[0] if is_renamed else None)


def _folder(line: Checksum, placed: Checksum) -> tuple[str, ...]:
    """The folders that a line has before the name of its file."""
    text = line.file if placed.tensor is None else line.file.removesuffix(f":{placed.tensor}")
    return Path(text).parent.parts


_Placed: TypeAlias = tuple[Checksum, tuple[str, ...]]  # a line, and the folders of its file


def _of_its_files(gguf: GgufFile, lines: Iterable[_Placed], path: str | PathLike[str]) -> list[Checksum]:
    """The lines for the files of `gguf`, and digests without a name. `path` is named in the error."""
    places = {file.name: file.absolute().parent.parts for file in gguf.paths} | {"": ()}
    same: dict[tuple[str, str, str | None], list[_Placed]] = {}
    for line, folder in lines:
        if line.file in places:
            same.setdefault((line.file, line.kind, line.tensor), []).append((line, folder))
    return [line for (name, *_), found in same.items() for line in _nearest(found, places[name], path)]


def _nearest(lines: Sequence[_Placed], place: Sequence[str], path: str | PathLike[str]) -> list[Checksum]:
    """Of lines for one name that contradict each other, those of the folders that `place` ends with."""
    if len({line.hash for line, _ in lines}) == 1:
        return [line for line, _ in lines]
    ends = [_shared_end(folder, place) for _, folder in lines]
    near = [pair for pair, end in zip(lines, ends, strict=True) if end == max(ends)]
    folders = sorted({folder for _, folder in near})
    if len(folders) > 1:
        name = near[0][0].file
        named = ", ".join(printable(Path(*folder, name).as_posix()) for folder in folders[:_MOST_SHOWN])
        problem = f"it does not tell which of these {printable(name)} is: {named}"
        raise InputError(problem, file=path, hint="give the file in the folder that the list has, or its SHA-256 alone")
    return [line for line, _ in near]


def _shared_end(folder: Sequence[str], other: Sequence[str]) -> int:
    """How many of the last folders are the same."""
    pairs = zip(reversed(folder), reversed(other), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _placed(line: Checksum, names: Set[str], tensors: Set[str]) -> Checksum:
    """The line with its file, without folders, and its tensor apart.

    `file` is all the text after the hash. Both names in it may have colons: names that are known decide.
    """
    whole = Path(line.file).name
    if line.kind.endswith(_OF_FILE):
        return replace(line, file=whole)
    colons = [match.start() for match in islice(re.finditer(":", line.file), _MOST_COLONS)]
    parts = [(Path(line.file[:at]).name, line.file[at + 1 :]) for at in colons]
    known = [(file, tensor) for file, tensor in parts if file in names]
    held = [(file, tensor) for file, tensor in parts if tensor in tensors]
    both = [pair for pair in known if pair in held]
    if not both and whole in names:
        return replace(line, file=whole)
    file, tensor = next(iter((*both, *known, *held, *parts)), (whole, None))
    return replace(line, file=file, tensor=tensor)


def _no_line(gguf: GgufFile, theirs: Sequence[str], path: str | PathLike[str]) -> InputError:
    named = ", ".join(map(printable, theirs[:_MOST_SHOWN])) + (", ..." if len(theirs) > _MOST_SHOWN else "")
    problem = f"no checksum in it is for {printable(gguf.paths[0].name)}: it names {named}"
    return InputError(problem, file=path, hint="give the list that was written for this file, or the name it has there")


def check_sums(
    gguf: GgufFile,
    sums: OwnSums,
    *,
    threads: int | None = None,
    progress: Progress = lambda n_bytes: None,
) -> SumsCheck:
    """Compares a file with its sums, as `own_sums` gives them. Only what they name is read.

    Raises:
        InputError: the list names one file of another name, and no hash is right: it is that of another file.
    """
    every = {
        (job.kind, job.path.name, job.tensor): job
        for algorithm in {line.kind.removesuffix(_OF_FILE) for line in sums.lines}
        for path, tensors in zip(gguf.paths, gguf.shards, strict=True)
        for job in _jobs(path, tensors, algorithm)
    }
    wanted = [(line, (line.kind, line.file, line.tensor)) for line in sums.lines]
    missing = tuple(printable(line.name) for line, key in wanted if key not in every)
    named = [(line, key) for line, key in wanted if key in every]
    asked = list(dict.fromkeys(key for _, key in named))  # what several lines name is hashed once
    hashes = dict(zip(asked, _hashed([every[key] for key in asked], threads, progress), strict=True))
    results = [(hashes[key].hash == line.hash, hashes[key]) for line, key in named]
    different = tuple(_shown(found) for same, found in results if not same)
    matching = sum(same for same, _ in results)
    if sums.listed_as is not None and not matching:
        raise _no_line(gguf, [sums.listed_as], sums.path)
    return SumsCheck(matching, different, missing, _unnamed(gguf, sums.lines), sums.others, sums.listed_as)


def _unnamed(gguf: GgufFile, lines: Sequence[Checksum]) -> tuple[str, ...]:
    """The tensors that have no line, if others have one; and the parts of a split without any line."""
    files = {line.file for line in lines}
    tensors = {(line.file, line.tensor) for line in lines if line.tensor is not None}
    parts = [path.name for path in gguf.paths if path.name not in files]
    places = [(path.name, tensor.name) for path, held in zip(gguf.paths, gguf.shards, strict=True) for tensor in held]
    without = [tensor for file, tensor in places if tensors and file in files and (file, tensor) not in tensors]
    return tuple(map(printable, (*(parts if len(gguf.paths) > 1 else ()), *without)))


def _shown(found: Checksum) -> str:
    of_all = found.tensor is None and not found.kind.endswith(_OF_FILE)
    return printable(found.name) + (" (all tensors)" if of_all else "")
