"""EmbeddingGemma: the body of Gemma 3 with bidirectional attention, and the dense modules after it."""

from __future__ import annotations

from collections.abc import Callable

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Drop
from gguf_forge.architectures.families.gemma import gemma3
from gguf_forge.architectures.metadata import Lines, u32
from gguf_forge.architectures.pooling import POOLING, modules_of
from gguf_forge.architectures.site import Site
from gguf_forge.gguf_file import values
from gguf_forge.storage.json_file import read_json_object

# The folder of a dense module -> llama.cpp's name for its tensor.
_DENSE = {"2_Dense": "dense_2", "3_Dense": "dense_3"}
_WEIGHTS = "model.safetensors"


def _sliding_window(site: Site) -> int:
    """The window as in config.json. The config class halves it for bidirectional attention, as llama.cpp does later."""
    return Config(read_json_object(site.folder, "config.json")).integer("sliding_window")


def _wanted_modules(site: Site) -> dict[str, str]:
    """The dense modules that the conversion includes and that the folder has."""
    if "dense_modules" not in site.choices:
        return {}
    named = {module.name for module in modules_of(site.folder, "Dense") if module.has(_WEIGHTS)}
    return {folder: name for folder, name in _DENSE.items() if folder in named}


def _is_unwanted(name: str) -> Callable[[Site], bool]:
    return lambda site: name not in _wanted_modules(site).values()


def _dense_features(site: Site) -> Lines:
    for folder, name in _wanted_modules(site).items():
        sizes = Config(read_json_object(site.folder.subfolder(folder), "config.json"))
        yield f"{name}_feat_in", values.u32(sizes.integer("in_features"))
        yield f"{name}_feat_out", values.u32(sizes.integer("out_features"))


embedding_gemma = gemma3.derive(
    "gemma-embedding",
    hf=("Gemma3TextModel",),
    metadata=(
        *gemma3.metadata,
        u32("attention.sliding_window", _sliding_window),
        _dense_features,
        *POOLING,
    ),
    # The files are in reverse, because the tensors of the file that is opened last come first.
    modules={f"{folder}/{_WEIGHTS}": f"{name}." for folder, name in reversed(_DENSE.items())},
    names={f"{name}.linear.weight": f"{name}.weight" for name in _DENSE.values()},
    drops=(
        *gemma3.drops,
        *(Drop(f"{name}.linear.bias") for name in _DENSE.values()),
        *(Drop(f"{name}.*", when=_is_unwanted(name)) for name in _DENSE.values()),
    ),
    choices=frozenset(("dense_modules",)),
)
