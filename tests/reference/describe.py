"""Makes a description for tests/families from a checkpoint: its small files, and the types and shapes of its tensors.

    python describe.py CHECKPOINT DESCRIPTION [PRE_TOKENIZER]

`make_expected.py` then adds the digests of the reference's files, of the few types in case.json. Weights are not taken
over: `support/synthetic.py` makes them from the tensors' names.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

TYPES = ["auto", "F16", "Q8_0", "Q4_K_M", "IQ4_XS", "IQ2_XS --imatrix", "Q3_K_M --imatrix"]
_WEIGHTS = (".safetensors", ".recipe", ".bin", ".pt")


def describe(checkpoint: Path, description: Path, pre_tokenizer: str | None) -> None:
    description.mkdir(parents=True)
    shards = {}
    for file in sorted(checkpoint.rglob("*")):
        if file.suffix == ".safetensors":
            shards[file.name] = tensors_of(file)
        elif file.is_file() and file.suffix not in _WEIGHTS:
            copy = description / file.relative_to(checkpoint)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)
    (description / "checkpoint.json").write_text(as_json(shards))
    (description / "case.json").write_text(json.dumps({"pre_tokenizer": pre_tokenizer, "types": TYPES}) + "\n")


def tensors_of(shard: Path) -> dict[str, tuple[str, list[int]]]:
    """Name -> (type, shape), in the order of the file."""
    with shard.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    return {name: (facts["dtype"], facts["shape"]) for name, facts in header.items()}


def as_json(shards: dict[str, dict[str, tuple[str, list[int]]]]) -> str:
    """One tensor a line."""
    each = []
    for shard, tensors in shards.items():
        lines = ",\n".join(f'  "{name}": {json.dumps(facts)}' for name, facts in tensors.items())
        each.append(f' "{shard}": {{\n{lines}\n }}')
    return "{\n" + ",\n".join(each) + "\n}\n"


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    describe(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) == 4 else None)
