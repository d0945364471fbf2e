"""Makes the tokenizer metadata of a GGUF file from the tokenizer files of a Hugging Face folder.

Each kind of vocabulary has a reader in a file of its own. A model family composes the readers that fit it:

    llama = in_order(
        configured_space_prefix,
        first_of(sentencepiece, llama_hf, bpe),
        when(has_vocab_size(49152), add_bos_token(False)),
    )
    metadata = read_vocabulary(folder, config, llama)

The readers, by the files that they read:

    tokenizer.json      bpe, bpe_as_marked, bpe_with(...), chatglm, glm, glm_edge, interns1, solar_open, whitespace,
                        wordpiece (all these also vocab.json or vocab.txt), llama_hf, gemma4, xlm_roberta,
                        nomic_bert_moe, hunyuan, hunyuan_vl, xverse
    SentencePiece       sentencepiece, gemma3n_sentencepiece, phi3, internlm2, internlm3, chatglm3, t5, xlm_roberta,
                        arctic, with_learned(...)
    tiktoken            qwen, kimi, kimi_linear, kimi_k3, hunyuan, hunyuan_moe, hunyuan_vl
    files of their own  rwkv_world, plamo, plamo3, mistral(...)
    none                builtin(...), no_vocabulary

Keys, values, types and their order are those of llama.cpp's converter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gguf_forge.errors import InputError
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.storage.folder import Folder
from gguf_forge.tokenizer.arctic import arctic
from gguf_forge.tokenizer.auto_tokenizer import load_tokenizer
from gguf_forge.tokenizer.bpe import (
    bpe,
    bpe_as_marked,
    bpe_with,
    chatglm,
    glm,
    glm_edge,
    interns1,
    solar_open,
    tokenizer_json_size,
    whitespace,
)
from gguf_forge.tokenizer.builtin import builtin, no_vocabulary
from gguf_forge.tokenizer.chat_template import note_of_templates
from gguf_forge.tokenizer.chatglm3 import chatglm3
from gguf_forge.tokenizer.codes import with_codes
from gguf_forge.tokenizer.extra_keys import (
    as_control,
    bundled_chat_template,
    chat_template,
    default_chat_template,
    own_chat_template,
    suppressed_tokens,
    token_by_text,
)
from gguf_forge.tokenizer.files import TokenizerFiles
from gguf_forge.tokenizer.internlm import internlm2, internlm3
from gguf_forge.tokenizer.llama_hf import gemma4, llama_hf
from gguf_forge.tokenizer.mistral import has_tekken_alone, mistral
from gguf_forge.tokenizer.padding import with_padding
from gguf_forge.tokenizer.plamo import plamo, plamo3
from gguf_forge.tokenizer.pocket_tts import with_learned
from gguf_forge.tokenizer.pre_tokenizers import checked_name, known_names
from gguf_forge.tokenizer.rwkv import rwkv_world
from gguf_forge.tokenizer.special import special_ids
from gguf_forge.tokenizer.spm import gemma3n_sentencepiece, phi3, sentencepiece, sentencepiece_size
from gguf_forge.tokenizer.template_check import special_token, template_problems, templates_in
from gguf_forge.tokenizer.tiktoken import hunyuan, hunyuan_moe, hunyuan_vl, kimi, kimi_k3, kimi_linear, qwen
from gguf_forge.tokenizer.unigram import nomic_bert_moe, t5, xlm_roberta
from gguf_forge.tokenizer.vocabulary import (
    Reader,
    TokenizerSource,
    add_bos_token,
    add_eos_token,
    add_sep_token,
    add_space_prefix,
    configured_space_prefix,
    either,
    first_of,
    fixed_token_type_count,
    has_model_type,
    has_pre_tokenizer,
    has_tokenizer_class,
    has_vocab_size,
    in_order,
    token_type_count,
    when,
    with_rounded_size,
)
from gguf_forge.tokenizer.wordpiece import wordpiece
from gguf_forge.tokenizer.xverse import xverse
from gguf_forge.wording import log_of

log = log_of(__name__)

__all__ = [
    "Reader",
    "TokenizerFiles",
    "TokenizerSource",
    "add_bos_token",
    "add_eos_token",
    "add_sep_token",
    "add_space_prefix",
    "any_vocabulary",
    "arctic",
    "as_control",
    "base_vocabulary_size",
    "bpe",
    "bpe_as_marked",
    "bpe_with",
    "builtin",
    "bundled_chat_template",
    "chat_template",
    "chatglm",
    "chatglm3",
    "configured_space_prefix",
    "default_chat_template",
    "either",
    "first_of",
    "fixed_token_type_count",
    "gemma3n_sentencepiece",
    "gemma4",
    "glm",
    "glm_edge",
    "has_model_type",
    "has_pre_tokenizer",
    "has_tekken_alone",
    "has_tokenizer_class",
    "has_vocab_size",
    "hunyuan",
    "hunyuan_moe",
    "hunyuan_vl",
    "in_order",
    "internlm2",
    "internlm3",
    "interns1",
    "kimi",
    "kimi_k3",
    "kimi_linear",
    "known_names",
    "llama_hf",
    "mistral",
    "no_vocabulary",
    "nomic_bert_moe",
    "own_chat_template",
    "phi3",
    "plamo",
    "plamo3",
    "qwen",
    "read_vocabulary",
    "real_vocabulary_size",
    "rwkv_world",
    "sentencepiece",
    "solar_open",
    "special_ids",
    "special_token",
    "suppressed_tokens",
    "t5",
    "template_problems",
    "templates_in",
    "token_by_text",
    "token_ids",
    "token_type_count",
    "when",
    "whitespace",
    "with_codes",
    "with_learned",
    "with_padding",
    "with_rounded_size",
    "wordpiece",
    "xlm_roberta",
    "xverse",
]

any_vocabulary: Reader = first_of(sentencepiece, llama_hf, bpe)


def read_vocabulary(
    folder: Folder,
    config: Mapping[str, Any],
    reader: Reader = any_vocabulary,
    *,
    pre_tokenizer: str | None = None,
    as_reference: bool = False,
) -> Metadata:
    """The tokenizer metadata of a model.

    Args:
        folder: The Hugging Face folder.
        config: The model's configuration with the defaults of its class.
        reader: The reader that its family declares.
        pre_tokenizer: The name of a pre-tokenizer, which replaces the one found by hash.
        as_reference: Whether to read the files as llama.cpp's converter does, also where it is wrong.

    Raises:
        InputError: a tokenizer file is missing, broken, or contradicts another.
        UnsupportedError: the pre-tokenizer is unknown.
        UsageError: llama.cpp knows no pre-tokenizer of the given name.

    Example:
        >>> metadata = read_vocabulary(LocalFolder(Path("Qwen3-0.6B")), {"vocab_size": 151936})  # doctest: +SKIP
        >>> metadata["tokenizer.ggml.pre"].data  # doctest: +SKIP
        'qwen2'
    """
    files = TokenizerFiles(folder, as_reference)
    if pre_tokenizer is not None:
        checked_name(pre_tokenizer)
    source = TokenizerSource(files, config, pre_tokenizer)
    metadata = reader(source)
    if metadata is None:
        # The family expects other files than these. What is here says by its content what it is.
        metadata = any_vocabulary(source)
    if metadata is None:
        raise InputError(
            "has no tokenizer that this model can use",
            file=folder.path,
            hint="it needs tokenizer.json, tokenizer.model, tekken.json, or vocab.json with merges.txt: download it",
        )
    note_of_templates(files, metadata)
    if problems := template_problems(metadata):
        log.warning("%s: %s", folder.path, "; ".join(problems))
    return metadata


def real_vocabulary_size(folder: Folder, config: Mapping[str, Any], *, as_reference: bool = False) -> int | None:
    """The number of embedding rows that belong to a token, if the embeddings have more; None without tokenizer files.

    Source: Gemma 3's `modify_tensors` in llama.cpp's converter.
    """
    source = TokenizerSource(TokenizerFiles(folder, as_reference), config)
    size = sentencepiece_size(source)
    return tokenizer_json_size(source) if size is None else size


def base_vocabulary_size(folder: Folder) -> int | None:
    """The number of tokens of a tokenizer, not counting its added tokens; None without tokenizer.json."""
    tokenizer = load_tokenizer(TokenizerFiles(folder))
    return None if tokenizer is None else tokenizer.base_size()


def token_ids(folder: Folder, *texts: str) -> list[int]:
    """The ids of tokens that a model must have.

    Raises:
        InputError: the folder has no tokenizer.json, or no such token.

    Example:
        >>> token_ids(LocalFolder(Path("Qwen3-Reranker-0.6B")), "yes", "no")  # doctest: +SKIP
        [9693, 2152]
    """
    tokenizer = load_tokenizer(TokenizerFiles(folder))
    if tokenizer is None:
        raise InputError(f"has no tokenizer that says which token is {texts[0]!r}", file=folder.path)
    vocabulary = tokenizer.vocabulary()
    missing = [text for text in texts if text not in vocabulary]
    if missing:
        raise tokenizer.place.error(f"has no token {missing[0]!r}")
    return [vocabulary[text] for text in texts]
