"""The `general.*` metadata: who made a model, what it is called, how large it is."""

from gguf_forge.general.metadata import FOLDER_NAMES, general_metadata
from gguf_forge.general.naming import ModelIdentity, fill_template, output_name
from gguf_forge.general.size import ParameterCount, parameter_count

__all__ = [
    "FOLDER_NAMES",
    "ModelIdentity",
    "ParameterCount",
    "fill_template",
    "general_metadata",
    "output_name",
    "parameter_count",
]
