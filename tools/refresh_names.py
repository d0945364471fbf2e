"""Makes gguf_forge/architectures/tensor_names.json from gguf-py's tables in a llama.cpp tree.

    python tools/refresh_names.py LLAMA_CPP_TREE

The tables are `TensorNameMap` of gguf-py/gguf/tensor_mapping.py, and `MODEL_TENSORS`, `TENSOR_NAMES` and
`MODEL_ARCH_NAMES` of gguf-py/gguf/constants.py. The file that was written is then read back as the converter reads it,
and compared with gguf-py's own map of every architecture.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from reference_tree import ROOT, reference_tree

from gguf_forge.architectures.templates import fill
from gguf_forge.architectures.tensor_names import known_names

TABLE = ROOT / "gguf_forge/architectures/tensor_names.json"

# Enough layers to tell a name with a layer number from one without.
BLOCKS = 3


def with_holes(name: str) -> str:
    return name.replace("{bid}", "{i}").replace("{xid}", "{e}")


def facts(constants: Any, name_map: Any) -> dict[str, Mapping[str, Any]]:
    """The four sections of the table. Tensors keep gguf-py's order, because a later tensor's name replaces an equal
    one of an earlier tensor."""
    sources: dict[str, list[str]] = {}
    for tensor, names in (*name_map.mappings_cfg.items(), *name_map.block_mappings_cfg.items()):
        sources.setdefault(tensor.name, []).extend(map(with_holes, names))
    replaced = {
        constants.MODEL_ARCH_NAMES[arch]: {tensor.name: list(map(with_holes, names)) for tensor, names in table.items()}
        for arch, table in name_map.arch_block_mappings_cfg.items()
    }
    return {
        "tensors": {tensor.name: with_holes(name) for tensor, name in constants.TENSOR_NAMES.items()},
        "sources": sources,
        "architectures": {
            name: in_order(constants.MODEL_TENSORS[arch], constants.TENSOR_NAMES)
            for arch, name in constants.MODEL_ARCH_NAMES.items()
        },
        "replaced": replaced,
    }


def in_order(tensors: Iterable[Any], names: Mapping[Any, str]) -> list[str]:
    """The tensors that have a name, each once."""
    return list(dict.fromkeys(tensor.name for tensor in tensors if tensor in names))


def written(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """JSON with one entry a line, so that a change of the reference reads well as a difference."""
    blocks = (
        f" {json.dumps(title)}: {{\n"
        + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items())
        + "\n }"
        for title, entries in sections.items()
    )
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def differences(constants: Any, name_map: Any) -> list[str]:
    """What the converter's reader gives otherwise than gguf-py, for all architectures."""
    tables = dict(name_map.block_mappings_cfg)
    found = []
    for arch, architecture in constants.MODEL_ARCH_NAMES.items():
        # gguf-py changes the class's own table when it makes a map, so every map starts from a fresh copy.
        name_map.block_mappings_cfg = dict(tables)
        theirs = {name: target for name, (_, target) in name_map(arch, BLOCKS).mapping.items()}
        ours = {
            fill(source, layer): fill(target, layer)
            for layer in range(BLOCKS)
            for source, target in known_names(architecture).items()
        }
        found += [
            f"{architecture}: {name} is {ours.get(name)}, gguf-py says {theirs.get(name)}"
            for name in sorted(theirs.keys() | ours.keys())
            if theirs.get(name) != ours.get(name)
        ]
    return found


def main() -> None:
    tree = reference_tree(__doc__)
    sys.path.insert(0, str(tree / "gguf-py"))
    from gguf import constants, tensor_mapping

    sections = facts(constants, tensor_mapping.TensorNameMap)
    TABLE.write_text(written(sections), encoding="utf-8")
    wrong = differences(constants, tensor_mapping.TensorNameMap)
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{TABLE.relative_to(ROOT)}: {len(sections['architectures'])} architectures, equal to gguf-py's maps")


if __name__ == "__main__":
    main()
