"""Makes gguf_forge/architectures/checkpoint_names.json: what the tensors of each class are called in checkpoints.

    python tools/refresh_checkpoint_names.py [CONFORMANCE]

CONFORMANCE is a folder with cases in two levels of folders, as `tests/support/corpus.py` reads them. The descriptions
of tests/families, tests/projectors and tests/drafts count, too. Without the folder, only classes that the table does
not have yet are added to it. A name becomes a template, and stands with the others whose tensors have as many axes, of
length 1 at the same places: "n1n" is three axes, the second of length 1.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf_forge import InputError, Request
from gguf_forge.architectures.declaration import Architecture
from gguf_forge.architectures.mapping import NameLookup, renamed
from gguf_forge.architectures.parts import belongs_to
from gguf_forge.architectures.registry import class_name
from gguf_forge.architectures.site import Part
from gguf_forge.architectures.stacked_experts import with_stacked_experts
from gguf_forge.architectures.templates import Match, find_with_suffix
from gguf_forge.planning.from_checkpoint import CheckpointModel
from gguf_forge.planning.model_plan import survey
from gguf_forge.storage.local.folder import LocalFolder

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "gguf_forge/architectures/checkpoint_names.json"
sys.path.insert(0, str(ROOT / "tests/support"))


@dataclass
class Form:
    """The names in some checkpoints of a class.

    Attributes:
        of: The class that config.json names first; empty if it names none.
        names: Pattern -> templates.
        targets: What the names mean -> the templates.
    """

    of: str
    names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    targets: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, template: str, pattern: str, target: str) -> None:
        if template not in self.names[pattern]:
            self.names[pattern].append(template)
        self.targets[target].add(template)

    def goes_with(self, other: Form) -> bool:
        """Whether both call the same things by the same names."""
        shared = self.targets.keys() & other.targets.keys()
        return self.of == other.of and all(self.targets[one] & other.targets[one] for one in shared)


# Part -> class of the declaration -> forms
Forms = dict[str, dict[str, list[Form]]]


def requests(conformance: Path | None, scratch: Path) -> Iterator[Request]:
    """A request for each part of each checkpoint; the checkpoint is there until the next one is asked for."""
    from projectors import descriptions, options, write
    from synthetic import FAMILIES, write_checkpoint

    for path in descriptions():
        source = write(path, scratch / path.parent.name / path.stem)
        yield Request(source=str(source), **options(path, scratch / path.stem))
    for family in sorted(FAMILIES.iterdir()):
        yield Request(source=str(write_checkpoint(family, scratch / "families" / family.name)))
    if conformance is None:
        return
    os.environ["GGUF_FORGE_CORPUS"] = str(conformance)
    from corpus import Cases, manifests, read_manifest

    (scratch / "cases").mkdir()
    cases, seen = Cases(scratch / "cases"), set()
    for path in manifests():
        words = read_manifest(path).get("forge_args") or []
        flags = {name: True for name in ("mmproj", "mtp", "mistral_format") if f"--{name.replace('_', '-')}" in words}
        # Names in quantized checkpoints are those of the plain ones, or of MLX.
        if path.parts[-4] == "quantized" or (path.parents[1], *flags) in seen:
            continue
        seen.add((path.parents[1], *flags))
        source = cases.folder_of(path.parents[1]) / "hf"
        if (source / "adapter_config.json").exists():
            continue
        beside = [
            str(cases.folder_of(each))
            for word in words
            if word.startswith("../")
            for each in conformance.glob(f"*/{word.split('/')[1]}")
        ]
        target = {"target_model_dir": f"{beside[0]}/hf"} if "--target-model-dir" in words else {}
        yield Request(source=str(source), **flags, **target)


def read(request: Request, found: Forms) -> None:
    """Adds the names of one checkpoint."""
    model = CheckpointModel.open(LocalFolder(Path(request.source)), mistral_format=request.mistral_format)
    target = LocalFolder(Path(request.target_model_dir)) if request.target_model_dir is not None else None
    config = model._checkpoint.config
    architecture, site = survey(model._checkpoint, request.part, choices=request.choices, target=target)
    name = name_of(architecture, config, request.part)
    form, lookup = Form((config.get("architectures") or [""])[0]), NameLookup(with_stacked_experts(architecture))
    for stored, expr in site.tensors.items():
        after = renamed(architecture, stored, site)
        match = lookup.rules_for(after, site) or find_with_suffix(lookup.targets, after)
        if belongs_to(architecture, stored) and match is not None and not lookup.is_dropped(after, site):
            template = template_of(stored, match)
            form.add(template, "".join("1" if size == 1 else "n" for size in expr.shape), str(match.value))
    model.close()
    known = found[request.part][name]
    same = next((other for other in known if other.goes_with(form)), None)
    if same is None:
        known.append(form)
        return
    for pattern, templates in form.names.items():
        for template in templates:
            for target_name in (each for each, names in form.targets.items() if template in names):
                same.add(template, pattern, target_name)


def name_of(architecture: Architecture, config: Mapping[str, Any], part: Part) -> str:
    """The class; a draft model beside the model has one that its config does not name."""
    name = class_name(config, part)
    return name if name in architecture.hf else architecture.hf[0]


def template_of(name: str, match: Match[Any]) -> str:
    """A checkpoint's name with holes for the numbers that the declaration counts."""
    holes = [hole for hole, number in (("{i}", match.layer), ("{e}", match.expert)) if number is not None]
    parts = name.split(".")
    numbers = [at for at, part in enumerate(parts) if part.isdecimal()]
    for at, hole in zip(numbers, holes, strict=False):
        parts[at] = hole
    if len(numbers) < len(holes):  # the last number is the end of a word, as in shard_0
        parts = [re.sub(r"_[0-9]+$", f"_{holes[-1]}", part) for part in parts]
    return ".".join(parts)


def main(conformance: Path | None) -> None:
    found: Forms = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as scratch:
        for request in requests(conformance, Path(scratch)):
            with suppress(InputError):  # an adapter, or a folder that is to be refused
                read(request, found)
    forms = {
        part: {name: [{"of": form.of, "names": form.names} for form in each] for name, each in classes.items()}
        for part, classes in found.items()
    }
    if conformance is None:
        for part, classes in json.loads(TABLE.read_text()).items():
            forms[part] = {**forms.get(part, {}), **classes}
    TABLE.write_text(json.dumps({part: dict(sorted(forms[part].items())) for part in sorted(forms)}, indent=0) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 2 or not all(Path(each).is_dir() for each in sys.argv[1:]):
        sys.exit(__doc__)
    main(Path(sys.argv[1]) if len(sys.argv) == 2 else None)
