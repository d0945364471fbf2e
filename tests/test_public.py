"""What `import gguf_forge` offers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from checkpoints import tiny_llama

import gguf_forge
import gguf_forge.planning.from_checkpoint


def test_every_public_name_is_there_and_documented() -> None:
    for name in gguf_forge.__all__:
        assert getattr(gguf_forge, name).__doc__
    assert set(gguf_forge.__all__) == set(gguf_forge._HOMES) <= set(dir(gguf_forge))


def test_type_checkers_see_every_public_name() -> None:
    tree = ast.parse(Path(gguf_forge.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: (node.module, alias.name) for node in imports for alias in node.names if alias.asname}
    assert seen == gguf_forge._HOMES


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = gguf_forge.nonsense  # type: ignore[attr-defined]


def test_plan_and_convert(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    [planned] = gguf_forge.plan(folder, tmp_path, types="Q5_K_M", options=gguf_forge.Options(pure=True))
    [result] = gguf_forge.convert(folder, tmp_path, types="Q5_K_M", options=gguf_forge.Options(pure=True))
    assert result.path == planned.path == tmp_path / "Tiny-1.2M-Q5_K_M.gguf"
    assert result.path.stat().st_size == planned.size
    assert set(planned.types) == {"Q5_K", "F32"}


def test_types_named_twice_are_one_file(tmp_path: Path) -> None:
    assert len(gguf_forge.plan(tiny_llama(tmp_path), types=["Q4_K", "q4_k_m", "15"])) == 1


def test_version() -> None:
    assert gguf_forge.__version__.count(".") == 2
