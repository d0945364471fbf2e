"""The vocabulary of Pocket TTS: pieces of a Unigram tokenizer.model, and tokens for vectors that the model learned.

Source: `set_vocab` in llama.cpp's conversion/pockettts.py.
"""

from __future__ import annotations

from gguf_forge.gguf_file.values import Metadata, ValueType, array, boolean
from gguf_forge.tokenizer.added_pieces import add_in_range, from_added_tokens, from_tokenizer_config
from gguf_forge.tokenizer.scored_vocabulary import padded, scored_vocabulary
from gguf_forge.tokenizer.sentencepiece_model import read_model
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.unigram import check_unigram
from gguf_forge.tokenizer.vocabulary import Reader, TokenizerSource

_SCORE = -1000.0


def with_learned(key: str) -> Reader:
    """The reader of tokenizer.model. The config's list `key` names the vocabulary's last tokens.

    Raises:
        InputError: the file is missing or broken, has another kind of tokenizer, or more pieces than the embeddings
            have rows.
    """

    def reader(source: TokenizerSource) -> Metadata:
        data, place = source.files.sentencepiece, source.files.place("tokenizer.model")
        if data is None:
            raise place.error("is missing", "it is beside the model.safetensors of each language: also download it")
        model = read_model(data, place)
        check_unigram(model, place)
        size, learned = source.config["vocab_size"], source.config[key]
        first = size - len(learned)
        if len(model.pieces.texts) > first:
            raise place.error(
                f"has {len(model.pieces.texts)} pieces, and the model has embeddings of {first}",
                "use the tokenizer.model beside the model's own model.safetensors",
            )
        pieces = padded(model.pieces, size)
        add_in_range(pieces, (*from_added_tokens(source.files), *from_tokenizer_config(source.files)))
        pieces.texts[first:] = [text.encode() for text in learned]
        pieces.scores[first:] = [_SCORE] * len(learned)
        pieces.types[first:] = [TokenType.CONTROL] * len(learned)
        metadata = scored_vocabulary(pieces, "t5")
        metadata["tokenizer.ggml.add_space_prefix"] = boolean(model.add_dummy_prefix)
        metadata["tokenizer.ggml.remove_extra_whitespaces"] = boolean(model.remove_extra_whitespaces)
        if model.charsmap:
            metadata["tokenizer.ggml.precompiled_charsmap"] = array(ValueType.UINT8, model.charsmap)
        metadata["tokenizer.ggml.add_bos_token"] = boolean(False)
        metadata["tokenizer.ggml.add_eos_token"] = boolean(False)
        return metadata

    return reader
