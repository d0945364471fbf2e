"""Adapters of models that got other tokens: they bring embeddings and a head of their own, and a tokenizer.

PEFT stores whole embeddings where it trained them (`modules_to_save`), and also a copy of those that have another
number of rows than the base model's. Source: `get_peft_model_state_dict` of PEFT.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gguf_forge.checkpoint.adapter import TRAINED_ROWS, Adapter
from gguf_forge.errors import ForgeError, InputError, UnsupportedError
from gguf_forge.storage.folder import Folder
from gguf_forge.storage.overlaid import OverlaidFolder
from gguf_forge.wording import log_of

log = log_of(__name__)

# Names of the matrices that a model may hold only once for its embeddings and its head.
HEAD = "lm_head.weight"
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "tok_embeddings.weight", "word_embeddings.weight")
# The files of a tokenizer. An adapter's folder that has a vocabulary has all of them that its tokenizer needs.
_VOCABULARY = re.compile(r"tokenizer\.(json|jsonl|model.*)|vocab\.(json|txt)|.+\.tiktoken|tekken\.json|spiece\.model")
_OF_TOKENIZER = re.compile(
    rf"{_VOCABULARY.pattern}|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|merges\.txt"
    r"|sentencepiece.*\.model|chat_template\.jinja|chat_template\.json|additional_chat_templates"
)


class _OfAdapter(Protocol):
    @property
    def adapter(self) -> Adapter: ...


def is_of_tokens(name: str) -> bool:
    """Whether a module or tensor has a row for each token."""
    return f"{name.removesuffix('.weight')}.weight".endswith((HEAD, *EMBEDDINGS))


def trains_embeddings(adapter: Adapter) -> bool:
    """Whether an adapter was trained with embeddings of its own, while a head that was one with them stayed."""
    modules = (name.removesuffix(".weight") for name in adapter.whole() if name.endswith(EMBEDDINGS))
    return not adapter.config.keeps_ties and any(map(adapter.config.saves, modules))


def repeats_embeddings(adapter: Adapter) -> frozenset[str]:
    """The whole tensors of a head that were not trained apart from the embeddings, in a model that has both as one.

    PEFT stores such a head beside the embeddings, because the model has a module for each.
    """
    whole = {name: name.replace(TRAINED_ROWS, ".weight") for name in adapter.whole()}
    heads = {stored: name for stored, name in whole.items() if name.endswith(HEAD)}
    is_trained = any(adapter.config.saves(name.removesuffix(".weight")) for name in heads.values())
    is_trained &= not adapter.config.keeps_ties
    is_trained |= any(f"{pair.module}.weight".endswith(HEAD) for pair in adapter.pairs())
    has_embeddings = any(name.endswith(EMBEDDINGS) for name in whole.values())
    return frozenset(heads) if has_embeddings and not is_trained and not trains_embeddings(adapter) else frozenset()


def rows_of_tokens(adapters: Sequence[_OfAdapter]) -> int | None:
    """How many rows the embeddings and the head have that adapters bring along; None if they bring none."""
    whole = (each.adapter.whole() for each in reversed(adapters))
    rows = (tensor.shape[0] for found in whole for name, tensor in found.items() if tensor.shape and is_of_tokens(name))
    return next(rows, None)


def with_rows(config: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The config of a model whose embeddings have another number of rows."""
    text = config.get("text_config")
    of_text = {"text_config": {**text, "vocab_size": rows}} if isinstance(text, dict) and "vocab_size" in text else {}
    return {**config, **of_text, **({"vocab_size": rows} if "vocab_size" in config or not of_text else {})}


def with_tokenizer(folder: Folder, adapters: Sequence[_OfAdapter], *, added: tuple[int, int] | None) -> Folder:
    """The model's folder with the tokenizer of the last adapter that brings rows of tokens, if its folder has one.

    Args:
        folder: The model's.
        adapters: Those that are merged in.
        added: How many rows the adapters bring, and how many the model has, if the numbers differ.

    Raises:
        InputError: they differ, and there is no tokenizer.
    """
    adapter = next((each.adapter for each in reversed(adapters) if brings_tokenizer(each.adapter)), None)
    if adapter is not None:
        log.info("%s: the tokenizer is that of the adapter, which brings embeddings", adapter.folder.path)
        return OverlaidFolder(folder, adapter.folder, _OF_TOKENIZER)
    if added is not None:
        bringing = [each.adapter for each in adapters if _brings_rows(each.adapter)]
        raise InputError(
            f"the adapter was trained with {added[0]:,} tokens, the model has {added[1]:,}, and the adapter's folder "
            "has no tokenizer",
            file=bringing[-1].folder.path,
            hint="save the tokenizer that it was trained with into that folder; if no token was added, and rows only "
            "fill up, copy the model's own",
        )
    return folder


def brings_tokenizer(adapter: Adapter) -> bool:
    """Whether an adapter's folder has the tokenizer that belongs to rows of embeddings or a head which it brings."""
    return _brings_rows(adapter) and any(map(_VOCABULARY.fullmatch, adapter.folder.names()))


def _brings_rows(adapter: Adapter) -> bool:
    return any(is_of_tokens(name.replace(TRAINED_ROWS, ".weight")) for name in adapter.whole())


def check_tokens(adapter: Adapter, n_tokens: object) -> None:
    """Refuses a file of an adapter of a model that has other tokens than the base model's config says, if it says a
    number.

    Raises:
        UnsupportedError: its embeddings or its head have more rows.
    """
    rows = {name: tensor.shape[0] for name, tensor in adapter.whole().items() if tensor.shape and is_of_tokens(name)}
    for pair in adapter.pairs():
        if is_of_tokens(pair.module):
            rows[pair.module] = pair.a.shape[1] if pair.of_embedding else pair.b.shape[0]
    for name, n_rows in rows.items():
        if isinstance(n_tokens, int) and n_rows > n_tokens:
            hint = f"merge it on the fly: `gguf-forge convert BASE --lora {adapter.folder.path}`"
            raise of_other_tokens(adapter, name, n_rows, n_tokens, hint)


def check_rows(adapter: Adapter, rows: Mapping[str, int]) -> None:
    """Refuses embeddings and a head that have different numbers of rows after an adapter brought only one of them.

    Args:
        adapter: The adapter.
        rows: The numbers of rows, by the names of the embeddings and the head.
    """
    brought = [name for name in adapter.whole() if is_of_tokens(name)]
    if brought and len(set(rows.values())) > 1:
        said = " and ".join(f"{count:,} rows of {name}" for name, count in rows.items())
        raise UnsupportedError(
            f"the merged model would have {said}: the adapter does not bring both",
            file=adapter.file.path,
            hint="merge it with PEFT's merge_and_unload into the resized model, save the tokenizer there as well, and "
            "convert the result",
        )


def of_other_tokens(adapter: Adapter, name: str, its: int, models: int, hint: str = "") -> ForgeError:
    """The error for a change of embeddings or a head that has another number of rows than the base model."""
    problem = f"the adapter was trained with {its:,} tokens, and the model has {models:,}"
    hint = hint or "save the adapter of the resized model with save_embedding_layers=True, which brings its embeddings"
    return UnsupportedError(problem, file=adapter.file.path, tensor=name, hint=hint)
