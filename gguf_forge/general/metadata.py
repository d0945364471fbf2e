"""The `general.*` keys that the converter writes, in its order.

Each value comes from the first that tells it: `--model-name`, the `--metadata` file, the model card,
`_name_or_path` of config.json, the folder's name. Source: metadata.py of gguf-py, conversion/base.py.
"""

from __future__ import annotations

import re
import shlex
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

from gguf_forge.errors import InputError, printable
from gguf_forge.general.model_card import read_model_card
from gguf_forge.general.naming import ModelIdentity, NameParts, model_id_of, parse_model_id, title
from gguf_forge.general.size import ParameterCount, size_label
from gguf_forge.gguf_file.values import Metadata, Value, ValueType, array, string, u32
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.json_file import read_json_object
from gguf_forge.storage.local.folder import located
from gguf_forge.wording import log_of

log = log_of(__name__)

# Key below general.sampling: its type, and the keys of generation_config.json, the first present counts.
_SAMPLING: dict[str, tuple[ValueType, tuple[str, ...]]] = {
    "sequence": (ValueType.STRING, ("sequence",)),
    "top_k": (ValueType.INT32, ("top_k",)),
    "top_p": (ValueType.FLOAT32, ("top_p",)),
    "min_p": (ValueType.FLOAT32, ("min_p",)),
    "xtc_probability": (ValueType.FLOAT32, ("xtc_probability",)),
    "xtc_threshold": (ValueType.FLOAT32, ("xtc_threshold",)),
    "temp": (ValueType.FLOAT32, ("temperature",)),
    "penalty_last_n": (ValueType.INT32, ("penalty_last_n",)),
    "penalty_repeat": (ValueType.FLOAT32, ("penalty_repeat", "repetition_penalty")),
    "mirostat": (ValueType.INT32, ("mirostat",)),
    "mirostat_tau": (ValueType.FLOAT32, ("mirostat_tau",)),
    "mirostat_eta": (ValueType.FLOAT32, ("mirostat_eta",)),
}

# Key below general, in file order: the keys of the model card, the first that has a value counts.
_TEXTS: dict[str, tuple[str, ...]] = {
    "name": ("name", "model_name"),
    "author": ("author", "model_author", "model_creator"),
    "version": ("version", "model_version"),
    "organization": ("organization", "model_organization"),
    "finetune": ("finetune", "model_finetune"),
    "basename": ("basename", "model_basename", "model_type"),
    "description": ("description", "model_description"),
    "quantized_by": (),
    "size_label": ("size_label", "model_size_label"),
    "license": ("license",),
    "license.name": ("license_name",),
    "license.link": ("license_link",),
    "url": (),
    "doi": (),
    "uuid": (),
    "repo_url": (),
    "source.url": ("url", "model_url"),
    "source.doi": ("doi", "model_doi"),
    "source.uuid": ("uuid", "model_uuid"),
    "source.repo_url": ("repo_url", "model_repo_url"),
}

# Key below general: the key of the --metadata file, and of the model card (the first present counts).
_SOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "base_model": ("general.base_models", ("base_model", "base_models", "base_model_sources")),
    "dataset": ("general.datasets", ("datasets", "dataset", "dataset_sources")),
}
_SOURCE_FIELDS = (
    "name",
    "author",
    "version",
    "organization",
    "description",
    "url",
    "doi",
    "uuid",
    "repo_url",
)

# Key below general: the keys of the model card, joined.
_LISTS: dict[str, tuple[str, ...]] = {
    "tags": ("tags", "pipeline_tag"),
    "languages": ("languages", "language"),
}

# The keys that the name of the folder may tell, where nothing else does.
FOLDER_NAMES = frozenset(f"general.{field.name}" for field in fields(NameParts))

_HUB_URL = re.compile(r"https?://huggingface\.co/([^/]+/[^/]+)")


def general_metadata(
    folder: Folder,
    config: Mapping[str, Any],
    count: ParameterCount,
    *,
    architecture: str,
    model_type: str = "model",
    model_name: str | None = None,
    metadata_file: Path | None = None,
    as_reference: bool = False,
) -> tuple[ModelIdentity, Metadata]:
    """What a model is called, and its `general.*` keys up to the first key of the architecture.

    `general.file_type` and `general.quantization_version` come later in a file and are not among them.
    A model card or generation_config.json that cannot be used is ignored with a warning.

    Args:
        folder: the checkpoint; its name, README.md and generation_config.json are used.
        config: config.json as it is.
        count: parameters of the converted tensors; `ParameterCount()` for a vocabulary alone.
        architecture: value of `general.architecture`.
        model_type: value of `general.type`.
        model_name: outranks every other source of the name.
        metadata_file: a JSON object from GGUF keys to values; null takes a value away. `general.base_models`
            and `general.datasets` are lists of objects with name, author, version, organization,
            description, url, doi, uuid and repo_url.
        as_reference: take the folder's own name also in the cache of the hub, where it is a hash.

    Raises:
        InputError: `metadata_file` is missing, is no JSON object, or has a value of a wrong type.

    Example:
        >>> from gguf_forge.storage.local.folder import LocalFolder
        >>> identity, metadata = general_metadata(
        ...     LocalFolder(Path("Tiny-1.1B-Chat")),
        ...     {},
        ...     ParameterCount(1_100_000_000, 1_100_000_000),
        ...     architecture="llama",
        ... )
        >>> identity.basename, list(metadata)[:3]
        ('Tiny', ['general.architecture', 'general.type', 'general.name'])
    """
    card, override = read_model_card(folder), _read_override(metadata_file)
    folder_id = _clean(folder.name if as_reference else model_id_of(folder))
    found = _texts(card, config, folder_id, count.total)
    texts = {key: override.get(f"general.{key}", text) for key, text in found.items()}
    if model_name is not None:
        texts["name"] = _clean(model_name)
    if texts["name"] is None:
        texts["name"] = folder_id.rpartition("/")[2]
    if texts["size_label"] is None and count.total > 0:
        texts["size_label"] = size_label(count)
    identity = ModelIdentity(
        texts["name"] or "", texts["basename"], texts["finetune"], texts["version"], texts["size_label"]
    )
    general = {"general.architecture": string(architecture), "general.type": string(model_type)}
    return identity, general | _described(folder, card, texts, override, count.total)


def _described(
    folder: Folder,
    card: Mapping[str, Any],
    texts: Mapping[str, str | None],
    override: Mapping[str, Any],
    n_parameters: int,
) -> Metadata:
    """The keys of all that describes the model: how to sample, its texts, its sources, and lists of words."""
    metadata: Metadata = {}
    for key, value in _sampling(folder).items():
        if (value := override.get(f"general.sampling.{key}", value)) is not None:
            metadata[f"general.sampling.{key}"] = value
    metadata |= {f"general.{key}": string(text) for key, text in texts.items() if text}
    for key, (override_key, card_keys) in _SOURCES.items():
        metadata |= _source_keys(key, override.get(override_key, _card_sources(card, card_keys, n_parameters)))
    for key, card_keys in _LISTS.items():
        if items := override.get(f"general.{key}", _card_list(card, card_keys)):
            metadata[f"general.{key}"] = array(ValueType.STRING, items)
    return metadata


def _clean(text: str) -> str:
    """`text` without lone surrogates, which JSON and file names may hold and UTF-8 may not."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _texts(card: Mapping[str, Any], config: Mapping[str, Any], folder_id: str, total: int) -> dict[str, str | None]:
    texts = {
        key: next((text for card_key in card_keys if (text := _card_text(card, card_key)) is not None), None)
        for key, card_keys in _TEXTS.items()
    }
    ids = [folder_id]
    source = config.get("_name_or_path")
    if isinstance(source, str) and source.count("/") <= 1:  # with more parts it is a path on some machine
        ids.insert(0, _clean(source))
    for model_id in ids:
        parts = parse_model_id(model_id, total)
        organization = None if parts.organization is None else title(parts.organization)
        told = asdict(parts) | {"name": title(parts.name), "organization": organization}
        texts |= {key: text for key, text in told.items() if texts[key] is None}
    return texts


def _card_text(entry: Mapping[str, Any], key: str) -> str | None:
    value = entry.get(key)
    if key == "license" and isinstance(value, list):
        return ",".join(_clean(item) for item in value if isinstance(item, str))
    if value is None or isinstance(value, str):
        return value and _clean(value)
    log.warning("model card: %s is ignored: it is a %s, not a text", key, type(value).__name__)
    return None


def _card_list(card: Mapping[str, Any], keys: tuple[str, ...]) -> list[str]:
    found: list[Any] = []
    for key in keys:
        value = card.get(key)
        found += value if isinstance(value, list) else [value] if isinstance(value, str) else []
    return [_clean(item) for item in found if isinstance(item, str)]


def _card_sources(card: Mapping[str, Any], keys: tuple[str, ...], total: int) -> list[dict[str, str | None]] | None:
    key = next((key for key in keys if key in card), None)
    if key is None:
        return None
    value = card[key]
    entries = value if isinstance(value, list) else [value] if isinstance(value, str) else []
    return [_card_source(entry, total) for entry in entries]


def _card_source(entry: object, total: int) -> dict[str, str | None]:
    """The fields of one base model or data set: those that are given, and those that its hub id or URL tells."""
    if isinstance(entry, dict):
        return {field: _card_text(entry, field) for field in _SOURCE_FIELDS}
    if not isinstance(entry, str):
        log.warning("model card: a base model or data set is ignored: it is a %s", type(entry).__name__)
        return {}
    entry = _clean(entry)
    fields: dict[str, str | None] = {}
    model_id: str | None = entry
    if entry.startswith(("http://", "https://", "ssh://")):
        fields["repo_url"] = entry
        match = _HUB_URL.fullmatch(entry)
        model_id = match[1] if match else None
    if model_id is not None:
        parts = parse_model_id(model_id, total)
        fields |= {"name": title(parts.name), "version": parts.version}
        if parts.organization is not None:
            fields["organization"] = title(parts.organization)
            fields.setdefault("repo_url", f"https://huggingface.co/{parts.organization}/{parts.name}")
    return fields


def _source_keys(key: str, sources: list[dict[str, str | None]] | None) -> Metadata:
    if sources is None:
        return {}
    keys = {f"general.{key}.count": u32(len(sources))}
    for i, source in enumerate(sources):
        given = {field: text for field in _SOURCE_FIELDS if (text := source.get(field))}
        keys |= {f"general.{key}.{i}.{field}": string(text) for field, text in given.items()}
    return keys


def _sampling(folder: Folder) -> dict[str, Value | None]:
    """The recommended sampler settings of generation_config.json, None where it has none."""
    name, path = "generation_config.json", folder.path / "generation_config.json"
    given: Mapping[str, Any] = {}
    if folder.has(name):
        try:
            given = read_json_object(folder, name)
        except InputError as error:
            log.warning("%s (the file is ignored)", error.as_written)
    values: dict[str, Value | None] = {}
    for key, (kind, candidates) in _SAMPLING.items():
        given_key = next((candidate for candidate in candidates if candidate in given), None)
        try:
            values[key] = None if given_key is None else _sampling_value(kind, given[given_key])
        except ValueError as error:
            log.warning("%s: %s is ignored: %s", path, given_key, error)
            values[key] = None
    return values


def _sampling_value(kind: ValueType, given: object) -> Value | None:
    if given is None or given == "":
        return None
    if kind is ValueType.STRING:
        return string(_text(given))
    if not isinstance(given, (int, float)):
        raise ValueError(f"it is a {type(given).__name__}, not a number")
    if kind is ValueType.INT32:
        if given != given or given % 1 or not -(2**31) <= given < 2**31:
            raise ValueError(f"{given} is not a 32-bit integer")
        return Value(kind, int(given))
    try:
        struct.pack("<f", given)
    except (OverflowError, struct.error) as error:
        raise ValueError("it is too large for a 32-bit float") from error
    return Value(kind, float(given))


def _read_override(path: Path | None) -> dict[str, Any]:
    """The checked values of the --metadata file: a text, a sampler value, a list of texts or of sources, or None."""
    if path is None:
        return {}
    override: dict[str, Any] = {}
    for key, value in read_json_object(*located(path)).items():
        read = _OVERRIDES.get(key)
        if read is None:
            log.warning("%s: %s is ignored: %s", path, key, _elsewhere(key, value))
            continue
        try:
            override[key] = None if value is None else read(value)
        except ValueError as error:
            raise InputError(f"{key}: {error}", file=path, hint="fix the metadata file") from error
    return override


def _elsewhere(key: str, value: Any) -> str:
    """Why a key is not taken from the --metadata file, and what sets it."""
    kind = type(value).__name__ if isinstance(value, str | int | float) else "TYPE"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    short = text if kind != "TYPE" and printable(text) == text else "VALUE"
    card = " or the model card" if key == "general.license" else ""
    setting = shlex.quote(f"{printable(key)}={kind}:{short}")
    return f"it cannot be set here; use --override-kv {setting}" + card


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"it is a {type(value).__name__}, not a text")
    return _clean(value)


def _texts_of_list(value: object) -> list[str]:
    return [_text(item) for item in _list(value)]


def _sources_of_list(value: object) -> list[dict[str, str | None]]:
    return [_source_of_object(item) for item in _list(value)]


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"it is a {type(value).__name__}, not a list")
    return value


def _source_of_object(item: object) -> dict[str, str | None]:
    if not isinstance(item, dict):
        raise ValueError(f"an entry is a {type(item).__name__}, not an object")
    return {field: _text(item[field]) for field in _SOURCE_FIELDS if item.get(field) is not None}


# How each value of a --metadata file is read. The converter takes the license from the card alone.
_OVERRIDES: dict[str, Callable[[object], Any]] = {
    **{f"general.sampling.{key}": partial(_sampling_value, kind) for key, (kind, _) in _SAMPLING.items()},
    **{f"general.{key}": _text for key in _TEXTS if key != "license"},
    **{f"general.{key}": _texts_of_list for key in _LISTS},
    **{key: _sources_of_list for key, _ in _SOURCES.values()},
}
