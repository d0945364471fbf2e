"""RWKV's vocabulary (llama.cpp's model `rwkv`): byte strings as Python literals, one per line.

Source: `_set_vocab_rwkv_world` in llama.cpp's converter.
"""

from __future__ import annotations

import ast
import re

from gguf_forge.foreign_text import natural
from gguf_forge.gguf_file.values import Metadata, ValueType, array, string
from gguf_forge.tokenizer.checks import MAX_TOKENS, Place, vocabulary_size
from gguf_forge.tokenizer.extra_keys import default_chat_template
from gguf_forge.tokenizer.special import special_tokens
from gguf_forge.tokenizer.token_types import TokenType
from gguf_forge.tokenizer.vocabulary import TokenizerSource

FILE = "rwkv_vocab_v20230424.txt"
_SIZE = 65536
# A line has the number of the token, one literal of a string or of bytes, and its length in bytes.
_LINE = re.compile(r"""\d+ (b?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")) (\d{1,9})""")
# The token of two line ends ends a turn. The first token ends the text.
_TURN_END = 261
_END = 0


def rwkv_world(source: TokenizerSource) -> Metadata | None:
    """The metadata of RWKV's vocabulary; None without its file.

    Raises:
        InputError: a line is not a token, or there are more tokens than the model's vocab_size.
    """
    lines = source.files.text(FILE)
    if lines is None:
        return None
    place = source.files.place(FILE)
    texts = [b"<s>", *_tokens(lines, place)]
    used = len(texts)
    size = vocabulary_size(source.config, source.files.place("config.json")) or _SIZE
    if used > size:
        raise place.error(f"has {used} tokens, and the model's vocab_size is {size}")
    texts += [b"[PAD%d]" % id for id in range(used, size)]
    types = [TokenType.CONTROL] + [TokenType.NORMAL] * (used - 1) + [TokenType.UNUSED] * (size - used)
    ids = {"bos": _END, "eos": _END}
    return {
        "tokenizer.ggml.model": string("rwkv"),
        "tokenizer.ggml.tokens": array(ValueType.STRING, texts),
        "tokenizer.ggml.token_type": array(ValueType.INT32, map(int, types)),
        **special_tokens(source.files, fallback={"eot": _TURN_END}, overrides=ids),
        **(default_chat_template("rwkv-world")(source) or {}),
    }


def _tokens(lines: str, place: Place) -> list[bytes]:
    """The tokens in the form in which Python prints bytes, because llama.cpp reads this form."""
    found = []
    for number, line in enumerate(lines.removesuffix("\n").split("\n"), 1):
        match = _LINE.fullmatch(line)
        token = _bytes_of(match.group(1)) if match else None
        if match is None or token is None or len(token) != natural(match.group(2)):
            raise place.error(f"has a line {number} that is not a number, a token and its length: {line[:60]!r}")
        if number >= MAX_TOKENS:
            raise place.error(f"has more than {MAX_TOKENS} tokens")
        found.append(repr(token)[2:-1].encode())
    return found


def _bytes_of(literal: str) -> bytes | None:
    try:
        token = ast.literal_eval(literal)
        return token.encode() if isinstance(token, str) else bytes(token)
    except (SyntaxError, ValueError):
        return None
