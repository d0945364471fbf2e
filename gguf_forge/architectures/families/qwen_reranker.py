"""Qwen3's rerankers: language models of which two rows of the head are left, those of "yes" and "no"."""

from __future__ import annotations

from gguf_forge.architectures.config import Config
from gguf_forge.architectures.declaration import Rule
from gguf_forge.architectures.metadata import Lines
from gguf_forge.architectures.operations import keep
from gguf_forge.architectures.pooling import RANK
from gguf_forge.architectures.site import Site
from gguf_forge.gguf_file import values
from gguf_forge.gguf_file.values import ValueType
from gguf_forge.storage.folder import Folder, read_beginning
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import concat
from gguf_forge.tensors.row_maps import Slice
from gguf_forge.tokenizer import token_ids

_NAMES = ("qwen3-reranker", "qwen3-vl-reranker")
_TITLES = tuple(f"# {name}" for name in _NAMES)
# The prompt that the publisher trained with.
_PROMPT = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


def _is_reranker(site: Site) -> bool:
    """Whether the model is a reranker, by its folder, card or config. Its class name is that of the language model."""
    config, classes = site.config, site.config.find("architectures")
    named = str(classes[0]).lower() if isinstance(classes, list) and classes else ""
    hints = (site.folder.name, str(config.find("_name_or_path")), str(config.find("model_type")), named)
    card = _card(site.folder).lower()
    return (
        any(title in card for title in _TITLES)
        or any(name in hint.lower() for hint in hints for name in _NAMES)
        or "sequenceclassification" in named
    )


def _card(folder: Folder) -> str:
    if not folder.has("README.md"):
        return ""
    return read_beginning(folder, "README.md", 1 << 20).decode("utf-8", "replace")


def with_reranker(site: Site) -> Config:
    """Adds the ids of a reranker's two answers.

    Raises:
        InputError: a reranker's tokenizer has no "yes" or "no".
    """
    if not _is_reranker(site):
        return site.config.without("answer_ids")
    return site.config.updated(answer_ids=token_ids(site.folder, "yes", "no"))


def _judges(site: Site) -> bool:
    return site.config.find("answer_ids") is not None


def _has_tied_head(site: Site) -> bool:
    return _judges(site) and bool(site.config.find("tie_word_embeddings"))


def _has_own_head(site: Site) -> bool:
    return _judges(site) and not site.config.find("tie_word_embeddings")


def _answers(site: Site, /, *sources: TensorExpr) -> TensorExpr:
    """The head's rows of "yes" and "no"."""
    (x,) = sources
    return concat(tuple(Slice(x, -2, id, id + 1) for id in site.config.integers("answer_ids")))


def _labels(site: Site) -> Lines:
    if _judges(site):
        yield "pooling_type", values.u32(RANK)
        yield "classifier.output_labels", values.array(ValueType.STRING, ("yes", "no"))
        yield "tokenizer.chat_template.rerank", values.string(_PROMPT)
        yield "tokenizer.chat_templates", values.array(ValueType.STRING, ("rerank",))


RERANKER_KEYS = (_labels,)
_EMBEDDINGS = "model.embed_tokens.weight"
RERANKER_RULES = (
    Rule((_EMBEDDINGS,), "cls.output.weight", _answers, when=_has_tied_head),
    Rule((_EMBEDDINGS,), "token_embd.weight", keep, when=_has_tied_head),
    Rule(("lm_head.weight",), "cls.output.weight", _answers, when=_has_own_head),
)
