"""Makes gguf_forge/gguf_file/key_types.json: the type that each standard key of a GGUF file has.

    python tools/refresh_key_types.py LLAMA_CPP_TREE

The types are those of the calls in gguf-py/gguf/gguf_writer.py (`self.add_uint32(Keys.LLM.CONTEXT_LENGTH...)`), and the
names of the keys are those of gguf-py/gguf/constants.py. llama.cpp reads a key only if it has this very type.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reference_tree import ROOT, reference_tree

TABLE = ROOT / "gguf_forge/gguf_file/key_types.json"
TYPES = {
    **{f"add_{name}": name.upper() for name in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32")},
    **{f"add_{name}": name.upper() for name in ("int64", "float32", "float64", "bool", "string", "array")},
    "add_token_id": "UINT32",
}


def calls(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Of a method of the writer: the path of each key in `Keys`, and the type that it is written with."""
    local = {
        target.id: statement.value
        for statement in ast.walk(function)
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in TYPES
            and node.args
        ):
            first = node.args[0]
            key = local.get(first.id, first) if isinstance(first, ast.Name) else first
            text = ast.unparse(key)
            if text.startswith("Keys."):
                yield text.removeprefix("Keys.").partition(".format(")[0], TYPES[node.func.attr]


def key_types(tree: Path) -> dict[str, list[str]]:
    """Each key, with `{arch}` for the architecture and `{id}` for numbers, and the types that it may have."""
    sys.path.insert(0, str(tree / "gguf-py"))
    from gguf.constants import Keys  # type: ignore[import-not-found]

    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse((tree / "gguf-py/gguf/gguf_writer.py").read_text())):
        for path, kind in calls(node) if isinstance(node, ast.FunctionDef) else ():
            name: Any = Keys
            for part in path.split("."):
                name = getattr(name, part, None)
            if isinstance(name, str):
                found.setdefault(name, set()).add(kind)
    return {name: sorted(kinds) for name, kinds in sorted(found.items())}


def main() -> None:
    table = key_types(reference_tree(__doc__))
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(kinds)}" for name, kinds in table.items())
    TABLE.write_text(f"{{\n{lines}\n}}\n")
    print(f"{TABLE.relative_to(ROOT)}: {len(table)} keys")


if __name__ == "__main__":
    main()
