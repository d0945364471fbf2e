"""A GGUF file as a source: plans the files that llama-quantize would make of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gguf_forge.engine.batches import Shard
from gguf_forge.errors import InputError, UnsupportedError, UsageError
from gguf_forge.gguf_file.opened import GgufFile
from gguf_forge.gguf_file.rules import FormatRule
from gguf_forge.gguf_file.split import SPLIT_COUNT, SPLIT_TENSORS, PartName
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.planning.adapter_of_file import is_adapter_file
from gguf_forge.planning.file_plan import BaseFile, FilePlan, TensorChoice, said_and_checked
from gguf_forge.planning.model import FileContent, TensorSource
from gguf_forge.planning.place import OutputPlace
from gguf_forge.planning.splits import (
    Split,
    SplitSize,
    some_parts_of_source,
    split_as_gguf_split,
    split_as_source,
    whole_file,
)
from gguf_forge.recipe import FileType, Options
from gguf_forge.recipe.file_types import ALIASES, COPY, DEFAULT_TYPE, FILE_TYPES
from gguf_forge.request import Request
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import StandIn
from gguf_forge.types.tensor_type import TensorType
from gguf_forge.wording import log_of

log = log_of(__name__)


class GgufModel:
    """An open GGUF file, or a split one, as a model that files are made of."""

    def __init__(self, gguf: GgufFile):
        self._gguf = gguf

    @property
    def name(self) -> str:
        return self._gguf.paths[0].name

    @property
    def sources(self) -> tuple[TensorSource, ...]:
        return tuple(TensorSource(*item) for item in self._gguf.data())

    def parts(self) -> Mapping[str, str]:
        return {}

    def tensors(self, request: Request | None = None) -> Mapping[str, TensorExpr]:
        """A tensor that its file does not have whole has no values."""
        return {
            tensor.name: tensor.expression()
            if tensor.is_whole
            else StandIn(tensor.name, tensor.shape[::-1], tensor.type)
            for tensor in self._gguf.tensors
        }

    def infos(self) -> tuple[tuple[TensorInfo, ...], str]:
        infos = tuple(tensor.info for tensor in self._gguf.tensors)
        return infos, str(self._gguf.metadata.get("general.architecture"))

    def files(
        self, request: Request, options: Options, split: Split, folder: Path, *, only_planned: bool = False
    ) -> tuple[FilePlan, ...]:
        _refuse_hints(request)
        gguf = self._gguf
        where = f" in {len(gguf.paths)} files" if len(gguf.paths) > 1 else ""
        log.info("%s: %d tensors%s", gguf.paths[0], len(gguf.tensors), where)
        is_partial = gguf.breaks(FormatRule.PARTS)
        if gguf.broken and options.prune_layers:
            raise UsageError("layers are not pruned from some parts of a split", hint="leave out --prune-layers")
        given = replace(options, keep_order=split.keep, is_partial=is_partial)
        base = self._base_file()
        names = {FileType.named(name): name for name in request.types or (DEFAULT_TYPE,)}
        for file_type in names:
            self._refuse_adapter(file_type)
        place = OutputPlace.of(request, gguf.paths[0].parent if request.out is None else folder, len(names), split)
        plans = (
            self._plan(
                base,
                place.path(_usual_name(gguf.paths[0], request, _reference_name(file_type, name)), file_type.name),
                replace(given, file_type=file_type),
                split,
                only_planned,
            )
            for file_type, name in names.items()
        )
        return said_and_checked(plans, strict=request.strict, may_keep_split=len(gguf.paths) > 1)

    def content(self, request: Request, options: Options, base: TensorType | None) -> FileContent:
        if base is not None:
            raise UsageError("--base is for checkpoints: a GGUF source has its own types", hint="leave it out")
        self._refuse_adapter(options.file_type)
        metadata, chosen, warnings = self._base_file().quantized(options, only_planned=True)
        return FileContent(metadata, tuple(chosen), warnings)

    def _plan(self, base: BaseFile, path: Path, options: Options, split: Split, only_planned: bool) -> FilePlan:
        metadata, chosen, warnings = base.quantized(options, only_planned=only_planned)
        return FilePlan(
            file_type=options.file_type,
            metadata=metadata,
            shards=_shards(path, metadata, chosen, self._gguf, split),
            fallbacks=tuple(tensor.info.name for tensor in chosen if tensor.is_fallback),
            lacking=tuple(tensor.info.name for tensor in chosen if tensor.lacks_importance),
            rules={tensor.info.name: tensor.rule for tensor in chosen if tensor.rule},
            warnings=(*warnings, *_idle_warnings(base, chosen, options)),
            source_bytes=sum(tensor.nbytes for tensor in self._gguf.tensors),
            inputs=(*self._gguf.paths, *options.inputs),
        )

    def _refuse_adapter(self, file_type: FileType) -> None:
        """Raises UnsupportedError if the file is an adapter that is to get other types, for which it lacks keys."""
        if is_adapter_file(self._gguf.typed_metadata) and file_type != COPY:
            raise UnsupportedError(
                f"this is a LoRA adapter, and no {file_type} is made of its GGUF file",
                file=self._gguf.paths[0],
                hint="`convert` makes F32, F16, BF16 and Q8_0 of an adapter's folder; `dequantize` with --safetensors "
                "and --config makes such a folder of this file",
            )

    def _base_file(self) -> BaseFile:
        infos = [tensor.info for tensor in self._gguf.tensors]
        return BaseFile(infos, self.tensors(), self._gguf.typed_metadata)

    def check_unchanged(self) -> None:
        self._gguf.check_unchanged()

    def close(self) -> None:
        self._gguf.close()


def _idle_warnings(base: BaseFile, chosen: Sequence[TensorChoice], options: Options) -> tuple[str, ...]:
    """A warning if a quantized source has the types that are asked for already, as when the default is its own type."""
    before = {info.name: info.type for info in base.infos}
    is_same = len(chosen) == len(before) and all(before[tensor.origin] == tensor.info.type for tensor in chosen)
    if options.file_type == COPY or not is_same or all(kind.is_float for kind in before.values()):
        return ()
    return (f"every tensor of the source has its type of {options.file_type} already: the weights are only copied",)


def _refuse_hints(request: Request) -> None:
    """Raises UsageError if the request has options for facts that a GGUF file contains already."""
    of_checkpoints = {
        "--model-name": request.model_name,
        "--metadata": request.metadata,
        "--pre-tokenizer": request.pre_tokenizer,
        "--target-model-dir": request.target_model_dir,
        "--fp8-as-q8": request.fp8_as_q8,
        "--keep-quantized": request.keep_quantized,
        "--vocab-only": request.vocab_only,
        "--parts": request.parts,
        "--mmproj": request.mmproj,
        "--mtp": request.mtp,
        "--no-mtp": request.no_mtp,
        "--dspark": request.dspark,
        "--sentence-transformers-dense-modules": request.sentence_transformers_dense_modules,
        "--fuse-qkv": request.fuse_qkv,
        "--fuse-gate-up-exps": request.fuse_gate_up_exps,
        "--base": request.base_model,
        "--base-model-id": request.base_model_id,
        "--lora": request.lora,
        "--mistral-format": request.mistral_format,
    }
    if request.bigendian:
        hint = "gguf-py's gguf_convert_endian.py turns an existing file"
        raise UsageError("--bigendian is for model folders, and this is a GGUF file", hint=hint)
    if request.drop_tensor:
        hint = "use `gguf-forge edit --drop-tensor` first"
        raise UsageError("--drop-tensor leaves out tensors of a checkpoint, and this is a GGUF file", hint=hint)
    in_use = [flag for flag, value in of_checkpoints.items() if value]
    if in_use:
        raise UsageError(f"{', '.join(in_use)}: not for a GGUF file", hint="leave it out, or give a model folder")


def _usual_name(source: Path, request: Request, type_name: str) -> str:
    """The name of a file in a folder: that of the source with another type. Beside the source, it is llama-quantize's.

    Several models that are quantized to one folder so keep their names.
    """
    if request.out is None:
        return f"ggml-model-{type_name}.gguf"
    part = PartName.read(source.name)
    stem = part.stem if part else source.name.removesuffix(".gguf")
    typed = re.fullmatch("(.+)[-.]([^-.]+)", stem, re.DOTALL)
    name = typed[1] if typed and typed[2].upper() in {*FILE_TYPES, *ALIASES} else stem
    return f"{name}-{type_name}.gguf"


def _reference_name(file_type: FileType, name: str) -> str:
    """The type as llama-quantize writes it in a file name. Aliases are kept, and a number becomes a name."""
    given = name.strip().upper()
    if given == file_type.name.upper():
        return file_type.name
    return next((alias for alias, meant in ALIASES.items() if meant == file_type.name), file_type.name)


def _shards(
    path: Path, metadata: Metadata, chosen: Sequence[TensorChoice], gguf: GgufFile, split: Split
) -> tuple[Shard, ...]:
    if not split.keep:
        return split_as_gguf_split(path, metadata, chosen, split) if split else whole_file(path, metadata, chosen)
    numbers = [name.number if (name := PartName.read(file.name)) else 0 for file in gguf.paths]
    part_of = {tensor.name: n for n, shard in zip(numbers, gguf.shards, strict=True) for tensor in shard}
    if not gguf.broken:
        return split_as_source(path, metadata, chosen, part_of)
    size = SplitSize(*(int(gguf.metadata[key]) for key in (SPLIT_COUNT, SPLIT_TENSORS)))
    wanted = [n for n, shard in zip(numbers, gguf.shards, strict=True) if all(tensor.is_whole for tensor in shard)]
    if not wanted:
        raise InputError("no part is here with all its data", file=gguf.paths[0], hint="download one of them")
    log.warning("%d of %d parts are made: the others are missing or cut short", len(wanted), size.parts)
    return some_parts_of_source(path, metadata, chosen, part_of, size, wanted)
