"""A checkpoint folder as a source: plans the files that llama.cpp's converter and llama-quantize would make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from gguf_forge.architectures.mapping import PlannedTensor
from gguf_forge.architectures.registry import module_files
from gguf_forge.checkpoint import Checkpoint
from gguf_forge.checkpoint.adapter import Adapter, refuse_too_many
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
from gguf_forge.option import parse_names
from gguf_forge.planning.adapters import check_places, files_of, say_base
from gguf_forge.planning.big_endian import big_endian, refuse_other_types
from gguf_forge.planning.file_plan import BaseFile, FilePlan, TensorChoice, said_and_checked
from gguf_forge.planning.kept_blocks import say_left, with_kept_blocks
from gguf_forge.planning.model import FileContent, TensorSource
from gguf_forge.planning.model_plan import ModelPlan, plan_infos, plan_model, plan_weights
from gguf_forge.planning.parts import AN_ADAPTER, MAIN, PartRequest, part_requests, parts_of, shared
from gguf_forge.planning.place import OutputPlace
from gguf_forge.planning.splits import Split, split_as_converter, split_as_gguf_split, whole_file
from gguf_forge.recipe import FILE_TYPES, FileType, Options
from gguf_forge.recipe.file_types import AUTO, COPY, DEFAULT_TYPE, OF_NVFP4
from gguf_forge.request import Request
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.dequantized import is_of_fp8
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.types.tensor_type import F16, F32, Q8_0, TensorType
from gguf_forge.wording import log_of

log = log_of(__name__)

# The tensor type of blocks in a checkpoint -> the file type of a file that keeps these blocks.
_OF_BLOCKS = {"MXFP4": FILE_TYPES["MXFP4_MOE"], "NVFP4": OF_NVFP4}


_FileChoice = tuple[FileType, Metadata, Sequence[TensorChoice], tuple[str, ...]]


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
    choice = choose(plan, options, only_planned=only_planned)
    file_type = choice[0]
    return _file(plan, options, choice, place.path(_usual_name(plan, file_type), file_type.name), place.split)


def _file(plan: ModelPlan, options: Options, choice: _FileChoice, path: Path, split: Split) -> FilePlan:
    file_type, metadata, chosen, warnings = choice
    shards = _shards(path, metadata, chosen, options.file_type, split, plan.byte_order)
    if split and shards[0].path == path:
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
        part=plan.part,
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
        said = (
            f"its {len(plan.adapters)} adapters are written with files of float types only: add for example -t F16, "
            "or --parts all"
        )
        return (replace(main, warnings=(*main.warnings, said)),)
    of_adapters = Options(file_type=FILE_TYPES["F32"], as_reference=options.as_reference)
    usual, type_name = _usual_name(plan, main.file_type), main.file_type.name
    adapters = (
        (replace(adapter, byte_order=plan.byte_order), replace(place, prefix=prefix))
        for prefix, adapter in plan.adapters.items()
    )
    beside = (
        _file(adapter, of_adapters, choose(adapter, of_adapters), named.path(named.prefix + usual, type_name), Split())
        for adapter, named in adapters
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
        could_have_mix = options.file_type.is_float and plan.byte_order == "<"
        raise UsageError(
            f"{', '.join(options.in_use)}: no effect on a file of type {options.file_type}",
            hint="leave it out, or choose a quantized type" if could_have_mix else "leave it out",
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
    blocks = plan.packed_type.name if plan.packed_type else plan.labelled
    return _OF_BLOCKS[blocks] if blocks else FILE_TYPES[base.name]


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


def _target_of(request: Request, folder: Path) -> Folder | None:
    return LocalFolder(folder / request.target_model_dir) if request.target_model_dir is not None else None


class CheckpointModel:
    """An open checkpoint folder as a model that files are made of."""

    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint = checkpoint
        self._last: tuple[Request, ModelPlan] | None = None
        self._said_parts = False

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
                found = []
                for place, _ in adapters:
                    found.append(opened.enter_context(Adapter.open(place)))
                    refuse_too_many(sum(len(each.tensors) for each in found), place.path)
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

    def tensors(self, request: Request | None = None) -> Mapping[str, TensorExpr]:
        asked = request or Request(source=str(self._checkpoint.folder.path))
        adapter = asked.parts[0] if asked.parts else None
        target = _target_of(asked, Path())
        found = plan_weights(self._checkpoint, asked.part, choices=asked.choices, target=target, adapter=adapter)
        return {tensor.name: tensor.expr for tensor in found}

    def infos(self) -> tuple[tuple[TensorInfo, ...], str]:
        return plan_infos(self._checkpoint)

    def parts(self) -> Mapping[str, str]:
        return parts_of(self._checkpoint)

    def files(
        self, request: Request, options: Options, split: Split, folder: Path, *, only_planned: bool = False
    ) -> tuple[FilePlan, ...]:
        if split and (request.vocab_only or split.keep):
            raise UsageError(
                "a vocabulary alone is not split" if request.vocab_only else "a checkpoint has no split to keep",
                hint="leave out the options of the split",
            )
        if request.lora and request.vocab_only:
            raise UsageError("--vocab-only: an adapter changes no vocabulary", hint="leave out --lora")
        if request.mmproj and request.vocab_only:
            raise UsageError("--vocab-only: a projector has no vocabulary", hint="leave out one of the two options")
        if request.keep_quantized and options.allow_requantize:
            raise UsageError("--keep-quantized and --allow-requantize exclude each other", hint="leave out one")
        held = parts_of(self._checkpoint, parse_names(request.parts)) if request.parts else {}
        asked = part_requests(request, options, split, held)
        plans = tuple(shared([self._plan_of_part(part, folder, among=request.parts) for part in asked]))
        self._say_other_parts(request)
        check_places(plans, self._checkpoint)
        for part, plan in zip(asked, plans, strict=True):
            self._check(part.request, plan)
        types = [_types_of(part.request, plan) for part, plan in zip(asked, plans, strict=True)]
        place = OutputPlace.of(request, folder, sum(map(len, types)), split)
        files = (
            file
            for part, plan, of_part in zip(asked, plans, types, strict=True)
            for each in of_part
            for file in _with_adapters(
                plan,
                part.options(each),
                replace(place, split=part.split, prefix=plan.file_prefix if len(asked) > 1 else ""),
                only_planned=only_planned,
            )
        )
        return said_and_checked(files, strict=request.strict)

    def _plan_of_part(self, part: PartRequest, folder: Path, *, among: Sequence[str]) -> ModelPlan:
        """The plan of a part. Among several, adapters are parts of their own, and names begin with the part's."""
        plan = self._plan(part.request, folder)
        return replace(plan, adapters={}, file_prefix=part.prefix) if among else plan

    def _check(self, request: Request, plan: ModelPlan) -> None:
        """Says what the plan of a part is. Raises UsageError for a type that an option has no use for."""
        if request.keep_quantized and not request.vocab_only and request.part == "text":
            say_left(plan)
        if request.bigendian:
            refuse_other_types(request.types)
        if request.fp8_as_q8 and not all(FileType.named(name).is_float for name in request.types):
            raise UsageError("--fp8-as-q8 is for files of float types", hint="add -t auto, or leave it out")
        quantized = [name for name in request.types if not FileType.named(name).is_float]
        if request.parts and quantized:
            raise UsageError(
                f"an adapter is not written as {', '.join(quantized)}", hint="F32, F16, BF16 and auto are its types"
            )
        name = plan.metadata["general.architecture"].data
        log.info("%s: a %s model, %d tensors", self._checkpoint.folder.path, name, len(plan.tensors))

    def content(self, request: Request, options: Options, base: TensorType | None) -> FileContent:
        plan = self._plan(request, Path())
        check_places((plan,), self._checkpoint)
        if base is not None:
            plan = replace(plan, native_type=base)
        is_refused = plan.packed_type is not None and plan.kept is None and not options.allow_requantize
        is_label = plan.labelled is not None and options.file_type in (COPY, _OF_BLOCKS[plan.labelled])
        if options.file_type.is_float or is_refused or is_label or request.bigendian or plan.is_adapter:
            found = AUTO if (is_refused or is_label) and not options.file_type.is_float else options.file_type
            _, metadata, chosen, warnings = choose(plan, replace(options, file_type=found))
            return FileContent(metadata, tuple(chosen), warnings)
        metadata, chosen, warnings = base_file(plan).quantized(options, only_planned=True)
        return FileContent(metadata, tuple(chosen), warnings)

    def _plan(self, request: Request, folder: Path) -> ModelPlan:
        """The plan of the part that a request is for: an adapter's if it names one.

        The file type changes nothing in it, so the last one is kept for other types.
        """
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
            target=_target_of(request, folder),
        )
        plan = replace(plan, inputs=(*plan.inputs, *files_of(self._checkpoint.adapters)))
        if request.parts:
            return replace(plan.adapters[f"{request.parts[0]}-"], byte_order=request.byte_order)
        plan = _with_fp8_as_q8(plan) if request.fp8_as_q8 else plan
        plan = replace(plan, byte_order=request.byte_order)
        return with_kept_blocks(plan) if request.keep_quantized else plan

    def _say_other_parts(self, request: Request) -> None:
        """Says once which parts the model has that a file of its language model leaves out, or has among the rest."""
        is_for_part = request.parts or request.part != "text" or request.mtp or request.dspark
        if is_for_part or request.vocab_only or self._said_parts:
            return
        self._said_parts = True
        left = {MAIN, "mtp"} if request.no_mtp else {MAIN}
        others = [f"{name} ({what})" for name, what in self.parts().items() if name not in left and what != AN_ADAPTER]
        if others:
            log.warning("the model has more parts, %s: --parts all makes a file of each", " and ".join(others))

    def check_unchanged(self) -> None:
        for source in self.sources:
            source.source.check_unchanged()

    def close(self) -> None:
        self._checkpoint.close()


def _types_of(request: Request, plan: ModelPlan) -> tuple[FileType, ...]:
    """The file types that are asked for of a part; one if none is named."""
    keeps = request.vocab_only or request.fp8_as_q8 or request.bigendian or plan.packed_type is not None
    return file_types_of(request, "auto" if keeps else DEFAULT_TYPE)


def file_types_of(request: Request, default: str) -> tuple[FileType, ...]:
    """The file types of a request, each once; the default if it names none."""
    return tuple(dict.fromkeys(FileType.named(name) for name in request.types or (default,)))
