"""The plan of a model before file types are chosen: tensors, metadata and vocabulary of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gguf_forge.architectures import find_architecture
from gguf_forge.architectures.block_scales import repacked
from gguf_forge.architectures.completeness import check_kernels
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import WITHOUT_ARCHITECTURE, Architecture, MetadataLine
from gguf_forge.architectures.fused import fused
from gguf_forge.architectures.mapping import PlannedTensor, plan_tensors
from gguf_forge.architectures.parts import belongs_to, is_text
from gguf_forge.architectures.registry import class_name, declarations_of
from gguf_forge.architectures.rope_settings import outranked, with_one_rope
from gguf_forge.architectures.site import DraftTarget, Part, Site
from gguf_forge.checkpoint import Checkpoint
from gguf_forge.checkpoint.logical import logical_tensors
from gguf_forge.checkpoint.quantized import named_blocks
from gguf_forge.errors import InputError, UsageError
from gguf_forge.general import ModelIdentity, general_metadata, parameter_count
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import ByteOrder, Metadata, ValueType, array, string, u32
from gguf_forge.recipe import stays_f32
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.json_file import read_json_object
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.stored import stored_in
from gguf_forge.tokenizer import read_vocabulary, with_padding
from gguf_forge.types.tensor_type import F16, F32, TENSOR_TYPES, TensorType
from gguf_forge.wording import log_of

log = log_of(__name__)

# The version of ggml's block formats. It has been 2 since 2023.
QUANTIZATION_VERSION = 2
# Endings of the files that can be read: weights, config and tokenizer, merges, SentencePiece models, chat templates,
# the model card.
_OF_MODELS = (".safetensors", ".json", ".txt", ".model", ".jinja", ".md")
# The kinds of vocabulary that stay as long as the reference writes them, which its files pin.
_AS_LONG_AS_THE_REFERENCE = ("gemma4",)
# The choices that ask for another part than the whole of the text model -> that part.
_PARTS = {"mtp_only": "mtp", "dspark": "dspark"}
# The command line's options for the choices that only some declarations know.
_FLAGS = {
    "mtp_only": "--mtp",
    "no_mtp": "--no-mtp",
    "dspark": "--dspark",
    "no_community_template": "--disable-mistral-community-chat-template",
    "dense_modules": "--sentence-transformers-dense-modules",
}
# Tensors that the reference's converter keeps in 16 bits in a ternary file. Source: conversion/base.py.
_NEVER_TERNARY = re.compile(
    r"(token_embd|per_layer_token_embd|output|blk\.\d+\.(altup_router|laurel_[lr]))\.weight", re.ASCII
)


@dataclass(frozen=True)
class ModelPlan:
    """The part of a plan that is the same for every file type.

    Attributes:
        tensors: In the order of the reference's converter; none for a vocabulary alone.
        metadata: Keys in file order. `general.file_type` has its place but not yet its value; an adapter lacks it.
        native_type: The 16-bit type of the checkpoint; None if it has none.
        identity: The parts of the model's name, for the name of the file.
        inputs: The files in the checkpoint's folder that can belong to the model, and the --metadata file.
        part: The part of the model that it is: main, mmproj, mtp, dspark, or an adapter's.
        file_prefix: The beginning of the file's usual name if the file is only a part of the model.
        adapters: Adapters that the checkpoint also holds, by the beginning of their files' names.
        byte_order: Of the files: "<" little-endian, ">" big-endian.
        labelled: The type of blocks that `general.file_type` names although the file has none, as the reference's
            converter writes it; None for none.
        kept: The tensors that stay in blocks of the checkpoint, by name; None if the user did not wish that.
        packed_type: The type of blocks that the checkpoint itself holds and every file keeps; None if it has none.
    """

    tensors: tuple[PlannedTensor, ...]
    metadata: Metadata
    native_type: TensorType | None
    identity: ModelIdentity
    inputs: tuple[Path, ...]
    part: str = "main"
    file_prefix: str = ""
    adapters: Mapping[str, ModelPlan] = field(default_factory=dict)
    kept: Mapping[str, TensorExpr] | None = None
    byte_order: ByteOrder = "<"
    labelled: str | None = None

    @property
    def is_adapter(self) -> bool:
        """Whether the file is that of an adapter, which has no file type."""
        return "general.file_type" not in self.metadata

    @property
    def packed_type(self) -> TensorType | None:
        return next((t.expr.dtype for t in self.tensors if t.expr.dtype.is_packed), None)

    @property
    def nbytes(self) -> int:
        """Bytes of the checkpoint's tensors that the file is made of, each once."""
        stored = {(id(part.source), part.offset): part for t in self.tensors for part in stored_in(t.expr)}
        return sum(part.dtype.nbytes(part.shape) for part in stored.values())

    def base_infos(self, base: TensorType) -> tuple[TensorInfo, ...]:
        """The tensors of the file of type `base` that the reference's converter makes: a float type for the file that
        llama-quantize starts from; Q8_0, TQ1_0 or TQ2_0 for one that is quantized at once."""
        return tuple(
            TensorInfo(tensor.name, tensor.expr.shape[::-1], _base_of(tensor, base)) for tensor in self.tensors
        )


def _base_of(tensor: PlannedTensor, base: TensorType) -> TensorType:
    if not tensor.expr.dtype.is_float:
        return tensor.expr.dtype
    n_dims = len(tensor.expr.shape)
    # vectors, norms and biases are always F32, even if a family declares another type
    if tensor.forced_type is not None and n_dims > 1 and not tensor.name.endswith(("_norm.weight", ".bias")):
        kind = tensor.forced_type(base)
    elif stays_f32(tensor.name, n_dims):
        return F32
    else:
        kind = F16 if base.name.startswith("TQ") and _NEVER_TERNARY.fullmatch(tensor.name) else base
    return kind if tensor.expr.shape[-1] % kind.block_elements == 0 else F16


def plan_model(
    checkpoint: Checkpoint,
    part: Part = "text",
    *,
    model_name: str | None = None,
    metadata_file: Path | None = None,
    pre_tokenizer: str | None = None,
    vocab_only: bool = False,
    choices: frozenset[str] = frozenset(),
    target: Folder | None = None,
) -> ModelPlan:
    """Plans a checkpoint. Reads its headers and its small files, no weight.

    Args:
        checkpoint: An opened folder.
        part: Which part of the model.
        model_name: `general.name`, instead of what the folder and the model card say.
        metadata_file: JSON with `general.*` keys that outrank the model card.
        pre_tokenizer: The pre-tokenizer's name, for vocabularies whose hash is not known.
        vocab_only: Metadata and vocabulary, no tensors.
        choices: The choices that are passed to declarations, as in `Site.choices`.
        target: The folder of the model that this one is a draft for.

    Raises:
        UsageError: a choice that the model leaves no room for, or a draft model without its target.
        UnsupportedError: the model, its quantization or its tokenizer is not known.
        InputError: the checkpoint contradicts itself or misses something.
    """
    if "as_reference" not in choices:
        for message in outranked(checkpoint.config):
            log.warning(message)
    architecture, site = survey(checkpoint, part, weights=not vocab_only, choices=choices, target=target)
    tensors = () if vocab_only else fused(plan_tensors(architecture, site), architecture, site)
    count = parameter_count([TensorInfo(t.name, t.expr.shape[::-1], F32) for t in tensors])
    identity, general = general_metadata(
        checkpoint.folder,
        checkpoint.config,
        count,
        architecture=architecture.name,
        model_type="mmproj" if part == "mmproj" else "model",
        model_name=model_name,
        metadata_file=metadata_file,
        as_reference="as_reference" in choices,
    )
    named = "mmproj" if part == "mmproj" else next((_PARTS[choice] for choice in _PARTS if choice in choices), "main")
    prefix = f"{named}-" if named in ("mmproj", "mtp") else ""
    plan = ModelPlan(
        tensors,
        _metadata(architecture, site, tensors, general, pre_tokenizer),
        native_type=native_type(checkpoint, architecture),
        identity=replace(identity, size_label=None) if prefix else identity,
        inputs=_inputs(checkpoint.folder, target, metadata_file),
        part=named,
        file_prefix=prefix,
        labelled=named_blocks(checkpoint) if "as_reference" in choices and not vocab_only else None,
    )
    if architecture.adapters is None or vocab_only:
        return plan
    adapters = architecture.adapters(site)
    return replace(plan, adapters={name: _adapter(plan, name, each, site) for name, each in adapters.items()})


def _metadata(
    architecture: Architecture,
    site: Site,
    tensors: tuple[PlannedTensor, ...],
    general: Metadata,
    pre_tokenizer: str | None,
) -> Metadata:
    """All keys of the file, in its order."""
    metadata: Metadata = {"general.architecture": general["general.architecture"]}
    metadata |= _lines(architecture, architecture.early, site)
    metadata |= general
    metadata |= _lines(architecture, architecture.metadata, site)
    check_kernels(metadata, {tensor.name: tensor.expr.shape for tensor in tensors})
    metadata["general.quantization_version"] = u32(QUANTIZATION_VERSION)
    metadata |= _activations(tensors)
    metadata |= _vocabulary(architecture, site, pre_tokenizer)
    return _fitted_vocabulary(tensors, metadata, site.folder.path, "as_reference" in site.choices)


def _inputs(folder: Folder, target: Folder | None, metadata_file: Path | None) -> tuple[Path, ...]:
    """The files that decide the bytes of a model's file."""
    of_target = files_of_the_model(target) if target is not None else ()
    return (*files_of_the_model(folder), *of_target, *([metadata_file] if metadata_file else ()))


def _activations(tensors: Sequence[PlannedTensor]) -> Metadata:
    """The keys that name NVFP4 matrices whose activations must not be rounded to 4 bits."""
    names = sorted(t.name for t in tensors if any(part.wide_input for part in repacked(t.expr)))
    if not names:
        return {}
    return {
        "general.tensor_extra.name": array(ValueType.STRING, names),
        "general.tensor_extra.prec_a4": array(ValueType.BOOL, [False] * len(names)),
    }


def _adapter(plan: ModelPlan, prefix: str, architecture: Architecture, site: Site) -> ModelPlan:
    """The plan of an adapter that the checkpoint also holds: a file with neither vocabulary nor file type."""
    metadata = {"general.architecture": string(architecture.name), "general.type": string("adapter")}
    return replace(
        plan,
        tensors=plan_tensors(architecture, site),
        metadata=metadata | _lines(architecture, architecture.metadata, site),
        part=prefix.removesuffix("-"),
        file_prefix=prefix,
    )


def survey(
    checkpoint: Checkpoint,
    part: Part = "text",
    *,
    weights: bool = True,
    choices: frozenset[str] = frozenset(),
    target: Folder | None = None,
) -> tuple[Architecture, Site]:
    """The declaration that a part of a checkpoint follows, and the site where it is applied.

    Raises:
        UsageError: a choice that the model leaves no room for.
        UnsupportedError: the model or its quantization is not known.
        InputError: the checkpoint contradicts itself or misses something.
    """
    architecture = find_architecture(of_draft(checkpoint.config) if "dspark" in choices else checkpoint.config, part)
    if unfit := choices & _FLAGS.keys() - architecture.choices:
        flags = ", ".join(sorted(_FLAGS[choice] for choice in unfit))
        raise UsageError(
            f"{flags}: not for a {architecture.name} model", file=checkpoint.folder.path, hint="leave it out"
        )
    tensors = logical_tensors(checkpoint, as_reference="as_reference" in choices) if weights else {}
    return architecture, site_of(architecture, checkpoint.config, checkpoint.folder, tensors, choices, target)


def of_draft(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config with the class of the draft model that checkpoints of DeepSeek V4 hold beside the model."""
    is_v4 = class_name(config) == "DeepseekV4ForCausalLM"
    return {**config, "architectures": ["DeepseekV4DSparkModel"]} if is_v4 else config


def site_of(
    architecture: Architecture,
    config: Mapping[str, Any],
    folder: Folder,
    tensors: Mapping[str, TensorExpr],
    choices: frozenset[str] = frozenset(),
    target: Folder | None = None,
    keys: Metadata | None = None,
) -> Site:
    """Where a declaration is applied.

    Args:
        architecture: The declaration.
        config: The parsed config.json.
        folder: The model's, for small files.
        tensors: The logical tensors to plan.
        choices: The choices that are passed to it, as in `Site.choices`.
        target: The folder of the model that this one is a draft for.
        keys: The keys of a GGUF file that is led back.
    """
    site = Site(
        architecture.read_config(config if "as_reference" in choices else with_one_rope(config)),
        folder,
        architecture.part,
        tensors,
        choices=choices,
        target=_target(target) if target is not None else None,
        keys=keys or {},
    )
    site = replace(site, config=architecture.prepare(site))
    return replace(site, block_count=architecture.block_count(site))


def has_projector(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint holds encoders and a projector that can become a file."""
    encoders, text = (declarations_of(checkpoint.config, part)[:1] for part in ("mmproj", "text"))
    return any(
        belongs_to(one, name) and not any(belongs_to(other, name) for other in text)
        for one in encoders
        for name in checkpoint.tensors
        if one.takes is not None or not is_text(name)
    )


def has_draft_of_its_own(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint holds a DSpark draft beside the model."""
    config = of_draft(checkpoint.config)
    if config is checkpoint.config or not checkpoint.config.get("dspark_target_layer_ids"):
        return False
    return any(belongs_to(find_architecture(config), name) for name in checkpoint.tensors)


def _target(folder: Folder) -> DraftTarget:
    return DraftTarget(Config.raw(read_json_object(folder, "config.json")), folder)


def _vocabulary(architecture: Architecture, site: Site, pre_tokenizer: str | None) -> Metadata:
    if architecture.tokenizer is None:
        return {}
    folder = site.named_target().folder if architecture.vocabulary_of_target else site.folder
    return read_vocabulary(
        folder,
        site.config,
        architecture.tokenizer,
        pre_tokenizer=pre_tokenizer,
        as_reference="as_reference" in site.choices,
    )


def native_type(checkpoint: Checkpoint, architecture: Architecture) -> TensorType | None:
    """The type of the first bf16 or f16 matrix that is stored, as the reference's `auto` finds it; None if there is
    none."""
    for tensor in checkpoint.tensors.values():
        if len(tensor.shape) >= 2 and tensor.dtype in ("BF16", "F16") and belongs_to(architecture, tensor.name):
            return TENSOR_TYPES[tensor.dtype]
    return None


def files_of_the_model(folder: Folder) -> Iterator[Path]:
    """The input files of a model. GGUF files made of it may be in the same folder and are not inputs."""
    return (folder.path_of(name) for name in folder.names() if name.endswith(_OF_MODELS) and not name.startswith("."))


def plan_weights(
    checkpoint: Checkpoint,
    part: Part = "text",
    *,
    choices: frozenset[str] = frozenset(),
    target: Folder | None = None,
    adapter: str | None = None,
) -> tuple[PlannedTensor, ...]:
    """Only the tensors of a checkpoint's GGUF file. Neither metadata nor vocabulary is read.

    Args:
        checkpoint, part, choices, target: As for `plan_model`.
        adapter: An adapter that the checkpoint also holds, by the beginning of its file's name; None for the model.

    Raises:
        UnsupportedError: the model or its quantization is not known.
        InputError: the checkpoint contradicts itself or misses something.
    """
    architecture, site = survey(checkpoint, part, choices=choices, target=target)
    if adapter is not None and architecture.adapters is not None:
        architecture = architecture.adapters(site)[f"{adapter}-"]
    return plan_tensors(architecture, site)


def plan_infos(checkpoint: Checkpoint) -> tuple[tuple[TensorInfo, ...], str]:
    """The tensors of a checkpoint's GGUF file, with their types in the checkpoint, and its architecture.

    Raises:
        UnsupportedError: the model or its quantization is not known.
        InputError: the checkpoint contradicts itself or misses something.
    """
    architecture, site = survey(checkpoint)
    planned = plan_tensors(architecture, site)
    return tuple(TensorInfo(t.name, t.expr.shape[::-1], t.expr.source_type) for t in planned), architecture.name


def _fitted_vocabulary(
    tensors: tuple[PlannedTensor, ...], metadata: Metadata, folder: Path, as_reference: bool
) -> Metadata:
    """The metadata with as many tokens as the embeddings have rows.

    llama.cpp takes that number from the vocabulary, and refuses to load embeddings with another number of rows. The
    reference writes the file without tokens for further rows. Tokens without a row are an error.
    """
    tokens = metadata.get("tokenizer.ggml.tokens")
    embedding = next((tensor for tensor in tensors if tensor.name == "token_embd.weight"), None)
    if tokens is None or embedding is None or len(tokens.data) == embedding.expr.n_rows:
        return metadata
    rows = embedding.expr.n_rows
    problem = f"has {rows} rows, and the vocabulary has {len(tokens.data)} tokens"
    if rows < len(tokens.data):
        raise InputError(
            problem,
            file=folder,
            tensor=embedding.name,
            hint="correct vocab_size in config.json, or take the tokenizer that the model was trained with",
        )
    if as_reference or metadata["tokenizer.ggml.model"].data in _AS_LONG_AS_THE_REFERENCE:
        log.warning("%s %s: llama.cpp loads no such file; does tokenizer.json lack tokens?", embedding.name, problem)
        return metadata
    log.warning("%s %s: the further rows become unused tokens", embedding.name, problem)
    return with_padding(metadata, rows, folder)


def _lines(architecture: Architecture, lines: Sequence[MetadataLine], site: Site) -> Metadata:
    found: Metadata = {}
    for line in lines:
        for key, value in line(site):
            own = not key.startswith(WITHOUT_ARCHITECTURE)
            found[f"{architecture.name}.{key}" if own else key] = value
    return found
