"""Where tokenizer_config.json and tokenizer.json give the same id to different tokens.

transformers takes such a token for a new one and appends it to the vocabulary, so the model needs a further row.
"""

from __future__ import annotations

from gguf_forge.errors import InputError
from gguf_forge.tokenizer.checks import as_decimal_id, as_list, as_mapping
from gguf_forge.tokenizer.files import TokenizerFiles


def renamed_token(files: TokenizerFiles, text: str) -> InputError | None:
    """An error that names the entry of `text` in tokenizer_config.json and the token that has its id; None if they
    agree.
    """
    place = files.place("tokenizer_config.json") / "added_tokens_decoder"
    listed = as_mapping((files.tokenizer_config or {}).get("added_tokens_decoder", {}), place)
    by_id = _texts(files)
    for key, value in listed.items():
        content = as_mapping(value, place / key).get("content")
        other = by_id.get(as_decimal_id(key, place))
        if content == text and other not in (None, text):
            problem = f"is {text!r}, and tokenizer.json's token {key} is {other!r}"
            return (place / key).error(problem, f"correct either: the model has no row for {text!r} as a further token")
    return None


def is_of_tokenizer_json(files: TokenizerFiles, text: str) -> bool:
    return text in _texts(files).values()


def _texts(files: TokenizerFiles) -> dict[object, object]:
    """Id -> text of each token in tokenizer.json."""
    tokenizer, place = files.tokenizer or {}, files.place("tokenizer.json")
    model = as_mapping(tokenizer.get("model", {}), place / "model")
    vocab = model.get("vocab")
    texts: dict[object, object] = {id: text for text, id in vocab.items()} if isinstance(vocab, dict) else {}
    for index, token in enumerate(as_list(tokenizer.get("added_tokens", []), place / "added_tokens")):
        fields = as_mapping(token, place / "added_tokens" / index)
        texts[fields.get("id")] = fields.get("content")
    return texts
