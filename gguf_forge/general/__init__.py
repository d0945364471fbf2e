"""The `general.*` metadata: who made a model, what it is called, how large it is."""

from gguf_forge.general.metadata import FOLDER_NAMES, general_metadata
from gguf_forge.general.naming import ModelIdentity, fill_template, model_id_of, output_name
from gguf_forge.general.size import ParameterCount, parameter_count

__all__ = [
    "FOLDER_NAMES",
    "ModelIdentity",
    "ParameterCount",
    "fill_template",
    "general_metadata",
    "model_id_of",
    "output_name",
    "parameter_count",
]
