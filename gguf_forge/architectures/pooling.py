"""How an embedding model makes one vector of many, as the files of sentence-transformers beside it say."""

from __future__ import annotations

from pathlib import Path

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.site import Site
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.storage.json_file import read_json, read_json_object

# Source: gguf-py's PoolingType.
_MEAN, _CLS, _LAST, RANK = 1, 2, 3, 4
_FLAGS = {
    "pooling_mode_mean_tokens": _MEAN,
    "pooling_mode_cls_token": _CLS,
    "pooling_mode_lasttoken": _LAST,
}
_MODES = {"mean": _MEAN, "cls": _CLS, "lasttoken": _LAST}


def with_pooling(site: Site) -> Config:
    """Adds `pooling_type`, for folders whose modules.json names a pooling module.

    Raises:
        InputError: modules.json or the module's config is broken.
        UnsupportedError: the pooling is of another kind than mean, first or last token.
    """
    config, folder = site.config, site.folder
    if not (folder / "modules.json").is_file():
        return config
    modules = read_json(folder / "modules.json")
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise InputError("is not a list of modules", file=folder / "modules.json")
    paths = [module.get("path") for module in modules if str(module.get("type")).endswith("Pooling")]
    if not paths:
        return config
    if not isinstance(paths[0], str) or not paths[0] or Path(paths[0]).name != paths[0]:
        raise InputError(f"the path {paths[0]!r:.40} is no folder beside it", file=folder / "modules.json")
    file = folder / paths[0] / "config.json"
    pooling = read_json_object(file)
    flagged = next((kind for flag, kind in _FLAGS.items() if pooling.get(flag)), None)
    kind = flagged or _MODES.get(str(pooling.get("pooling_mode")))
    if kind is None:
        raise UnsupportedError("only mean, first-token and last-token pooling are known", file=file)
    return config.updated(pooling_type=kind)
