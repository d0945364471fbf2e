"""Readers for `in_order` that add keys to the metadata of a vocabulary's reader, or replace some of them.

Source: the `set_vocab` of the families in llama.cpp's converter.
"""

from __future__ import annotations

from gguf_forge.gguf_file.values import Metadata, ValueType, array, u32
from gguf_forge.tokenizer.chat_template import bundled_template, chat_templates, templates_of
from gguf_forge.tokenizer.checks import Place, as_decimal_id, as_id, as_list, as_mapping
from gguf_forge.tokenizer.special import ID_KEYS
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.vocabulary import Reader, TokenizerSource

_TYPES = "tokenizer.ggml.token_type"


def chat_template(text: str, name: str = "default") -> Reader:
    """A chat template that replaces the one of the folder. `name` is for a template other than the default one.

    Example:
        >>> from gguf_forge.tokenizer import bpe, in_order
        >>> reranker = in_order(chat_template("Judge {document} by {query}", "rerank"), bpe)
    """
    return lambda _: templates_of([{"name": name, "template": text}], Place(name))


def bundled_chat_template(name: str) -> Reader:
    """A chat template that comes with the package. It replaces the one of the folder."""
    return lambda _: templates_of(bundled_template(name), Place(name))


def default_chat_template(name: str) -> Reader:
    """A chat template that comes with the package. It is used only if the folder has none.

    Example:
        >>> from gguf_forge.tokenizer import in_order, kimi_linear
        >>> kimi = in_order(kimi_linear, default_chat_template("kimi-k3"))
    """
    return lambda source: {} if chat_templates(source.files) else templates_of(bundled_template(name), Place(name))


def own_chat_template(fallback: str | None = None) -> Reader:
    """chat_template.jinja, which here counts before tokenizer_config.json.

    `fallback` names a template of the package, for folders without this file.
    """

    def read(source: TokenizerSource) -> Metadata:
        template = source.files.chat_template_jinja
        if template is None and fallback is not None:
            template = bundled_template(fallback)
        return templates_of(template, source.files.place("chat_template.jinja"))

    return read


def token_by_text(text: str, *kinds: str) -> Reader:
    """The id of an added token of tokenizer_config.json, for these kinds; nothing if the token is missing.

    Example:
        >>> from gguf_forge.tokenizer import bpe, in_order
        >>> qwen3_omni = in_order(bpe, token_by_text("<|im_end|>", "bos", "eos"))
    """

    def read(source: TokenizerSource) -> Metadata:
        place = source.files.place("tokenizer_config.json") / "added_tokens_decoder"
        listed = as_mapping((source.files.tokenizer_config or {}).get("added_tokens_decoder", {}), place)
        for key, value in listed.items():
            if as_mapping(value, place / key).get("content") == text:
                return {ID_KEYS[kind]: u32(as_decimal_id(key, place)) for kind in kinds}
        return {}

    return read


def suppressed_tokens(source: TokenizerSource) -> Metadata:
    """The tokens that are never sampled according to generation_config.json; nothing if it names none."""
    listed = (source.files.object("generation_config.json") or {}).get("suppress_tokens")
    if not listed:
        return {}
    place = source.files.place("generation_config.json") / "suppress_tokens"
    ids = [as_id(id, place / index, maximum=(1 << 31) - 1) for index, id in enumerate(as_list(listed, place))]
    return {"tokenizer.ggml.suppress_tokens": array(ValueType.INT32, ids)}


def as_control(text: str, reader: Reader) -> Reader:
    """The reader's vocabulary with one token changed to a control token, so that runtimes do not show it."""

    def read(source: TokenizerSource) -> Metadata | None:
        metadata = reader(source)
        if metadata is None:
            return None
        types = [
            int(TokenType.CONTROL) if token in (text, text.encode()) else kind
            for token, kind in zip(metadata["tokenizer.ggml.tokens"].data, metadata[_TYPES].data, strict=True)
        ]
        return {**metadata, _TYPES: array(ValueType.INT32, types)}

    return read
