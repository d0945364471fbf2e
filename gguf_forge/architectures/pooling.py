"""The pooling of an embedding model, which makes one vector of many, from the files of sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from gguf_forge.architectures.declaration import MetadataLine
from gguf_forge.architectures.metadata import u32
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.json_file import read_json, read_json_object

# Source: gguf-py's PoolingType.
MEAN, CLS, LAST, RANK = 1, 2, 3, 4
_FLAGS = {
    "pooling_mode_mean_tokens": MEAN,
    "pooling_mode_cls_token": CLS,
    "pooling_mode_lasttoken": LAST,
}
_MODES = {"mean": MEAN, "cls": CLS, "lasttoken": LAST}


def modules_of(folder: Folder, kind: str) -> Iterator[Folder]:
    """The folders of the modules of one kind, such as `Pooling`, that modules.json names; none without this file.

    Raises:
        InputError: modules.json is broken.
    """
    if not folder.has("modules.json"):
        return
    file, modules = folder.path / "modules.json", read_json(folder, "modules.json")
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise InputError("is not a list of modules", file=file)
    for module in modules:
        path = module.get("path")
        if not str(module.get("type")).endswith(kind):
            continue
        if not isinstance(path, str) or not path or PurePath(path).name != path:
            raise InputError(f"the path {path!r:.40} is not a folder beside it", file=file)
        yield folder.subfolder(path)


def _pooling_type(site: Site) -> int | None:
    """The mode of the pooling module; None if there is no such module."""
    module = next(modules_of(site.folder, "Pooling"), None)
    if module is None:
        return None
    pooling = read_json_object(module, "config.json")
    flagged = next((kind for flag, kind in _FLAGS.items() if pooling.get(flag)), None)
    kind = flagged or _MODES.get(str(pooling.get("pooling_mode")))
    if kind is None:
        raise UnsupportedError(
            "only mean, first-token and last-token pooling are known", file=module.path / "config.json"
        )
    return kind


def _classifier_pooling_type(site: Site) -> object:
    """The pooling in front of a classification head."""
    name = site.config.find("classifier_pooling")
    if name not in (None, "mean", "cls"):
        raise UnsupportedError(f"classifier_pooling {name!r:.40} is not known", file="config.json")
    return name and _MODES[name]


POOLING: tuple[MetadataLine, ...] = (
    u32("pooling_type", _pooling_type),
    u32("classifier.pooling_type", _classifier_pooling_type),
)
