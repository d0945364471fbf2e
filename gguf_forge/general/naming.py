"""Reads and writes model names after GGUF's naming convention.

Source: metadata.py and utility.py of gguf-py; ggml's docs/gguf.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gguf_forge.errors import UsageError
from gguf_forge.foreign_text import file_name
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.paths import resolved

_Kind = Literal["version", "type", "size_label", "finetune"]

_VERSION = re.compile(r"(v|iter)?\d+(\.\d+)*", re.IGNORECASE)
_TYPE = re.compile(r"i?q\d(_\w)*|b?fp?(16|32)", re.IGNORECASE)
_SIZE = re.compile(r"((a|\d+x)?\d+([._]\d+)?[kmbt]\d?|small|mini|medium|large|x?xl)", re.IGNORECASE)
_FINETUNE = re.compile(r"chat|instruct|vision|lora", re.IGNORECASE)
_KEEPS_CASE = re.compile(r"v\d+(\.\d+)*|\d.*")
_ESCAPED = re.compile(r"\{\{|\}\}")
_IN_BRACES = re.compile(r"\{[^{}]*\}")
_TEMPLATE = re.compile(r"\{\{|\}\}|\{(0|ftype|outtype|FTYPE|OUTTYPE)?\}")
_UNNAMED = "ggml-model"
_MAX_FILE_NAME = 255


def model_id_of(folder: Folder) -> str:
    """The id of the repository, for a folder in the hub's cache (`models--ORG--NAME/snapshots/HASH`), else its name.

    Example:
        >>> from pathlib import Path
        >>> from gguf_forge.storage.local.folder import LocalFolder
        >>> model_id_of(LocalFolder(Path("hub/models--acme--Tiny-1.5B/snapshots/c1899de")))
        'acme/Tiny-1.5B'
    """
    path = resolved(folder.path) if folder.path.name in ("", "..") else folder.path
    snapshots = resolved(path.parent)
    kind, *parts = snapshots.parent.name.split("--")
    is_cached = snapshots.name == "snapshots" and kind == "models" and parts and all(parts)
    return "/".join(parts) if is_cached else folder.name


@dataclass(frozen=True)
class NameParts:
    """The parts of a model id such as "acme/Tiny-1.5B-Chat-v2"; None where the id does not tell."""

    name: str
    organization: str | None = None
    basename: str | None = None
    finetune: str | None = None
    version: str | None = None
    size_label: str | None = None


@dataclass(frozen=True)
class ModelIdentity:
    """What a model is called, as far as it names the output file."""

    name: str
    basename: str | None = None
    finetune: str | None = None
    version: str | None = None
    size_label: str | None = None


def parse_model_id(model_id: str, total: int) -> NameParts:
    """Take a model id or folder name apart.

    A size in the name that is far from the true one (a context length, or the size of another model)
    goes to the finetune. A name whose only known part is its start has no basename.

    Args:
        total: number of parameters, to tell sizes from context lengths; 0 when unknown, negative for LoRA.

    Example:
        >>> parse_model_id("acme/Tiny-1.5B-Chat-v2", 1_500_000_000)
        NameParts(name='Tiny-1.5B-Chat-v2', organization='acme', basename='Tiny', finetune='Chat', \
version='v2', size_label='1.5B')
    """
    if " " in model_id:
        return NameParts(model_id)
    before, slash, after = model_id.partition("/")
    organization = before if slash and not before.startswith(".") else None
    name = after if slash else before

    parts = [_classify(part, i == 0, total) for i, part in enumerate(filter(None, name.split("-")))]
    if any(kind == "size_label" and any(map(str.isdecimal, part)) for part, kind in parts):
        # "mini" does not count as a size if the name also has a size like "3B"
        parts = [(p, None if kind == "size_label" and p.isalpha() else kind) for p, kind in parts]
    n_base = next((i for i, part in enumerate(parts) if not _may_start(*part)), len(parts))
    if n_base == len(parts):
        while n_base and parts[n_base - 1][1] == "version":
            n_base -= 1
    base, rest = parts[:n_base], parts[n_base:]

    finetune = _join(part for part, kind in rest if kind in ("finetune", None))
    version = _join(part for part, kind in rest if kind == "version")
    size = _join(dict.fromkeys(part for part, kind in rest if kind == "size_label"))
    basename = _join(part for part, _ in base) if finetune or version or size else None
    return NameParts(name, organization, basename, finetune, version, size)


def _classify(part: str, first: bool, total: int) -> tuple[str, _Kind | None]:
    if _VERSION.fullmatch(part):
        return part, "version"
    if _TYPE.fullmatch(part):
        return part.upper(), "type"
    if first:
        return part, None
    if _SIZE.fullmatch(part):
        return _classify_size(part, total)
    if _FINETUNE.fullmatch(part):
        return part, "type" if total < 0 and part.lower() == "lora" else "finetune"
    return part, None


def _classify_size(part: str, total: int) -> tuple[str, _Kind]:
    part = part.replace("_", ".")
    if part[-1].isdecimal():  # "7b1", as in the names of BLOOM models
        part = f"{part[:-2]}.{part[-1]}{part[-2]}"
    if part[-2].isdecimal() and part[-1] in "kmbt":
        part = part[:-1] + part[-1].upper()
    try:
        size = float(part[:-1]) * 1000.0 ** " KMBT".find(part[-1])
    except ValueError:  # "8x7B", "A3B", "mini"
        return part, "size_label"
    # An adapter may lack layers, so for an adapter only a size that is too small is wrong.
    is_far = abs(size - total) > 7 * total // 8 if total > 0 else size < -total // 8
    if total and is_far:
        return part[:-1] + part[-1].lower(), "finetune"
    return part, "size_label"


def _may_start(part: str, kind: _Kind | None) -> bool:
    return kind == "version" or (kind is None and part[0].isalpha())


def _join(parts: Iterable[str]) -> str | None:
    return "-".join(parts) or None


def title(name: str) -> str:
    """The name with spaces instead of hyphens, and words capitalized, except versions and words that have capitals.

    Example:
        >>> title("tiny-llama-v2-3b-MoE")
        'Tiny Llama v2 3b MoE'
    """
    words = name.strip().replace("-", " ").split()
    return " ".join(w.title() if w.islower() and not _KEEPS_CASE.fullmatch(w) else w for w in words)


def output_name(identity: ModelIdentity, type_name: str, *, vocab_only: bool = False) -> str:
    """The file name that GGUF's naming convention gives a model.

    Characters that should not be in a file name become hyphens; a name that is too long is cut before the type.

    Example:
        >>> output_name(ModelIdentity("Tiny Llama", "Tiny-Llama", "Chat", "v1.0", "1.1B"), "Q4_K_M")
        'Tiny-Llama-1.1B-Chat-v1.0-Q4_K_M.gguf'
    """
    base = identity.basename if identity.basename is not None else identity.name
    size = None if vocab_only else identity.size_label
    parts = [base.strip() or _UNNAMED, size, identity.finetune, identity.version]
    stem = "-".join(part.strip().replace(" ", "-") for part in parts if part)
    end = f"-{'vocab' if vocab_only else type_name.upper()}.gguf"
    safe = (file_name(stem) or _UNNAMED).encode()[: _MAX_FILE_NAME - len(end)]
    return safe.decode(errors="ignore") + end


def fill_template(file_name: str, type_name: str) -> str:
    """Put the type in a file name: in lower case for `{ftype}`, `{outtype}` and `{}`, in upper for `{FTYPE}`.

    `{OUTTYPE}` is `{FTYPE}`. A single brace stays; `{{` and `}}` stand for one brace.

    Raises:
        UsageError: the name has another word in braces.

    Example:
        >>> fill_template("tiny-{ftype}.gguf", "Q4_K_M")
        'tiny-q4_k_m.gguf'
    """

    braced = _IN_BRACES.findall(_ESCAPED.sub("", file_name))
    unknown = next((word for word in braced if not _TEMPLATE.fullmatch(word)), None)
    if unknown:
        hint = f"write {{ftype}} for the type, {{FTYPE}} for it in capitals, or {{{unknown}}} for the braces themselves"
        raise UsageError(f"{file_name}: {unknown} is no placeholder", hint=hint)

    def fill(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        return type_name.upper() if (match[1] or "").isupper() else type_name.lower()

    return _TEMPLATE.sub(fill, file_name)
