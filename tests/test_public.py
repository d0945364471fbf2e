"""What `import gguf_forge` offers."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from inspect import isfunction
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest
from checkpoints import tiny_llama

import gguf_forge
import gguf_forge.planning.from_checkpoint
from gguf_forge.errors import UnsupportedError
from gguf_forge.kernels import binding


def test_every_public_name_is_there_and_documented() -> None:
    for name in gguf_forge.__all__:
        assert getattr(gguf_forge, name).__doc__
    assert set(gguf_forge.__all__) == set(gguf_forge._HOMES) <= set(dir(gguf_forge))


def test_type_checkers_see_every_public_name() -> None:
    tree = ast.parse(Path(gguf_forge.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: (node.module, alias.name) for node in imports for alias in node.names if alias.asname}
    assert seen == gguf_forge._HOMES


def types_in(hint: object) -> Iterator[type]:
    """The classes of the package that an annotation names, however deep."""
    inner = hint if isinstance(hint, list) else get_args(hint)
    if isinstance(hint, type) and hint.__module__.startswith("gguf_forge"):
        yield hint
    for each in inner:
        yield from types_in(each)


def test_every_type_in_a_public_signature_is_public() -> None:
    """Also those that the fields of parameters need, as users make these; what is `named` is looked up, not made."""
    public = [getattr(gguf_forge, name) for name in gguf_forge.__all__]
    used: dict[type, str] = {}
    made: dict[type, str] = {}
    for function in filter(isfunction, public):
        for parameter, hint in get_type_hints(function).items():
            places = used if parameter == "return" else made
            places.update(dict.fromkeys(types_in(hint), f"{function.__name__}: {parameter}"))
    queue = list(made)
    while queue:
        owner = queue.pop()
        is_made = is_dataclass(owner) and not hasattr(owner, "named")
        given = [field.name for field in fields(owner) if field.init and field.name[0] != "_"] if is_made else []
        found = {each: f"{owner.__name__}.{name}" for name in given for each in types_in(get_type_hints(owner)[name])}
        queue += found.keys() - made.keys()
        made = found | made
    used |= made
    assert {found.__name__: place for found, place in used.items() if found not in public} == {}
    assert {"TensorType", "TypeOverride", "Value", "JobPlan"} <= {found.__name__ for found in used}


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


@pytest.mark.parametrize("function", ["convert", "plan", "quantize_gguf", "verify_gguf"])
def test_a_misspelt_keyword_is_told_as_python_tells_it(function: str) -> None:
    types = {"types": "Q8_0"} if function != "verify_gguf" else {}
    message = rf"^{function}\(\) got an unexpected keyword argument 'tensor_typ'. Did you mean 'tensor_type'\?$"
    with pytest.raises(TypeError, match=message):
        getattr(gguf_forge, function)("model", **types, tensor_typ=["ffn_down=q6_k"])
    with pytest.raises(TypeError, match=rf"^{function}\(\) got an unexpected keyword argument 'zzz'$"):
        getattr(gguf_forge, function)("model", **types, zzz=1)


def test_a_misspelt_keyword_of_the_function_itself() -> None:
    with pytest.raises(TypeError, match="Did you mean 'overwrite'"):
        gguf_forge.convert("model", overwite=True)


def test_types_named_twice_are_one_file(tmp_path: Path) -> None:
    assert len(gguf_forge.plan(tiny_llama(tmp_path), types=["Q4_K", "q4_k_m", "15"])) == 1


def test_version() -> None:
    assert gguf_forge.__version__.count(".") == 2


def test_kernels_that_are_older_than_the_source_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    used = set(re.findall(r"\blib\.(\w+)", Path(binding.__file__).read_text(encoding="utf-8")))
    assert used == set(binding._SYMBOLS)
    monkeypatch.setitem(sys.modules, "gguf_forge._kernels", SimpleNamespace(ffi=None, lib=SimpleNamespace()))
    spec = importlib.util.spec_from_file_location("stale_binding", binding.__file__)
    assert spec is not None and spec.loader is not None
    with pytest.raises(UnsupportedError, match="older than the source of gguf-forge; compile them again: pip install"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_a_checkout_without_compiled_kernels_says_what_to_do() -> None:
    program = "import sys; sys.modules['gguf_forge._kernels'] = None; from gguf_forge.cli import main; sys.exit(main())"
    run = subprocess.run([sys.executable, "-c", program, "info"], capture_output=True, text=True, check=False)
    assert run.returncode == 3
    assert "the kernels are not compiled" in run.stderr and "pip install -e ." in run.stderr
    assert "Traceback" not in run.stderr
