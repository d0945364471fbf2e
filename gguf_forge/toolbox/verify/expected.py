"""What a GGUF file should hold, if it was made of a given source: its keys, and where each tensor comes from.

What the caller leaves open is read back from the file: the file type, and the type of each tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from gguf_forge.engine.batches import Batch, RowSource, Target
from gguf_forge.engine.pack import pack
from gguf_forge.errors import ForgeError, UnsupportedError, UsageError, printable
from gguf_forge.general import FOLDER_NAMES
from gguf_forge.gguf_file.layout import PlacedTensor
from gguf_forge.gguf_file.opened import GgufFile
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import ValueType
from gguf_forge.kernels.binding import quantizable_types, types_needing_importance
from gguf_forge.planning.big_endian import OF_CONVERTER
from gguf_forge.planning.file_plan import TensorChoice
from gguf_forge.planning.model import FileContent, OpenModel
from gguf_forge.planning.open_model import open_origin
from gguf_forge.planning.parts import for_part_of
from gguf_forge.recipe import FILE_TYPES, FileType, Options
from gguf_forge.recipe.file_types import COPY
from gguf_forge.request import Request
from gguf_forge.storage.paths import is_folder
from gguf_forge.toolbox.inspect.metadata_diff import metadata_differences
from gguf_forge.types.rows import Rows
from gguf_forge.types.tensor_type import F32, Q8_0, TensorType

IMATRIX_KEYS = "quantize.imatrix."
_BY_ID = {file_type.id: file_type for file_type in FILE_TYPES.values() if file_type.id is not None}
_MOST_NAMED = 4
_OF_REFERENCE = (
    "the keys and tensors are those of llama.cpp's own tools, which are wrong for this model, as --as-reference "
    "writes them: "
    "docs/exactness.md says how; convert the model again for right ones"
)
_MOST_SAMPLED = 16


@contextmanager
def expecting(gguf: GgufFile, request: Request, options: Options, base: str | None) -> Iterator[FileContent]:
    """What `gguf` should hold if it was made as the request says, as long as the block lasts.

    Args:
        gguf: The file, opened.
        request: What it was made of and what is said of the model. Without a file type it is that of the file, and each
            tensor has its own type.
        options: What deviates from the file type's mix.
        base: The float type of the file that was quantized; None for the type of the source.

    Raises:
        UsageError: the file was made with an importance matrix and none is given.
        ForgeError: whatever planning the source raises.
    """
    file_type = FileType.named(request.types[0]) if request.types else _file_type_of(gguf, request.source)
    in_parts = len(gguf.paths) > 1 and not _is_in_order(gguf)
    options = replace(_with_recorded_matrix(gguf, options), file_type=file_type, keep_order=in_parts)
    request = replace(request, vocab_only=not gguf.tensors)
    with open_origin(
        request.source,
        vocab_only=request.vocab_only,
        base=request.base_model,
        mistral_format=request.mistral_format,
        drop_tensor=request.drop_tensor,
        lora=request.lora,
    ) as model:
        of_base = _base(base) if base is not None else None
        if not request.vocab_only:
            request = for_part_of(gguf.metadata, [tensor.name for tensor in gguf.tensors], model, request)
        content = model.content(request, options, of_base)
        is_of_reference = _is_of_reference(gguf, content, model, request, options, of_base)
        if is_of_reference:
            request, options = replace(request, as_reference=True), replace(options, as_reference=True)
            content = model.content(request, options, of_base)
        joined = _joined(gguf, request, content)
        if joined != request:
            request, content = joined, model.content(joined, options, of_base)
        if not request.types:
            request, content = _with_fp8_as_q8(gguf, request, content, model, options, of_base)
        content = _as_converter_orders(gguf, request, content, model, options, of_base)
        if not _decides_types(request, options):
            kept = model.content(replace(request, keep_quantized=True), options, of_base)
            if request.keep_quantized or _keeps_blocks(gguf, content, kept):
                plain = model.content(replace(request, keep_quantized=False), options, of_base)
                content = _with_kept_blocks(gguf, plain, kept)
            content = _with_types_of(gguf, content)
        _check_packable(content.tensors)
        yield replace(content, notes=(*content.notes, _OF_REFERENCE)) if is_of_reference else content


def _is_of_reference(
    gguf: GgufFile, content: FileContent, model: OpenModel, request: Request, options: Options, base: TensorType | None
) -> bool:
    """Whether the file has the keys and tensors that llama.cpp's own tools write, where these are wrong and ours are
    others."""
    if request.as_reference or _is_like(gguf, content, request):
        return False
    try:
        other = model.content(replace(request, as_reference=True), replace(options, as_reference=True), base)
    except ForgeError:
        return False
    return _is_like(gguf, other, request)


def _is_like(gguf: GgufFile, content: FileContent, request: Request) -> bool:
    """Whether the file has the keys of the content, and lacks none of its tensors."""
    lacked = {chosen.info.name for chosen in content.tensors} - {tensor.name for tensor in gguf.tensors}
    return not lacked and _has_keys(gguf, content, request)


def _has_keys(gguf: GgufFile, content: FileContent, request: Request) -> bool:
    """Whether the file has the keys of the content, names from the folder apart."""
    names = folder_names(request)
    return all(each.key in names for each in metadata_differences(content.metadata, gguf.typed_metadata))


def folder_names(request: Request) -> frozenset[str]:
    """The keys that may come from the name of the source's folder, which says nothing of the model.

    A name that the caller gives is none of them.
    """
    if not is_folder(Path(request.source)) or request.metadata is not None:
        return frozenset()
    return FOLDER_NAMES - {"general.name"} if request.model_name is not None else FOLDER_NAMES


def _joined(gguf: GgufFile, request: Request, content: FileContent) -> Request:
    """The request with the options that join tensors, if the file has such tensors and the source does not."""
    others = {tensor.name for tensor in gguf.tensors} - {chosen.info.name for chosen in content.tensors}
    has_qkv, has_gate_up = (any(role in name for name in others) for role in (".attn_qkv.", ".ffn_gate_up_exps."))
    return replace(
        request,
        fuse_qkv=request.fuse_qkv or has_qkv,
        fuse_gate_up_exps=request.fuse_gate_up_exps or has_gate_up,
    )


def _with_fp8_as_q8(
    gguf: GgufFile, request: Request, content: FileContent, model: OpenModel, options: Options, base: TensorType | None
) -> tuple[Request, FileContent]:
    """The request with --fp8-as-q8 and its content, if the file has Q8_0 where this option makes it of FP8."""
    types = {tensor.name: tensor.type for tensor in gguf.tensors}
    plain = {chosen.info.name for chosen in content.tensors if chosen.info.type.is_float}
    if not any(types.get(name) == Q8_0 for name in plain):
        return request, content
    changed = replace(request, fp8_as_q8=True)
    try:
        other = model.content(changed, options, base)
    except ForgeError:  # the source is a GGUF file
        return request, content
    of_fp8 = {chosen.info.name for chosen in other.tensors if chosen.info.type == Q8_0} & plain
    is_made_so = of_fp8 and all(types.get(name) == Q8_0 for name in of_fp8)
    return (changed, other) if is_made_so else (request, content)


def _as_converter_orders(
    gguf: GgufFile,
    request: Request,
    content: FileContent,
    model: OpenModel,
    options: Options,
    base: TensorType | None,
) -> FileContent:
    """The content as the reference's converter makes it alone, if a quantized file has its order of tensors."""
    names = [tensor.name for tensor in gguf.tensors]
    if options.file_type.name not in OF_CONVERTER or names == [chosen.info.name for chosen in content.tensors]:
        return content
    alone = model.content(replace(request, bigendian=True), replace(options, keep_order=False), base)
    return alone if names == [chosen.info.name for chosen in alone.tensors] else content


def _decides_types(request: Request, options: Options) -> bool:
    """Whether a file type and options decide the type of each tensor, and not the file itself."""
    named = (options.output_tensor_type, options.token_embedding_type)
    return bool(request.types or options.pure or options.leave_output_tensor or options.tensor_types or any(named))


def _keeps_blocks(gguf: GgufFile, content: FileContent, kept: FileContent) -> bool:
    """Whether the file was made with --keep-quantized.

    A file type shows it that a checkpoint of NVFP4 or MXFP4 blocks gets in no other way, or a row of a tensor.
    """
    said, mine, theirs = (
        metadata.get("general.file_type") for metadata in (gguf.typed_metadata, content.metadata, kept.metadata)
    )
    if mine != said == theirs:
        return True
    plain = {chosen.info.name: chosen for chosen in content.tensors}
    there = {tensor.name: tensor for tensor in gguf.tensors}
    candidates = (
        (there[chosen.info.name], plain[chosen.info.name], chosen)
        for chosen in kept.tensors
        if chosen.is_kept
        and chosen.info.name in there
        and chosen.info.name in plain
        and there[chosen.info.name].info == chosen.info
        and plain[chosen.info.name].source.expr.dtype != chosen.info.type
    )
    for tensor, without, blocks in islice(candidates, _MOST_SAMPLED):
        row = tensor.info.n_rows // 2
        stored = np.ascontiguousarray(tensor.expression().rows(row, row + 1)).view(np.uint8).reshape(1, -1)
        made = repacked(blocks.source, tensor.type, row, row + 1)
        if np.array_equal(stored, made) and not np.array_equal(
            made, repacked(without.source, tensor.type, row, row + 1)
        ):
            return True
    return False


def _with_kept_blocks(gguf: GgufFile, plain: FileContent, kept: FileContent) -> FileContent:
    """The content with blocks kept where the file has the type of these blocks, and all other tensors quantized."""
    types = {tensor.name: tensor.type for tensor in gguf.tensors}
    others = {chosen.info.name: chosen for chosen in plain.tensors}
    tensors = (
        others.get(chosen.info.name, chosen)
        if chosen.is_kept and types.get(chosen.info.name) != chosen.info.type
        else chosen
        for chosen in kept.tensors
    )
    return replace(kept, tensors=tuple(tensors))


def _is_in_order(gguf: GgufFile) -> bool:
    from gguf_forge.recipe.tensor_rules import file_order

    infos = [tensor.info for tensor in gguf.tensors]
    return infos == sorted(infos, key=file_order)


def _with_types_of(gguf: GgufFile, content: FileContent) -> FileContent:
    """The content with the types that the file's own tensors have."""
    types = {tensor.name: tensor.type for tensor in gguf.tensors}
    tensors = tuple(_as(chosen, types.get(chosen.info.name, chosen.info.type)) for chosen in content.tensors)
    others = [
        f"{printable(mine.info.name)} {theirs.info.type} and not {mine.info.type}"
        for mine, theirs in zip(content.tensors, tensors, strict=True)
        if mine.info.type != theirs.info.type
    ]
    if not others:
        return FileContent(content.metadata, tensors, ())
    more = f", and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    note = f"{len(others)} tensors have another type than the mix gives them: {', '.join(others[:_MOST_NAMED])}{more}"
    return FileContent(content.metadata, tensors, (note,))


def _as(chosen: TensorChoice, tensor_type: TensorType) -> TensorChoice:
    """A tensor with another type. If it is a float type, the values are also rounded to it."""
    if tensor_type == chosen.info.type:
        return chosen
    source = chosen.source
    is_stored = source.expr.dtype.is_float and tensor_type.is_float
    return replace(
        chosen,
        info=replace(chosen.info, type=tensor_type),
        source=replace(source, base=tensor_type) if is_stored else source,
    )


def _check_packable(tensors: tuple[TensorChoice, ...]) -> None:
    for chosen in tensors:
        tensor_type, name = chosen.info.type, printable(chosen.info.name)
        if tensor_type == chosen.source.expr.dtype:
            continue
        if tensor_type not in quantizable_types():
            raise UnsupportedError(f"this version cannot make {tensor_type}, and so not compare it", tensor=name)
        if tensor_type in types_needing_importance() and chosen.source.importance is None:
            raise UsageError(
                f"the tensor is {tensor_type}, which is made with an importance matrix",
                tensor=name,
                hint="give it with --imatrix",
            )


def _with_recorded_matrix(gguf: GgufFile, options: Options) -> Options:
    """The keys with the path of the matrix as the file records it. The file records the path as it was typed when the
    file was made, and it may be typed differently now."""
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


def _file_type_of(gguf: GgufFile, source: str) -> FileType:
    """The file type of general.file_type. COPY, which keeps the types of a GGUF file, if the key is missing or unknown.

    Converters leave the key out for some families. Such a file has one float type beside F32, or F32 alone.
    """
    value = gguf.typed_metadata.get("general.file_type")
    if value is not None:
        return (_BY_ID.get(value.data) if value.type is ValueType.UINT32 else None) or COPY
    if not is_folder(Path(source)):
        return COPY
    types = {tensor.type for tensor in gguf.tensors} - {F32}
    named = FILE_TYPES.get((types or {F32}).pop().name)
    return named if named is not None and named.is_float and not types else COPY


def _base(name: str) -> TensorType:
    tensor_type = TensorType.named(name)
    if not tensor_type.is_float:
        raise UsageError(f"the file that is quantized is F32, F16 or BF16, not {tensor_type}")
    return tensor_type


def repacked(source: RowSource, tensor_type: TensorType, start: int, stop: int, *, backend: str | None = None) -> Rows:
    """Rows of a tensor as the engine makes them: rounded to the base type, then packed to `tensor_type`.

    Args:
        source: Where the values come from.
        tensor_type: What they become.
        start, stop: The rows, all of one matrix where each has importance of its own.
        backend: Which kernels; the default is the fastest of this machine.

    Returns:
        uint8 array (stop - start, bytes of a row).
    """
    info = TensorInfo("", source.expr.shape[::-1], tensor_type)
    target = Target(0, PlacedTensor(info, 0), source)
    batch = Batch(source.expr, start, stop, (target,))
    [(_, packed)] = pack(source.expr.rows(start, stop), batch, backend=backend)
    return packed.view("u1").reshape(stop - start, -1)
