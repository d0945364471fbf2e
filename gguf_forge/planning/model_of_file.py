"""The model that a GGUF file was made of, by the config.json of its checkpoint: for the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gguf_forge.architectures.config import MAX_LAYERS
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.registry import class_name, declarations_of
from gguf_forge.architectures.reverse import KnownModel
from gguf_forge.architectures.site import Part, Site
from gguf_forge.checkpoint.mistral_form import PARAMS, has_mistral_form, read_params
from gguf_forge.checkpoint.pocket_tts_form import config_of_shapes
from gguf_forge.errors import InputError, printable
from gguf_forge.gguf_file.values import Metadata, Value, ValueType
from gguf_forge.planning.model_plan import of_draft, site_of
from gguf_forge.storage.json_file import read_json_object
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.storage.paths import is_folder

_NAME = "config.json"
_HEADS = ("attention.head_count", "attention.head_count_kv")


def model_of_file(metadata: Metadata, config: Path) -> KnownModel:
    """What a config says of the model that a file was made of.

    Args:
        metadata: Keys of the file.
        config: The config.json, or Mistral's own params.json, or the folder that has it.

    Raises:
        InputError: the config is not that of the file's architecture, or has another number of heads.
    """
    folder, name = (config, _NAME) if is_folder(config) else (config.parent, config.name)
    if name == PARAMS or (is_folder(config) and has_mistral_form(LocalFolder(folder))):
        name, values = PARAMS, read_params(LocalFolder(folder))
    else:
        values = (config_of_shapes(LocalFolder(folder)) if is_folder(config) else None) or read_json_object(
            LocalFolder(folder), name
        )
    kind, wanted = metadata.get("general.type"), metadata.get("general.architecture")
    part: Part = "mmproj" if kind is not None and kind.data == "mmproj" else "text"
    # A checkpoint may have a draft model beside the model.
    configs = (each for config in (values, of_draft(values)) for each in declarations_of(config, part))
    architecture = next((one for one in configs if wanted and one.name == wanted.data), None)
    if architecture is None:
        told = printable(str(wanted.data if wanted else None))
        raise InputError(
            f"{printable(class_name(values, part))} makes no file of architecture {told}",
            file=folder / name,
            hint="give the config.json of the model that the file was made of",
        )
    site = site_of(architecture, values, LocalFolder(folder), {}, keys=metadata)
    _check_heads(metadata, architecture, site, folder / name)  # with the config's own number of layers
    if (layers := _layers(metadata, architecture)) is not None:
        site = replace(site, block_count=layers)
    inner, names = class_name(values, part), values.get("architectures")
    inner = inner if inner in architecture.hf else architecture.hf[0]
    outermost = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    return KnownModel(architecture, inner, site, outermost)


def _layers(metadata: Metadata, architecture: Architecture) -> int | None:
    """The number of layers of the file, which may be pruned; None if it does not tell."""
    count = metadata.get(f"{architecture.name}.block_count")
    if count is None or not isinstance(count.data, int):
        return None
    if not 0 <= count.data <= MAX_LAYERS:
        raise InputError(f"{architecture.name}.block_count is {count.data}, which no model has")
    return count.data


def _check_heads(metadata: Metadata, architecture: Architecture, site: Site, config: Path) -> None:
    """Refuses a config with other heads than the file: rows of attention would be put back in a wrong order.

    Numbers of each layer are compared where both have as many layers. Fewer are in files with pruned layers.
    """
    counts = (line for line in architecture.metadata if getattr(line, "key", "").endswith(_HEADS))
    asked = (line for line in counts if f"{architecture.name}.{getattr(line, 'key', '')}" in metadata)
    for key, value in dict(pair for line in asked for pair in line(site)).items():  # the last line of a key counts
        found = metadata[f"{architecture.name}.{key}"]
        if found.type != value.type or (value.type is ValueType.ARRAY and len(found.data) != len(value.data)):
            continue
        if tuple(_items(found)) != tuple(_items(value)):
            raise InputError(
                f"{key} is {value.data!r:.40} by the config, and {found.data!r:.40} in the file",
                file=config,
                hint="give the config.json of the model that the file was made of",
            )


def _items(value: Value) -> Sequence[object]:
    return value.data if value.type is ValueType.ARRAY else (value.data,)
