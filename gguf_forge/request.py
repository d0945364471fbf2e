"""What somebody asks for, in the words of the command line: what can be written down, and done elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from gguf_forge.errors import InputError, UsageError, printable
from gguf_forge.storage.paths import is_file

if TYPE_CHECKING:
    from gguf_forge.planning.file_plan import FilePlan
    from gguf_forge.planning.splits import Split
    from gguf_forge.recipe import ImportanceMatrix, Options
    from gguf_forge.storage.source import Source

_POWERS = ("", "K", "M", "G")


class MixRequest(Protocol):
    """The options that say what deviates from the mix of a file type."""

    @property
    def pure(self) -> bool: ...
    @property
    def leave_output_tensor(self) -> bool: ...
    @property
    def output_tensor_type(self) -> str | None: ...
    @property
    def token_embedding_type(self) -> str | None: ...
    @property
    def tensor_type(self) -> Sequence[str] | None: ...
    @property
    def tensor_type_file(self) -> str | os.PathLike[str] | None: ...
    @property
    def imatrix(self) -> str | os.PathLike[str] | None: ...
    @property
    def include_weights(self) -> Sequence[str] | None: ...
    @property
    def exclude_weights(self) -> Sequence[str] | None: ...
    @property
    def override_kv(self) -> Sequence[str] | None: ...
    @property
    def prune_layers(self) -> str | None: ...


def recipe_options(request: MixRequest, folder: Path | None = None) -> Options:
    """What deviates from the mix of the file type. Relative paths are those in `folder`, or in the current one."""
    from gguf_forge import recipe
    from gguf_forge.types.tensor_type import TensorType

    def target(name: str | None) -> TensorType | None:
        return recipe.parse_target_type(name) if name is not None else None

    here = folder or Path()
    file = here / request.tensor_type_file if request.tensor_type_file is not None else None
    from_file = recipe.parse_tensor_type_file(file) if file else ()
    return recipe.Options(
        pure=request.pure,
        leave_output_tensor=request.leave_output_tensor,
        output_tensor_type=target(request.output_tensor_type),
        token_embedding_type=target(request.token_embedding_type),
        tensor_types=(*map(recipe.parse_tensor_type, request.tensor_type or ()), *from_file),
        key_overrides=tuple(map(recipe.parse_key_override, request.override_kv or ())),
        prune_layers=recipe.parse_prune_layers(request.prune_layers) if request.prune_layers is not None else (),
        imatrix=_importance(request, here),
        read_from=(file,) if file else (),
    )


def _importance(request: MixRequest, folder: Path) -> ImportanceMatrix | None:
    include, exclude = request.include_weights or (), request.exclude_weights or ()
    if request.imatrix is None:
        if include or exclude:
            raise UsageError("--include-weights and --exclude-weights choose from a matrix: give one with --imatrix")
        return None
    from gguf_forge.recipe import read_imatrix

    matrix = read_imatrix(folder / request.imatrix).selected(include, exclude)
    # the path goes into the file as it was given
    return replace(matrix, file=os.fspath(request.imatrix))


class SplitRequest(Protocol):
    """The options that say how the output is split."""

    @property
    def split_max_size(self) -> str | None: ...
    @property
    def split_max_tensors(self) -> int | None: ...
    @property
    def no_tensor_first_split(self) -> bool: ...


def split_of(request: SplitRequest, *, keep: bool = False) -> Split:
    """How the output is split."""
    from gguf_forge.planning.splits import Split

    size = parse_size(request.split_max_size) if request.split_max_size is not None else None
    return Split(keep, size, request.split_max_tensors, request.no_tensor_first_split)


def parse_size(text: str, *, option: str = "--split-max-size", unit: int = 1000) -> int:
    """The bytes in `text`: a number and K, M, G or nothing, as powers of `unit`.

    Raises:
        UsageError: it is something else.

    Example:
        >>> parse_size("2G")
        2000000000
    """
    found = re.fullmatch("([0-9]{1,15})([KMG]?)", text)
    if found is None:
        raise UsageError(f"{option} {text!r} is no size", hint="for example 500M or 2G")
    return int(found[1]) * int(unit ** _POWERS.index(found[2]))


def memory_bound(text: str | None) -> int | None:
    """The bytes that --max-memory says, in powers of 1024."""
    return None if text is None else parse_size(text, option="--max-memory", unit=1024)


@dataclass(frozen=True, kw_only=True)
class Request:
    """Files to make of a checkpoint or of a GGUF file; everything else as for the options of `gguf-forge convert`.

    Attributes:
        source: A Hugging Face folder, or a GGUF file (the first one of a split).
        out: A file, a folder, a name with `{ftype}` in it; None for the usual name.
        types: File types; none for the default.

    Raises:
        UsageError: an option that is not of its type. Paths and lists are taken, too.

    Example:
        >>> Request(source="Qwen3-0.6B", types=("Q4_K_M",), tensor_type=("ffn_down=q6_k",)).pure
        False
    """

    source: str
    out: str | None = None
    types: tuple[str, ...] = ()
    split_max_size: str | None = None
    split_max_tensors: int | None = None
    no_tensor_first_split: bool = False
    pure: bool = False
    leave_output_tensor: bool = False
    output_tensor_type: str | None = None
    token_embedding_type: str | None = None
    tensor_type: tuple[str, ...] = ()
    tensor_type_file: str | None = None
    imatrix: str | None = None
    include_weights: tuple[str, ...] = ()
    exclude_weights: tuple[str, ...] = ()
    override_kv: tuple[str, ...] = ()
    prune_layers: str | None = None
    allow_requantize: bool = False
    model_name: str | None = None
    metadata: str | None = None
    pre_tokenizer: str | None = None
    vocab_only: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _plain(field.name, getattr(self, field.name), str(field.type)))

    def as_json(self) -> dict[str, Any]:
        """What deviates from the defaults, as JSON has it."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {field.name: found[field.name] for field in fields(self) if found[field.name] != field.default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    @classmethod
    def from_json(cls, value: Any, file: Path) -> Request:
        """What `as_json` wrote, read from `file`.

        Raises:
            InputError: it is something else.
        """
        if not isinstance(value, dict):
            raise InputError("the request is not an object", file=file)
        unknown = sorted(value.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise InputError(f"the request has an option {printable(unknown[0])!r}, which is not known", file=file)
        if "source" not in value:
            raise InputError("the request lacks a source", file=file)
        try:
            return cls(**value)
        except UsageError as error:
            raise InputError(error.problem, file=file) from error


_TEXTS = "tuple[str, ...]"
# By the annotation of a field. A bool is an int, too, so types are compared and not asked.
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
    "bool": (bool,),
}


def _plain(name: str, value: Any, wanted: str) -> Any:
    """An option as JSON can have it: a path as text, one or several texts as a tuple."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if wanted == _TEXTS:
        texts = (value,) if isinstance(value, str) else () if value is None else value
        if isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts):
            return tuple(texts)
    elif type(value) in _KINDS[wanted]:
        return value
    raise UsageError(f"the request's {name} is {value!r:.80}, and should be {wanted}")


class Weights(NamedTuple):
    """A file that holds tensors: where in it their data begins, and the offset and size of each."""

    source: Source
    head: int
    tensors: Sequence[tuple[int, int]]


class Planned(NamedTuple):
    """What a request comes to, as long as its source is open.

    Attributes:
        files: What is to be written.
        inputs: The files that hold the tensors.
    """

    files: tuple[FilePlan, ...]
    inputs: tuple[Weights, ...]


@contextmanager
def planned(request: Request, folder: Path | None = None) -> Iterator[Planned]:
    """Plans what is asked for. Reads no weight.

    Args:
        request: Relative paths in it are those in `folder`.
        folder: None for the current one.

    Raises:
        ForgeError: what was wrong, where, and what to do.
    """
    here = folder or Path()
    options = replace(recipe_options(request, here), allow_requantize=request.allow_requantize)
    how = _planned_gguf if is_file(here / request.source) else _planned_checkpoint
    with how(request, here, options) as plan:
        yield plan


@contextmanager
def _planned_checkpoint(request: Request, folder: Path, options: Options) -> Iterator[Planned]:
    from gguf_forge.checkpoint.safetensors_file import header_size
    from gguf_forge.planning.from_checkpoint import Wanted, open_checkpoint, plan_files

    with open_checkpoint(folder / request.source, request.vocab_only) as checkpoint:
        wanted = Wanted(
            out=_output(request, folder) or folder,
            types=request.types or None,
            options=options,
            model_name=request.model_name,
            metadata=folder / request.metadata if request.metadata is not None else None,
            pre_tokenizer=request.pre_tokenizer,
            vocab_only=request.vocab_only,
            split=split_of(request),
            strict=request.strict,
        )
        files = plan_files(checkpoint, wanted)
        tensors: dict[Path, list[tuple[int, int]]] = {file.path: [] for file in checkpoint.files}
        for tensor in checkpoint.tensors.values():
            tensors[tensor.source.path].append((tensor.offset, tensor.nbytes))
        inputs = tuple(Weights(file, header_size(file), tensors[file.path]) for file in checkpoint.files)
        yield Planned(files, inputs)


@contextmanager
def _planned_gguf(request: Request, folder: Path, options: Options) -> Iterator[Planned]:
    from gguf_forge.gguf_file.opened import open_gguf
    from gguf_forge.planning.from_gguf import plan_quantized

    of_checkpoints = {
        "--model-name": request.model_name,
        "--metadata": request.metadata,
        "--pre-tokenizer": request.pre_tokenizer,
        "--vocab-only": request.vocab_only,
    }
    in_use = [flag for flag, value in of_checkpoints.items() if value]
    if in_use:
        raise UsageError(f"{', '.join(in_use)}: no use for a GGUF file", hint="leave it out, or give a model folder")
    if not request.types:
        raise UsageError("the file type is missing", hint="name one with --type, for example Q4_K_M")
    with open_gguf(folder / request.source) as gguf:
        files = plan_quantized(
            gguf,
            _output(request, folder),
            types=request.types,
            options=options,
            split=split_of(request),
            strict=request.strict,
        )
        yield Planned(files, tuple(Weights(*item) for item in gguf.data()))


def _output(request: Request, folder: Path) -> str | None:
    # not by Path: a slash at the end says that it is a folder
    return os.path.join(folder, request.out) if request.out is not None else None  # noqa: PTH118
