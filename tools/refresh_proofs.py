"""Makes gguf_forge/architectures/proofs.json: which checkpoints with files of the reference prove a class.

    python tools/refresh_proofs.py CONFORMANCE

CONFORMANCE is a folder with cases in two levels of folders, as `tests/support/corpus.py` reads them. The descriptions
of tests/families, tests/projectors and tests/drafts count, too: of these, digests are known and no keys, so the kind of
vocabulary is read off a plan. The script does not convert: tests/test_corpus.py and the tests of tests/planning do.
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
from gguf_forge.checkpoint.mistral_form import PARAMS
from gguf_forge.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/support"))
from plamo import CONFIG as PLAMO  # noqa: E402
from projectors import PROJECTORS, descriptions, read  # noqa: E402
from qwen3_tts import CONFIG as QWEN3_TTS  # noqa: E402
from synthetic import FAMILIES, read_description, write_checkpoint  # noqa: E402

# The one model whose checkpoints have no config.json.
POCKET_TTS: dict[str, Any] = {"architectures": ["PocketTTSModel"]}
PARTS: dict[str, Part] = {"model": "text", "mmproj": "mmproj"}
TYPE, VOCABULARY = "general.type", "tokenizer.ggml.model"


# The name of a checkpoint, its config, and keys of a file that the reference made of it.
Proof = tuple[str, dict[str, Any], dict[str, Any]]


def files(conformance: Path) -> Iterator[Proof]:
    """Every file of the cases."""
    for path in sorted(conformance.glob("*/*/expected/*.json")):
        manifest, config = json.loads(path.read_text()), config_of(path.parents[1] / "hf")
        if "kv" in manifest and config is not None:
            yield path.parents[1].name, config, {entry["key"]: entry.get("value") for entry in manifest["kv"]}


def config_of(folder: Path) -> dict[str, Any] | None:
    """Its config.json; for a checkpoint in Mistral's form, a config that names its class."""
    if (folder / "config.json").exists():
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        return config
    return {"architectures": [PARAMS]} if (folder / PARAMS).exists() else None


def families() -> Iterator[Proof]:
    """Every description whose files of the reference are pinned."""
    for pinned in sorted(FAMILIES.glob("*/expected.json")):
        family = pinned.parent
        yield family.name, config_of(family) or POCKET_TTS, {VOCABULARY: vocabulary(family)}


def projectors_and_drafts() -> Iterator[Proof]:
    """Every description of a projector or draft whose files of the reference are pinned."""
    for path in descriptions():
        description = read(path)
        is_v4 = description.get("dspark", False)
        own = description["files"].get("config.json", POCKET_TTS)
        config = {"architectures": ["DeepseekV4DSparkModel"]} if is_v4 else own
        if "expected" in description:
            yield path.stem, config, {TYPE: "mmproj" if path.parent == PROJECTORS else "model"}


def of_code() -> Iterator[Proof]:
    """The checkpoints of Qwen3-TTS and PLaMo, which have weights of their own."""
    yield "qwen3-tts-talker", QWEN3_TTS, {VOCABULARY: "gpt2"}
    yield "plamo", PLAMO, {VOCABULARY: "llama"}


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
    for case, config, keys in (*files(conformance), *families(), *projectors_and_drafts(), *of_code()):
        part = PARTS.get(keys.get(TYPE, "model"))
        if part is None:
            continue
        try:
            name = class_name(config, part)
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
