"""Decides the tensors and keys of a quantized file from those of its base file, without reading a weight."""

from gguf_forge.recipe.assign import Assignment, assign
from gguf_forge.recipe.checks import check
from gguf_forge.recipe.file_types import FILE_TYPES, FileType, names_of_types
from gguf_forge.recipe.float_types import stays_f32
from gguf_forge.recipe.header import quantized_metadata
from gguf_forge.recipe.importance.imatrix_file import read_imatrix
from gguf_forge.recipe.importance.matrix import ImportanceMatrix
from gguf_forge.recipe.options import KeyOverride, Options, TypeOverride
from gguf_forge.recipe.overrides import (
    parse_key_override,
    parse_prune_layers,
    parse_target_type,
    parse_tensor_type,
    parse_tensor_type_file,
)
from gguf_forge.recipe.recipe import Recipe, make_recipe
from gguf_forge.recipe.weighing import importance_of

__all__ = [
    "FILE_TYPES",
    "Assignment",
    "FileType",
    "ImportanceMatrix",
    "KeyOverride",
    "Options",
    "Recipe",
    "TypeOverride",
    "assign",
    "check",
    "importance_of",
    "make_recipe",
    "names_of_types",
    "parse_key_override",
    "parse_prune_layers",
    "parse_target_type",
    "parse_tensor_type",
    "parse_tensor_type_file",
    "quantized_metadata",
    "read_imatrix",
    "stays_f32",
]
