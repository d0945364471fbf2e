"""Special tokens: their ids, whether they are added to a prompt, and related settings in the JSON files.

Source: gguf-py's `SpecialVocab` (`gguf/vocab.py`) and the keys of its writer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gguf_forge.gguf_file.values import Metadata, Value, boolean, u32
from gguf_forge.tokenizer.chat_template import chat_templates
from gguf_forge.tokenizer.checks import Place, as_flag, as_id, as_list, as_mapping
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.merges import merges
from gguf_forge.tokenizer.post_processor import Additions, read_post_processor
from gguf_forge.tokenizer.vocabulary import Reader
from gguf_forge.wording import log_of

log = log_of(__name__)

DEFAULT_TYPES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")

# The GGUF keys of token ids. Kinds that are not here (cls, prefix, suffix, middle, fsep) are looked up but not written.
ID_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
    "eot": "tokenizer.ggml.eot_token_id",
    "eom": "tokenizer.ggml.eom_token_id",
}
_ADD_KEYS = {name: f"tokenizer.ggml.add_{name}_token" for name in ("bos", "eos", "sep")}


def special_tokens(
    files: TokenizerFiles,
    *,
    with_merges: bool = False,
    types: Sequence[str] = DEFAULT_TYPES,
    vocabulary_size: int | None = None,
    fallback: Mapping[str, int] | None = None,
    overrides: Mapping[str, int] | None = None,
) -> Metadata:
    """Merges, special token ids, whether they are added, chat templates and normalizer flags, in file order.

    Args:
        files: The folder's tokenizer files.
        with_merges: Whether to include the merges of a BPE vocabulary.
        types: The kinds of special tokens to look for.
        vocabulary_size: Ids from this number on are left out; None for no bound.
        fallback: Ids of kinds that the files do not give.
        overrides: Ids of kinds, which replace those of the files.

    Raises:
        InputError: a value in a file has the wrong type, or an id is negative.

    Example:
        >>> special_tokens(TokenizerFiles(folder))["tokenizer.ggml.bos_token_id"].data  # doctest: +SKIP
        1
    """
    additions = read_post_processor(files, tuple(types))
    added = _added(files, additions)
    ids = _ids(files, additions, vocabulary_size)
    for kind, id in (fallback or {}).items():
        ids.setdefault(kind, id)
    ids.update(overrides or {})
    return {
        **(merges(files) if with_merges else {}),
        **{ID_KEYS[kind]: u32(id) for kind, id in ids.items() if kind in ID_KEYS},
        **{_ADD_KEYS[kind]: boolean(flag) for kind, flag in added.items() if kind in _ADD_KEYS},
        **chat_templates(files),
        **_normalizer_flags(files),
    }


def special_ids(fallback: Mapping[str, int]) -> Reader:
    """Special token ids of a family, for kinds that its files do not give: kind -> id.

    Example:
        >>> from gguf_forge.tokenizer import add_space_prefix, in_order, sentencepiece
        >>> gemma = in_order(sentencepiece, special_ids({"eot": 107}), add_space_prefix(False))
    """
    return lambda source: special_tokens(source.files, types=tuple(fallback), fallback=fallback)


def _ids(files: TokenizerFiles, additions: Additions, vocabulary_size: int | None) -> dict[str, int]:
    ids: dict[str, int] = {}
    for kind, id, place in (*_ids_by_text(files, additions), *_ids_by_config(files, additions)):
        # A list has several ends of a turn, for which GGUF has no key. -1 is an old way to say that there is none.
        if isinstance(id, bool) or not isinstance(id, int) or id == -1:
            continue
        if vocabulary_size is None or as_id(id, place) < vocabulary_size:
            ids.setdefault(kind, as_id(id, place))
        else:
            problem = f"is {id}, and the vocabulary has {vocabulary_size} tokens; left out"
            log.warning("%s", place.error(problem))
    return ids


def _ids_by_text(files: TokenizerFiles, additions: Additions) -> Iterator[tuple[str, Any, Place]]:
    """The ids that tokenizer.json gives to the tokens that tokenizer_config.json names."""
    place = files.place("tokenizer.json") / "added_tokens"
    by_text: dict[str, Any] = {}
    for index, token in enumerate(as_list((files.tokenizer or {}).get("added_tokens", []), place)):
        fields = as_mapping(token, place / index)
        if isinstance(fields.get("content"), str):
            by_text.setdefault(fields["content"], fields.get("id"))
    for kind in additions.types:
        entry = additions.settings.get(f"{kind}_token")
        text = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(text, str):
            yield kind, by_text.get(text), place


def _ids_by_config(files: TokenizerFiles, additions: Additions) -> Iterator[tuple[str, Any, Place]]:
    config = files.config or {}
    nested = config.get("text_config")
    for kind in additions.types:
        key = f"{kind}_token_id"
        id = config.get(key)
        if id is None and isinstance(nested, dict):
            id = nested.get(key)
        yield kind, id, files.place("config.json") / key


def _added(files: TokenizerFiles, additions: Additions) -> dict[str, bool]:
    """Kind -> whether the tokenizer adds it. The post-processor overrides the settings."""
    added = dict(additions.added)
    for kind in additions.types:
        flag = additions.settings.get(f"add_{kind}_token")
        if isinstance(flag, bool) and added.setdefault(kind, flag) is not flag:
            log.warning(
                "%s: add_%s_token is %s, but the post-processor of tokenizer.json says %s, which is taken",
                files.folder.path_of("tokenizer_config.json"), kind, flag, added[kind],
            )  # fmt: skip
    return added


def _normalizer_flags(files: TokenizerFiles) -> Metadata:
    flags: dict[str, Value] = {}
    place = files.place("tokenizer.json") / "normalizer"
    normalizer = (files.tokenizer or {}).get("normalizer")
    pending = [as_mapping(normalizer, place)] if normalizer else []
    while pending:
        step = pending.pop()
        kind = step.get("type")
        if kind == "Lowercase":
            flags["lowercase"] = boolean(True)
        elif kind == "StripAccents":
            flags["strip_accents"] = boolean(True)
        elif kind == "BertNormalizer":
            for name in ("lowercase", "strip_accents"):
                if name in step:
                    flags.pop(name, None)
                    if step[name] is not None:
                        flags[name] = boolean(as_flag(step[name], place / name))
        elif kind == "Sequence":
            steps = as_list(step.get("normalizers", []), place / "normalizers")
            pending += [as_mapping(inner, place) for inner in reversed(steps)]
    names = [name for name in ("lowercase", "strip_accents") if name in flags]
    return {f"tokenizer.ggml.normalizer.{name}": flags[name] for name in names}
