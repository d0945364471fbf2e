"""A LoRA adapter's folder as a source: plans the file that llama.cpp's convert_lora_to_gguf.py would make."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.mapping import PlannedTensor, plan_changes
from gguf_forge.architectures.registry import find_architecture
from gguf_forge.checkpoint.adapter import CONFIG, Adapter
from gguf_forge.checkpoint.other_folders import cached_snapshots, read_config
from gguf_forge.checkpoint.safetensors_file import header_size
from gguf_forge.errors import ForgeError, InputError, UnsupportedError, UsageError, printable
from gguf_forge.general import general_metadata, model_id_of, parameter_count
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, f32, string, u32
from gguf_forge.planning.file_plan import FilePlan
from gguf_forge.planning.from_checkpoint import choose, files_of_request
from gguf_forge.planning.model import FileContent, TensorSource
from gguf_forge.planning.model_plan import QUANTIZATION_VERSION, ModelPlan, site_of
from gguf_forge.planning.splits import Split
from gguf_forge.recipe import Options
from gguf_forge.recipe.file_types import FileType
from gguf_forge.request import Request
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.low_rank import LowRank, factors
from gguf_forge.tensors.row_maps import transposed
from gguf_forge.types.tensor_type import F32, TENSOR_TYPES, TensorType

log = logging.getLogger(__name__)


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

    def tensors(self) -> Mapping[str, TensorExpr]:
        return {tensor.name: tensor.expr for tensor in self._planned()[1]}

    def infos(self) -> tuple[tuple[TensorInfo, ...], str]:
        architecture, planned = self._planned()
        return tuple(TensorInfo(t.name, t.expr.shape[::-1], t.expr.source_type) for t in planned), architecture.name

    def files(
        self, request: Request, options: Options, split: Split, folder: Path, *, only_planned: bool = False
    ) -> tuple[FilePlan, ...]:
        quantized = [name for name in request.types if not FileType.named(name).is_float]
        if quantized or split or request.vocab_only:
            what = f"as {', '.join(quantized)}" if quantized else "in parts" if split else "as a vocabulary"
            raise UsageError(f"an adapter is not written {what}", hint="F32, F16, BF16 and auto are its types")
        return files_of_request(self._plan(request, folder), request, options, split, folder, "F32")

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
        architecture, planned = self._planned()
        metadata_file = folder / request.metadata if request.metadata is not None else None
        identity, general = general_metadata(
            self._adapter.folder,
            self._adapter.config,
            parameter_count([TensorInfo(t.name, t.expr.shape[::-1], F32) for t in planned]),
            architecture=architecture.name,
            model_type="adapter",
            model_name=request.model_name,
            metadata_file=metadata_file,
            as_reference=request.as_reference,
        )
        first = ("general.architecture", "general.type")
        metadata: Metadata = {key: general[key] for key in first} | {"adapter.type": string("lora")} | general
        metadata["adapter.lora.alpha"] = f32(self._alpha())
        metadata["general.quantization_version"] = u32(QUANTIZATION_VERSION)
        adapter_file = self._adapter.file.path
        inputs = (adapter_file, self._adapter.folder.path / CONFIG, *((metadata_file,) if metadata_file else ()))
        return ModelPlan(planned, metadata, self._native_type(), identity, inputs)

    def _alpha(self) -> float:
        alpha: Any = self._adapter.config.get("lora_alpha")
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < 3e38:
            raise InputError(f"lora_alpha is {alpha!r:.40}, not a number", file=self._adapter.folder.path / CONFIG)
        return float(alpha)

    def _native_type(self) -> TensorType | None:
        stored = (tensor for tensor in self._adapter.tensors.values() if len(tensor.shape) >= 2)
        return next((TENSOR_TYPES[tensor.dtype] for tensor in stored if tensor.dtype in ("BF16", "F16")), None)

    def _planned(self) -> tuple[Architecture, tuple[PlannedTensor, ...]]:
        folder = self._base_folder()
        raw = read_config(folder)
        architecture = find_architecture(raw)
        planned = plan_changes(architecture, site_of(architecture, raw, folder, self._adapter.changes()))
        return architecture, tuple(each for tensor in planned for each in _in_factors(tensor))

    def _base_folder(self) -> Folder:
        """The folder of the base model. Only its config is needed."""
        mine = self._adapter.folder
        if self._base is not None or mine.has("config.json"):
            return self._base or mine
        named: Any = self._adapter.config.get("base_model_name_or_path")
        hint = "put the base model's config.json beside the adapter, or give its folder to `convert` with --base"
        if not isinstance(named, str) or not named:
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
            hint=f"{hint}. For one file of both, merge the adapter with PEFT's merge_and_unload first",
        )


def _in_factors(tensor: PlannedTensor) -> Iterator[PlannedTensor]:
    """The tensors in the file for one planned change: its two factors, or an unchanged norm."""
    if not _has_factors(tensor.expr):
        yield tensor
        return
    try:
        a, b = factors(tensor.expr)
    except ForgeError as error:
        raise UnsupportedError(error.problem, tensor=tensor.name, hint=error.hint) from None
    # llama.cpp looks up embeddings by columns of A, so A is stored transposed
    yield PlannedTensor(f"{tensor.name}.lora_a", transposed(a) if tensor.name == "token_embd.weight" else a)
    yield PlannedTensor(f"{tensor.name}.lora_b", b)


def _has_factors(expr: TensorExpr) -> bool:
    return isinstance(expr, LowRank) or any(_has_factors(child) for child in expr.children())
