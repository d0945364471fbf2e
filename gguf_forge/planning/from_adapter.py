"""A LoRA adapter's folder as a source: plans the file that llama.cpp's convert_lora_to_gguf.py would make."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.mapping import PlannedTensor
from gguf_forge.architectures.registry import find_architecture
from gguf_forge.checkpoint.adapter import Adapter
from gguf_forge.checkpoint.adapter_config import CONFIG
from gguf_forge.checkpoint.other_folders import cached_snapshots, read_config
from gguf_forge.checkpoint.safetensors_file import header_size
from gguf_forge.errors import InputError, UnsupportedError, UsageError, printable
from gguf_forge.general import general_metadata, model_id_of, parameter_count
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, ValueType, array, f32, string, u32
from gguf_forge.planning.adapter_tensors import tensors_of_adapter
from gguf_forge.planning.big_endian import refuse_other_types
from gguf_forge.planning.file_plan import FilePlan, said_and_checked
from gguf_forge.planning.from_checkpoint import choose, file_types_of, plan_file
from gguf_forge.planning.model import FileContent, TensorSource
from gguf_forge.planning.model_plan import QUANTIZATION_VERSION, ModelPlan
from gguf_forge.planning.place import OutputPlace
from gguf_forge.planning.splits import Split
from gguf_forge.recipe import Options
from gguf_forge.recipe.file_types import FileType
from gguf_forge.request import Request
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.types.tensor_type import F32, TENSOR_TYPES, TensorType
from gguf_forge.wording import log_of

log = log_of(__name__)

# The one quantized type that adapters are written in.
_QUANTIZED = "Q8_0"


class AdapterModel:
    """An open adapter's folder as a model that files are made of. Its base model tells what the names mean."""

    def __init__(self, adapter: Adapter, base: Folder | None = None):
        self._adapter = adapter
        self._base = base

    @classmethod
    def open(cls, folder: Folder, base: Folder | None = None) -> AdapterModel:
        """Opens an adapter.

        Args:
            folder: The adapter's.
            base: The base model's folder; None for the one that the adapter names.
        """
        return cls(Adapter.open(folder), base)

    @property
    def name(self) -> str:
        return model_id_of(self._adapter.folder)

    @property
    def sources(self) -> tuple[TensorSource, ...]:
        tensors = [(tensor.offset, tensor.nbytes) for tensor in self._adapter.tensors.values()]
        return (TensorSource(self._adapter.file, header_size(self._adapter.file), tensors),)

    def parts(self) -> Mapping[str, str]:
        return {}

    def tensors(self, request: Request | None = None) -> Mapping[str, TensorExpr]:
        return {tensor.name: tensor.expr for tensor in self._planned(as_reference=False)[1]}

    def infos(self) -> tuple[tuple[TensorInfo, ...], str]:
        architecture, planned = self._planned(as_reference=False)
        return tuple(TensorInfo(t.name, t.expr.shape[::-1], t.expr.source_type) for t in planned), architecture.name

    def files(
        self, request: Request, options: Options, split: Split, folder: Path, *, only_planned: bool = False
    ) -> tuple[FilePlan, ...]:
        if request.parts:
            raise UsageError("--parts: an adapter is one file", hint="leave it out")
        others = [
            name
            for name in request.types
            if not FileType.named(name).is_float and FileType.named(name).name != _QUANTIZED
        ]
        if others or split or request.vocab_only:
            what = f"as {', '.join(others)}" if others else "in parts" if split else "as a vocabulary"
            raise UsageError(
                f"an adapter is not written {what}", hint=f"F32, F16, BF16, auto and {_QUANTIZED} are its types"
            )
        if request.bigendian:
            refuse_other_types(request.types)
        types, plan = file_types_of(request, "F32"), self._plan(request, folder)
        place = OutputPlace.of(request, folder, len(types), split)
        files = (plan_file(plan, replace(options, file_type=each), place) for each in types)
        return said_and_checked(files, strict=request.strict)

    def content(self, request: Request, options: Options, base: TensorType | None) -> FileContent:
        if base is not None:
            raise UsageError("an adapter is not quantized by way of another type", hint="leave out the base type")
        _, metadata, chosen, warnings = choose(self._plan(request, Path()), options)
        return FileContent(metadata, tuple(chosen), warnings)

    def check_unchanged(self) -> None:
        self._adapter.file.check_unchanged()

    def close(self) -> None:
        self._adapter.close()

    def _plan(self, request: Request, folder: Path) -> ModelPlan:
        architecture, planned = self._planned(as_reference=request.as_reference)
        metadata_file = folder / request.metadata if request.metadata is not None else None
        identity, general = general_metadata(
            self._adapter.folder,
            self._adapter.config.values,
            parameter_count([TensorInfo(t.name, t.expr.shape[::-1], F32) for t in planned]),
            architecture=architecture.name,
            model_type="adapter",
            model_name=request.model_name,
            metadata_file=metadata_file,
            as_reference=request.as_reference,
        )
        if request.base_model_id is not None:  # the reference gives the adapter this name
            general |= {"general.name": string(request.base_model_id)}
            identity = replace(identity, name=request.base_model_id)
        first = ("general.architecture", "general.type")
        metadata: Metadata = {key: general[key] for key in first} | {"adapter.type": string("lora")} | general
        config = self._adapter.config
        metadata["adapter.lora.alpha"] = f32(config.alpha if request.as_reference else config.alpha_of_file)
        metadata |= self._invocation()
        metadata["general.quantization_version"] = u32(QUANTIZATION_VERSION)
        adapter_file = self._adapter.file.path
        inputs = (adapter_file, self._adapter.folder.path / CONFIG, *((metadata_file,) if metadata_file else ()))
        native = self._native_type()
        return ModelPlan(planned, metadata, native, identity, inputs, byte_order=request.byte_order)

    def _native_type(self) -> TensorType | None:
        stored = (tensor for tensor in self._adapter.tensors.values() if len(tensor.shape) >= 2)
        return next((TENSOR_TYPES[tensor.dtype] for tensor in stored if tensor.dtype in ("BF16", "F16")), None)

    def _invocation(self) -> Metadata:
        """The tokens after which an aLoRA begins to act."""
        tokens = self._adapter.config.values.get("alora_invocation_tokens")
        if not tokens:
            if self._adapter.config.values.get("invocation_string"):
                hint = "write the numbers of its tokens as alora_invocation_tokens"
                raise UnsupportedError(
                    "an invocation_string is not split here", file=self._adapter.config.path, hint=hint
                )
            return {}
        if not isinstance(tokens, list) or not all(type(token) is int and 0 <= token < 1 << 32 for token in tokens):
            raise InputError("alora_invocation_tokens is not a list of tokens", file=self._adapter.config.path)
        return {"adapter.alora.invocation_tokens": array(ValueType.UINT32, tokens)}

    def _planned(self, *, as_reference: bool) -> tuple[Architecture, tuple[PlannedTensor, ...]]:
        folder = self._base_folder()
        raw = read_config(folder)
        architecture = find_architecture(raw)
        return architecture, tensors_of_adapter(self._adapter, architecture, raw, folder, as_reference=as_reference)

    def _base_folder(self) -> Folder:
        """The folder of the base model. Only its config is needed."""
        mine = self._adapter.folder
        if self._base is not None or mine.has("config.json"):
            return self._base or mine
        named = self._adapter.config.base_model
        hint = "put the base model's config.json beside the adapter, or give its folder to `convert` with --base"
        if named is None:
            problem = "this is a LoRA adapter, and it does not name its base model"
            raise InputError(problem, file=mine.path / CONFIG, hint=hint)
        for folder in map(LocalFolder, (Path(named), *cached_snapshots(named))):
            if folder.has("config.json"):
                return folder
        if re.fullmatch(r"[\w.-]+/[\w.-]+", named):
            hint = f"{hint}. `hf download {named} config.json` puts it where it is found"
        raise InputError(
            f"this is a LoRA adapter, and not a model; its base model {printable(named)} is not here",
            file=mine.path,
            hint=f"{hint}. For one file of both, `convert` the base model with --lora {mine.path}",
        )
