"""Makes gguf_forge/architectures/proofs.json: which checkpoints with files of the reference prove a class.

    python tools/refresh_proofs.py CONFORMANCE

CONFORMANCE is a folder with cases in two levels of folders, as `tests/support/corpus.py` reads them. The descriptions
of tests/families count, too: of these, digests are known and no keys, so the kind of vocabulary is read off a plan.
The script does not convert: tests/test_corpus.py and tests/planning/test_families.py do.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gguf_forge import open_gguf, plan
from gguf_forge.architectures.registry import class_name
from gguf_forge.architectures.site import Part
from gguf_forge.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/support"))
from synthetic import FAMILIES, read_description, write_checkpoint  # noqa: E402

PARTS: dict[str, Part] = {"model": "text", "mmproj": "mmproj"}
VOCABULARY = "tokenizer.ggml.model"


def files(conformance: Path) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Case name, config.json and keys of every file of the reference."""
    for path in sorted(conformance.glob("*/*/expected/*.json")):
        manifest, config = json.loads(path.read_text()), path.parents[1] / "hf/config.json"
        if "kv" in manifest and config.exists():
            yield path.parents[1].name, config, {entry["key"]: entry.get("value") for entry in manifest["kv"]}


def families() -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """The same of every description whose files of the reference are pinned."""
    for pinned in sorted(FAMILIES.glob("*/expected.json")):
        family = pinned.parent
        yield family.name, family / "config.json", {VOCABULARY: vocabulary(family)}


def vocabulary(family: Path) -> str:
    """What the file of a description says of its vocabulary, by the header that would be written."""
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = write_checkpoint(family, Path(scratch) / "hf")
        (file,) = plan(checkpoint, pre_tokenizer=read_description(family).pre_tokenizer)
        header = Path(scratch) / "header.gguf"
        header.write_bytes(file.shards[0].layout.header)
        with header.open("ab") as sparse:
            sparse.truncate(file.size)
        with open_gguf(header) as gguf:
            return str(gguf.metadata[VOCABULARY])


def proofs(conformance: Path) -> dict[str, dict[str, dict[str, list[str]]]]:
    found: dict[str, dict[str, dict[str, set[str]]]] = defaultdict(dict)
    for case, path, keys in (*files(conformance), *families()):
        part = PARTS.get(keys.get("general.type", "model"))
        if part is None:
            continue
        try:
            name = class_name(json.loads(path.read_text()), part)
        except InputError:
            continue
        entry = found[name].setdefault(part, {"cases": set(), "vocabularies": set()})
        entry["cases"].add(case)
        if part == "text" and VOCABULARY in keys:
            entry["vocabularies"].add(keys[VOCABULARY])
    return {
        name: {part: {key: sorted(values) for key, values in entry.items()} for part, entry in sorted(parts.items())}
        for name, parts in sorted(found.items())
    }


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit(__doc__)
    table = json.dumps(proofs(Path(sys.argv[1])), indent=1)
    (ROOT / "gguf_forge/architectures/proofs.json").write_text(table + "\n")
