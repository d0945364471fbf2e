"""Makes the hashes and names of gguf_forge/tokenizer/pre_tokenizers.json from a llama.cpp tree.

    python tools/refresh_pre_tokenizers.py LLAMA_CPP_TREE

The hashes are those of `get_vocab_base_pre` in conversion/base.py, and the names those that src/llama-vocab.cpp reads.
The section `splitting` is kept by hand: it has the splitting rules of well-known tokenizers, for a hint to the user.
The script stops if the converter hashes another text than the project does.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from reference_tree import ROOT, reference_tree

from gguf_forge.tokenizer.pre_tokenizers import PROBE

TABLE = ROOT / "gguf_forge/tokenizer/pre_tokenizers.json"


def function(file: Path, name: str) -> ast.FunctionDef:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)


def statements(block: ast.AST) -> Iterator[ast.stmt]:
    return (node for node in ast.walk(block) if isinstance(node, ast.stmt))


def assigned(block: Iterable[ast.stmt], variable: str) -> list[str]:
    """The texts that a variable gets."""
    return [
        statement.value.value
        for statement in block
        if isinstance(statement, ast.Assign)
        and ast.unparse(statement.targets[0]) == variable
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    ]


def hashes(reader: ast.FunctionDef) -> dict[str, str]:
    """Hash -> name. Each stands in a statement `if chkhsh == "...": res = "..."`."""
    found: dict[str, str] = {}
    for statement in reader.body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test).startswith("chkhsh == "):
            (digest,) = (node.value for node in ast.walk(statement.test) if isinstance(node, ast.Constant))
            (found[str(digest)],) = assigned(statement.body, "res")
    return dict(sorted(found.items(), key=lambda entry: (entry[1], entry[0])))


def written(hashes: dict[str, str], names: list[str], splitting: list[Any]) -> str:
    """JSON with a hash, a rule or a row of names a line."""
    listed = textwrap.fill(", ".join(f'"{name}"' for name in names), 106, break_on_hyphens=False)
    listed = textwrap.indent(listed, "  ")
    rows = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in splitting)
    pairs = ",\n".join(f'  "{digest}": "{name}"' for digest, name in hashes.items())
    return f'{{\n "hashes": {{\n{pairs}\n }},\n "names": [\n{listed}\n ],\n "splitting": [\n{rows}\n ]\n}}\n'


def main() -> None:
    tree = reference_tree(__doc__)
    reader = function(tree / "conversion/base.py", "get_vocab_base_pre")
    if assigned(reader.body, "chktxt") != [PROBE]:
        sys.exit("the converter hashes another text: change PROBE in gguf_forge/tokenizer/pre_tokenizers.py")
    vocabulary = (tree / "src/llama-vocab.cpp").read_text(encoding="utf-8")
    found = hashes(reader)
    names = {*re.findall(r'tokenizer_pre == "([^"]+)"', vocabulary), *assigned(statements(reader), "res")}
    splitting = json.loads(TABLE.read_text(encoding="utf-8"))["splitting"]
    TABLE.write_text(written(found, sorted(names), splitting), encoding="utf-8")
    print(f"{TABLE.relative_to(ROOT)}: {len(found)} hashes, {len(names)} names")


if __name__ == "__main__":
    main()
