"""What a GGUF file should hold, if it was made of a given source: its keys, and where each tensor comes from.

What the caller leaves open is read back from the file: the file type, and the type of each tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from gguf_forge.checkpoint import Checkpoint
from gguf_forge.engine.batches import Batch, RowSource, Target
from gguf_forge.engine.pack import pack
from gguf_forge.errors import UnsupportedError, UsageError, printable
from gguf_forge.gguf_file.expressions import expression_of
from gguf_forge.gguf_file.layout import PlacedTensor
from gguf_forge.gguf_file.opened import GgufFile, open_gguf
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, ValueType
from gguf_forge.kernels.binding import quantizable_types, types_needing_importance
from gguf_forge.planning.file_plan import BaseFile, TensorChoice
from gguf_forge.planning.from_checkpoint import base_file, choose
from gguf_forge.planning.model_plan import plan_model
from gguf_forge.recipe import FILE_TYPES, FileType, Options, file_type
from gguf_forge.recipe.file_types import AUTO, COPY
from gguf_forge.storage.paths import is_folder
from gguf_forge.types.rows import Rows
from gguf_forge.types.tensor_type import F32, TensorType, tensor_type

IMATRIX_KEYS = "quantize.imatrix."
_BY_ID = {kind.id: kind for kind in FILE_TYPES.values() if kind.id is not None}
_MOST_NAMED = 4


@dataclass(frozen=True)
class Given:
    """What the caller says of how the file was made; the rest is read from the file.

    Attributes:
        types: The file type; None for that of the file, and for its own type of each tensor.
        options: What deviates from the file type's mix.
        base: The float type of the file that was quantized; None for the type of the source.
        model: Arguments of `plan_model`: model_name, metadata_file, pre_tokenizer.
    """

    types: str | None
    options: Options
    base: str | None
    model: Mapping[str, Any]

    @property
    def decides_types(self) -> bool:
        """Do the options decide the type of each tensor, rather than the file?"""
        options = self.options
        named = (options.output_tensor_type, options.token_embedding_type)
        return bool(self.types or options.pure or options.leave_output_tensor or options.tensor_types or any(named))


@dataclass(frozen=True)
class ExpectedFile:
    """What a file should hold.

    Attributes:
        metadata: Its keys, in order.
        tensors: In order: what each is, and where its values come from.
        notes: What a user should know of how this was found out.
        base: The float type that values were rounded to before they were quantized.
    """

    metadata: Metadata
    tensors: tuple[TensorChoice, ...]
    notes: tuple[str, ...]
    base: TensorType | None


@contextmanager
def expecting(gguf: GgufFile, source: str | PathLike[str], given: Given) -> Iterator[ExpectedFile]:
    """What `gguf` should hold if it was made of `source`, as long as the block lasts.

    Args:
        gguf: The file, opened.
        source: A Hugging Face folder, or a GGUF file.
        given: What the caller says of how it was made.

    Raises:
        UsageError: the file was made with an importance matrix and none is given.
        ForgeError: whatever planning the source raises.
    """
    options = _with_recorded_matrix(gguf, given.options)
    kind = file_type(given.types) if given.types else _file_type_of(gguf)
    if is_folder(Path(source)):
        with Checkpoint.open(Path(source), weights=bool(gguf.tensors) or _has_weights(Path(source))) as checkpoint:
            yield _of_checkpoint(checkpoint, gguf, replace(options, file_type=kind), given)
    else:
        with open_gguf(source) as other:
            yield _of_gguf(other, gguf, replace(options, file_type=kind), given)


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _of_checkpoint(checkpoint: Checkpoint, gguf: GgufFile, options: Options, given: Given) -> ExpectedFile:
    plan = plan_model(checkpoint, vocab_only=not gguf.tensors, **given.model)
    if given.base:
        plan = replace(plan, native_type=_base(given.base))
    if options.file_type.is_float or plan.packed_type is not None:
        kind = options.file_type if options.file_type.is_float else AUTO
        _, metadata, chosen, warnings = choose(plan, replace(options, file_type=kind))
        return _with_types_of(gguf, ExpectedFile(metadata, tuple(chosen), warnings, None), given)
    return _quantized(base_file(plan), gguf, options, given, plan.native_type or F32)


def _of_gguf(source: GgufFile, gguf: GgufFile, options: Options, given: Given) -> ExpectedFile:
    if given.base:
        raise UsageError("--base is for checkpoints: a GGUF source has its own types", hint="leave it out")
    base = BaseFile(
        [tensor.info for tensor in source.tensors],
        {tensor.name: expression_of(tensor) for tensor in source.tensors},
        source.typed_metadata,
    )
    return _quantized(base, gguf, options, given, None)


def _quantized(
    base: BaseFile, gguf: GgufFile, options: Options, given: Given, base_type: TensorType | None
) -> ExpectedFile:
    in_parts = len(gguf.paths) > 1 and not _is_in_order(gguf)
    metadata, chosen, warnings = base.quantized(replace(options, keep_order=in_parts), only_planned=True)
    wanted = warnings if given.decides_types else ()
    return _with_types_of(gguf, ExpectedFile(metadata, tuple(chosen), wanted, base_type), given)


def _is_in_order(gguf: GgufFile) -> bool:
    from gguf_forge.recipe.tensor_rules import file_order

    infos = [tensor.info for tensor in gguf.tensors]
    return infos == sorted(infos, key=file_order)


def _with_types_of(gguf: GgufFile, expected: ExpectedFile, given: Given) -> ExpectedFile:
    """With the types that the file's own tensors have, unless options decide them."""
    if given.decides_types:
        _check_packable(expected.tensors)
        return expected
    types = {tensor.name: tensor.type for tensor in gguf.tensors}
    tensors = tuple(_as(chosen, types.get(chosen.info.name, chosen.info.type)) for chosen in expected.tensors)
    _check_packable(tensors)
    others = [
        f"{printable(mine.info.name)} {theirs.info.type} and not {mine.info.type}"
        for mine, theirs in zip(expected.tensors, tensors, strict=True)
        if mine.info.type != theirs.info.type
    ]
    if not others:
        return replace(expected, tensors=tensors)
    more = f", and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    note = f"{len(others)} tensors have another type than the mix gives them: {', '.join(others[:_MOST_NAMED])}{more}"
    return replace(expected, tensors=tensors, notes=(*expected.notes, note))


def _as(chosen: TensorChoice, kind: TensorType) -> TensorChoice:
    """A tensor with another type. A float type is what the values are rounded to, too."""
    if kind == chosen.info.type:
        return chosen
    source = chosen.source
    is_stored = source.expr.dtype.is_float and kind.is_float
    return replace(
        chosen,
        info=replace(chosen.info, type=kind),
        source=replace(source, base=kind) if is_stored else source,
    )


def _check_packable(tensors: tuple[TensorChoice, ...]) -> None:
    for chosen in tensors:
        kind, name = chosen.info.type, printable(chosen.info.name)
        if kind == chosen.source.expr.dtype:
            continue
        if kind not in quantizable_types():
            raise UnsupportedError(f"this version cannot make {kind}, and so not compare it", tensor=name)
        if kind in types_needing_importance() and chosen.source.importance is None:
            raise UsageError(
                f"the tensor is {kind}, which is made with an importance matrix",
                tensor=name,
                hint="give it with --imatrix",
            )


def _with_recorded_matrix(gguf: GgufFile, options: Options) -> Options:
    """The path of the matrix is recorded as it was typed, and is not typed the same way now."""
    recorded = gguf.typed_metadata.get(f"{IMATRIX_KEYS}file")
    if recorded is None or recorded.type is not ValueType.STRING:
        return options
    name = recorded.data if isinstance(recorded.data, str) else recorded.data.decode(errors="surrogateescape")
    if options.imatrix is None:
        entries = gguf.metadata.get(f"{IMATRIX_KEYS}entries_count", "unknown")
        raise UsageError(
            f"the file was made with an importance matrix: {printable(name)}, {entries} entries",
            file=gguf.paths[0],
            hint="give it with --imatrix",
        )
    return replace(options, imatrix=replace(options.imatrix, file=name))


def _file_type_of(gguf: GgufFile) -> FileType:
    """What general.file_type says; COPY where it says nothing that is known, which leaves all types to the file."""
    value = gguf.typed_metadata.get("general.file_type")
    known = _BY_ID.get(value.data) if value is not None and value.type is ValueType.UINT32 else None
    return known or COPY


def _base(name: str) -> TensorType:
    kind = tensor_type(name)
    if not kind.is_float:
        raise UsageError(f"the file that is quantized is F32, F16 or BF16, not {kind}")
    return kind


def repacked(source: RowSource, kind: TensorType, start: int, stop: int, *, backend: str | None = None) -> Rows:
    """Rows of a tensor as the engine makes them: rounded to the base type, then packed to `kind`.

    Args:
        source: Where the values come from.
        kind: What they become.
        start, stop: The rows, all of one matrix where each has importance of its own.
        backend: Which kernels; the default is the fastest of this machine.

    Returns:
        uint8 array (stop - start, bytes of a row).
    """
    info = TensorInfo("", source.expr.shape[::-1], kind)
    target = Target(0, PlacedTensor(info, 0), source)
    batch = Batch(source.expr, start, stop, (target,))
    [(_, packed)] = pack(source.expr.rows(start, stop), batch, backend=backend)
    return packed.view("u1").reshape(stop - start, -1)
