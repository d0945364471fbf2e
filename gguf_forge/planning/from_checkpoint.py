"""A checkpoint folder as a source: plans the files that llama.cpp's converter and llama-quantize would make."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from gguf_forge.architectures.mapping import PlannedTensor
from gguf_forge.architectures.registry import module_files
from gguf_forge.checkpoint import Checkpoint
from gguf_forge.checkpoint.adapter import Adapter
from gguf_forge.checkpoint.merging import ScaledAdapter
from gguf_forge.checkpoint.mistral_form import has_mistral_form
from gguf_forge.checkpoint.safetensors_file import header_size
from gguf_forge.checkpoint.shards import has_weights
from gguf_forge.engine.batches import RowSource, Shard
from gguf_forge.errors import UnsupportedError, UsageError
from gguf_forge.general import model_id_of, output_name
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import ByteOrder, Metadata, u32
from gguf_forge.name_pattern import NamePattern
from gguf_forge.planning.adapters import check_places, files_of, say_base
from gguf_forge.planning.big_endian import big_endian, refuse_other_types
from gguf_forge.planning.file_plan import BaseFile, FilePlan, TensorChoice, said_and_checked
from gguf_forge.planning.kept_blocks import say_left, with_kept_blocks
from gguf_forge.planning.model import FileContent, TensorSource
from gguf_forge.planning.model_plan import ModelPlan, has_projector, plan_infos, plan_model, plan_weights
from gguf_forge.planning.place import OutputPlace
from gguf_forge.planning.splits import Split, split_as_converter, split_as_gguf_split, whole_file
from gguf_forge.recipe import FILE_TYPES, FileType, Options
from gguf_forge.recipe.file_types import AUTO, DEFAULT_TYPE, OF_NVFP4
from gguf_forge.request import Request
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.dequantized import is_of_fp8
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.types.tensor_type import F16, F32, Q8_0, TensorType

log = logging.getLogger(__name__)

# The tensor type of blocks in a checkpoint -> the file type of a file that keeps these blocks.
_OF_BLOCKS = {"MXFP4": FILE_TYPES["MXFP4_MOE"], "NVFP4": OF_NVFP4}


def plan_file(plan: ModelPlan, options: Options, place: OutputPlace, *, only_planned: bool = False) -> FilePlan:
    """Chooses every type, size and offset of a file.

    Args:
        plan: The model.
        options: The file type, and the options that change its mix.
        place: Where the file goes, and how it is split.
        only_planned: As for `OpenModel.files`.

    Raises:
        UsageError: an option that the file type has no use for, or a type that needs an importance matrix.
    """
    file_type, metadata, chosen, warnings = choose(plan, options, only_planned=only_planned)
    path = place.path(_usual_name(plan, file_type), file_type.name)
    shards = _shards(path, metadata, chosen, options.file_type, place.split, plan.byte_order)
    if place.split and shards[0].path == path:
        warnings = (*warnings, f"{path.name} is not split: one part holds it all")
    return FilePlan(
        file_type=file_type,
        metadata=metadata,
        shards=shards,
        fallbacks=tuple(tensor.info.name for tensor in chosen if tensor.is_fallback),
        lacking=tuple(tensor.info.name for tensor in chosen if tensor.lacks_importance),
        rules={tensor.info.name: tensor.rule for tensor in chosen if tensor.rule},
        warnings=warnings,
        source_bytes=plan.nbytes,
        inputs=(*plan.inputs, *options.inputs),
        kept=tuple(tensor.info.name for tensor in chosen if tensor.is_kept) if plan.kept is not None else None,
    )


def _with_adapters(
    plan: ModelPlan, options: Options, place: OutputPlace, *, only_planned: bool = False
) -> tuple[FilePlan, ...]:
    """The plans of a model's file and of its adapters' files, which are named for it; arguments as for `plan_file`.

    Adapters are F32. They are only planned with files of float types, because llama-quantize makes a single file.
    """
    main = plan_file(plan, options, place, only_planned=only_planned)
    if not plan.adapters:
        return (main,)
    if not options.file_type.is_float:
        said = f"its {len(plan.adapters)} adapters are written with files of float types only: add for example -t F16"
        return (replace(main, warnings=(*main.warnings, said)),)
    path = place.path(_usual_name(plan, main.file_type), main.file_type.name)
    of_adapters = Options(file_type=FILE_TYPES["F32"], as_reference=options.as_reference)
    beside = (
        plan_file(
            replace(adapter, byte_order=plan.byte_order),
            of_adapters,
            OutputPlace(path.with_name(beginning + path.name)),
        )
        for beginning, adapter in plan.adapters.items()
    )
    return (main, *beside)


def _shards(
    path: Path,
    metadata: Metadata,
    chosen: Sequence[TensorChoice],
    file_type: FileType,
    split: Split,
    order: ByteOrder,
) -> tuple[Shard, ...]:
    if not split:
        return whole_file(path, metadata, chosen, vocab_only=not chosen, byte_order=order)
    is_converters = file_type.is_float or order == ">"
    make = split_as_converter if is_converters else split_as_gguf_split
    return make(path, metadata, chosen, split, byte_order=order)


_FileChoice = tuple[FileType, Metadata, Sequence[TensorChoice], tuple[str, ...]]


def choose(plan: ModelPlan, options: Options, *, only_planned: bool = False) -> _FileChoice:
    """The file type with `auto` resolved, the keys, the tensors and the warnings of a file; see `plan_file`."""
    if plan.byte_order == ">":
        file_type, metadata, chosen, warnings = _converters_file(plan, options, only_planned)
        return file_type, metadata, big_endian(chosen, as_reference=options.as_reference), warnings
    if options.file_type.is_float:
        return _converters_file(plan, options, only_planned)
    if plan.is_adapter:  # Q8_0 is the only quantized type of adapters
        return _converters_file(plan, replace(options, file_type=FILE_TYPES["Q8_0"]), only_planned)
    return _quantized_file(plan, options, only_planned)


def base_file(plan: ModelPlan) -> BaseFile:
    """The input of llama-quantize: the converter's file in the checkpoint's own float type."""
    base = plan.native_type or F32
    expressions = {tensor.name: tensor.expr for tensor in plan.tensors}
    return BaseFile(plan.base_infos(base), expressions, _with_file_type(plan, base), plan.kept or {})


def _converters_file(plan: ModelPlan, options: Options, only_planned: bool) -> _FileChoice:
    """The content of the converter's own file: tensors in its order, and one type for all matrices. Also for those
    quantized types that it makes itself: of adapters, and of big-endian files."""
    if options.in_use and not only_planned:
        raise UsageError(
            f"{', '.join(options.in_use)}: no effect on a file of type {options.file_type}",
            hint="leave it out, or choose a quantized type" if options.file_type.is_float else "leave it out",
        )
    base = options.file_type.default_type or plan.native_type or F16
    # The reference's converter alone writes weights that are infinite or not a number; llama-quantize refuses them.
    is_checked = not options.as_reference
    chosen = [
        _kept(info, plan.kept[info.name])
        if plan.kept is not None and info.name in plan.kept
        else TensorChoice(
            info, RowSource(tensor.expr, _rounded_to(tensor.expr, info.type), is_checked=is_checked), info.name
        )
        for tensor, info in zip(plan.tensors, plan.base_infos(base), strict=True)
    ]
    return _base_file_type(plan, base), _with_file_type(plan, base), chosen, ()


def _kept(info: TensorInfo, blocks: TensorExpr) -> TensorChoice:
    return TensorChoice(replace(info, type=blocks.dtype), RowSource(blocks, blocks.dtype), info.name, is_kept=True)


def _rounded_to(expr: TensorExpr, kind: TensorType) -> TensorType:
    """The base type, to which values are rounded first: the type of the file if that is a float type."""
    return F32 if kind.is_packed and expr.dtype.is_float else kind


def _quantized_file(plan: ModelPlan, options: Options, only_planned: bool) -> _FileChoice:
    """The content of the file that llama-quantize makes of the converter's file in the checkpoint's own float type."""
    is_refused = plan.packed_type is not None and plan.kept is None and not options.allow_requantize
    if is_refused and not only_planned:
        raise UnsupportedError(
            f"the checkpoint is quantized to {plan.packed_type} already, and is not quantized again to "
            f"{options.file_type}",
            hint=f"--keep-quantized keeps what is in {plan.packed_type} as it is, and so does --type auto; "
            "--allow-requantize quantizes it again, which loses quality",
        )
    return options.file_type, *base_file(plan).quantized(options, only_planned=only_planned)


def _base_file_type(plan: ModelPlan, base: TensorType) -> FileType:
    """The file type of the base file. A checkpoint that is quantized itself keeps its own, whatever `base` is."""
    return _OF_BLOCKS[plan.packed_type.name] if plan.packed_type else FILE_TYPES[base.name]


def _with_file_type(plan: ModelPlan, base: TensorType) -> Metadata:
    if plan.is_adapter:  # its file has no file type
        return plan.metadata
    return {**plan.metadata, "general.file_type": u32(_base_file_type(plan, base).id or 0)}


def _usual_name(plan: ModelPlan, file_type: FileType) -> str:
    return plan.file_prefix + output_name(plan.identity, file_type.name, vocab_only=not plan.tensors)


def _with_fp8_as_q8(plan: ModelPlan) -> ModelPlan:
    """The plan with FP8 matrices of the checkpoint as Q8_0, or as F16 if their rows are not whole blocks."""

    def as_q8(tensor: PlannedTensor) -> PlannedTensor:
        kind = Q8_0 if tensor.expr.shape[-1] % Q8_0.block_elements == 0 else F16
        return replace(tensor, forced_type=lambda base: kind) if is_of_fp8(tensor.expr) else tensor

    return replace(plan, tensors=tuple(map(as_q8, plan.tensors)))


class CheckpointModel:
    """An open checkpoint folder as a model that files are made of."""

    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint = checkpoint
        self._last: tuple[Request, ModelPlan] | None = None

    @classmethod
    def open(
        cls,
        folder: Folder,
        *,
        vocab_only: bool = False,
        mistral_format: bool = False,
        drop: Sequence[NamePattern] = (),
        adapters: Sequence[tuple[Folder, float]] = (),
    ) -> CheckpointModel:
        """Opens a folder.

        Args:
            folder: The checkpoint.
            vocab_only: The folder may lack weights. A vocabulary alone needs at most their type, for `auto`.
            mistral_format: The folder is read in Mistral's own form, even if it also has the form of transformers.
            drop: Patterns of the names of tensors that are left out.
            adapters: Folders of adapters that are merged in, each with the factor of its change.
        """
        with ExitStack() as opened:
            native = mistral_format or has_mistral_form(folder)
            weights = not vocab_only or has_weights(folder, native=native)
            checkpoint = opened.enter_context(Checkpoint.of(folder, weights=weights, native=native, drop=drop))
            for path, prefix in module_files(checkpoint.config).items() if weights else ():
                checkpoint = checkpoint.with_module(path, prefix)
            if weights and adapters:
                found = [opened.enter_context(Adapter.open(each)) for each, _ in adapters]
                factors = [factor for _, factor in adapters]
                for each in found:
                    say_base(each, folder, checkpoint.config)
                checkpoint = checkpoint.with_adapters(tuple(map(ScaledAdapter, found, factors)))
            opened.pop_all()
        return cls(checkpoint)

    @property
    def name(self) -> str:
        return model_id_of(self._checkpoint.folder)

    @property
    def sources(self) -> tuple[TensorSource, ...]:
        files = self._checkpoint.files
        tensors: dict[Path, list[tuple[int, int]]] = {file.path: [] for file in files}
        for tensor in self._checkpoint.tensors.values():
            tensors[tensor.source.path].append((tensor.offset, tensor.nbytes))
        for each in self._checkpoint.adapters:
            tensors[each.adapter.file.path] = [(t.offset, t.nbytes) for t in each.adapter.tensors.values()]
            files = (*files, each.adapter.file)
        return tuple(TensorSource(file, header_size(file), tensors[file.path]) for file in files)

    def tensors(self) -> Mapping[str, TensorExpr]:
        return {tensor.name: tensor.expr for tensor in plan_weights(self._checkpoint)}

    def infos(self) -> tuple[tuple[TensorInfo, ...], str]:
        return plan_infos(self._checkpoint)

    def files(
        self, request: Request, options: Options, split: Split, folder: Path, *, only_planned: bool = False
    ) -> tuple[FilePlan, ...]:
        if split and (request.vocab_only or split.keep):
            raise UsageError(
                "a vocabulary alone is not split" if request.vocab_only else "a checkpoint has no split to keep",
                hint="leave out the options of the split",
            )
        if request.mmproj and request.vocab_only:
            raise UsageError("--vocab-only: a projector has no vocabulary", hint="leave out one of the two options")
        model = self._plan(request, folder)
        self._say_other_parts(request)
        if request.keep_quantized and not request.vocab_only:
            say_left(model)
        keeps = request.vocab_only or request.fp8_as_q8 or request.bigendian or model.packed_type is not None
        default = "auto" if keeps else DEFAULT_TYPE
        if request.keep_quantized and options.allow_requantize:
            raise UsageError("--keep-quantized and --allow-requantize exclude each other", hint="leave out one")
        if request.fp8_as_q8 and not all(FileType.named(name).is_float for name in request.types):
            raise UsageError("--fp8-as-q8 is for files of float types", hint="add -t auto, or leave it out")
        name = model.metadata["general.architecture"].data
        log.info("%s: a %s model, %d tensors", self._checkpoint.folder.path, name, len(model.tensors))
        return files_of_request(model, request, options, split, folder, default, only_planned=only_planned)

    def content(self, request: Request, options: Options, base: TensorType | None) -> FileContent:
        plan = self._plan(request, Path())
        if base is not None:
            plan = replace(plan, native_type=base)
        is_refused = plan.packed_type is not None and plan.kept is None and not options.allow_requantize
        if options.file_type.is_float or is_refused or request.bigendian:
            found = AUTO if is_refused and not options.file_type.is_float else options.file_type
            _, metadata, chosen, warnings = choose(plan, replace(options, file_type=found))
            return FileContent(metadata, tuple(chosen), warnings)
        metadata, chosen, warnings = base_file(plan).quantized(options, only_planned=True)
        return FileContent(metadata, tuple(chosen), warnings)

    def _plan(self, request: Request, folder: Path) -> ModelPlan:
        """What the checkpoint becomes. The file type changes nothing in it, so the last one is kept for other types."""
        key = replace(request, source=str(folder), types=())
        if self._last is None or self._last[0] != key:
            self._last = key, self._made_plan(request, folder)
        return self._last[1]

    def _made_plan(self, request: Request, folder: Path) -> ModelPlan:
        plan = plan_model(
            self._checkpoint,
            request.part,
            model_name=request.model_name,
            metadata_file=folder / request.metadata if request.metadata is not None else None,
            pre_tokenizer=request.pre_tokenizer,
            vocab_only=request.vocab_only,
            choices=request.choices,
            target=LocalFolder(folder / request.target_model_dir) if request.target_model_dir is not None else None,
        )
        check_places(plan, self._checkpoint.adapters)
        plan = replace(plan, inputs=(*plan.inputs, *files_of(self._checkpoint.adapters)))
        plan = _with_fp8_as_q8(plan) if request.fp8_as_q8 else plan
        plan = replace(plan, byte_order=request.byte_order)
        return with_kept_blocks(plan) if request.keep_quantized else plan

    def _say_other_parts(self, request: Request) -> None:
        if request.part == "text" and not request.vocab_only and has_projector(self._checkpoint):
            log.warning("the model has encoders of pictures or sound: --mmproj makes a file of them")

    def check_unchanged(self) -> None:
        for source in self.sources:
            source.source.check_unchanged()

    def close(self) -> None:
        self._checkpoint.close()


def files_of_request(
    plan: ModelPlan,
    request: Request,
    options: Options,
    split: Split,
    folder: Path,
    default: str,
    *,
    only_planned: bool = False,
) -> tuple[FilePlan, ...]:
    """The files that are asked for of a planned model: one for each of the request's types.

    Args:
        plan: The model.
        request: What is asked for.
        options: What deviates from the types' mixes.
        split: Whether and how the files are split.
        folder: Where relative paths of the request begin.
        default: The name of the file type if the request names none.
        only_planned: As for `OpenModel.files`.
    """
    if request.bigendian:
        refuse_other_types(request.types)
    file_types = dict.fromkeys(FileType.named(name) for name in request.types or (default,))
    place = OutputPlace.of(request, folder, len(file_types), split)
    plans = (
        file
        for each in file_types
        for file in _with_adapters(plan, replace(options, file_type=each), place, only_planned=only_planned)
    )
    return said_and_checked(plans, strict=request.strict)
