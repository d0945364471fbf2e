"""Types that the reference's rules give to models of real size, and to those that the rules treat apart.

`data/models` holds shapes and, for each file type, the tensors that do not get its default type.
"""

from __future__ import annotations

import numpy as np
import pytest
from recipe_models import MODELS, Model, base_tensors, expand, header

from gguf_forge.recipe import FileType, ImportanceMatrix, Options, assign

MIXES = [
    pytest.param(model, name, with_imatrix, id=f"{stem}-{name}{'-imatrix' * with_imatrix}")
    for stem, model in sorted(MODELS.items())
    for with_imatrix, kind in ((False, "types"), (True, "types_with_imatrix"))
    for name in model.get(kind, ())
]


@pytest.mark.parametrize(("model", "name", "with_imatrix"), MIXES)
def test_types_equal_the_reference(model: Model, name: str, with_imatrix: bool) -> None:
    matrix = ImportanceMatrix("m.gguf", {"any": np.ones(1, np.float32)}) if with_imatrix else None
    options = Options(FileType.named(name), imatrix=matrix)
    assignments = assign(base_tensors(model), header(model), options)
    others = {a.name: a.type.name for a in assignments if a.type != options.file_type.default_type}
    expected = model["types_with_imatrix" if with_imatrix else "types"][name]
    assert others == expand(expected)
