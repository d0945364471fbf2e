"""Compares the tokens of a checkpoint's own tokenizer with those of llama.cpp and a GGUF vocabulary.

llama.cpp gets the vocabulary in a file with a model of one tiny layer: what it does with a text depends on the keys
`tokenizer.*` alone, and so a model of any size and kind can be checked at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.foreign import llama_vocabulary, own_tokenizer
from gguf_forge.foreign.limited import LimitError, run_limited
from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata, ValueType, f32, string, u32
from gguf_forge.storage.folder import Folder
from gguf_forge.toolbox.tokens.sample import SAMPLE
from gguf_forge.types.tensor_type import F16, F32

_TOKENS, _KIND = "tokenizer.ggml.tokens", "tokenizer.ggml.model"
# The limits of both child processes. llama.cpp reserves address space generously.
_MEMORY, _SECONDS, _MOST_OUTPUT = 8 << 30, 5, 64 << 20
# One start of llama.cpp's server in some thirty never ends, so it is tried again.
_TRIES = 3
# The names of SentencePiece models whose ids are those of the checkpoint. XLM-RoBERTa's sentencepiece.bpe.model counts
# its pieces in another way.
_MODELS = ("tokenizer.model", "spiece.model")
_WIDTH = 32
_MOST_NAMED = 3
_EXTRA = "in a checkout of gguf-forge, install the extra for it: pip install '.[tokens]'"


_TokenIds: TypeAlias = Callable[[Mapping[str, Any]], list[list[int]]]


@dataclass(frozen=True)
class TextDifference:
    """A text that becomes other tokens.

    Attributes:
        text: The text.
        expected: The ids of the checkpoint's own tokenizer.
        found: Those of llama.cpp.
        at: The number of the first id that differs.
        expected_piece: The text of the vocabulary's token there; None at the end.
        found_piece: The same for llama.cpp.
    """

    text: str
    expected: tuple[int, ...]
    found: tuple[int, ...]
    at: int
    expected_piece: str | None
    found_piece: str | None


@dataclass(frozen=True)
class TokenCheck:
    """How a vocabulary compares.

    Attributes:
        n_texts: How many texts were compared.
        differences: Those that become other tokens.
        tokenizer: The file of the checkpoint's own tokenizer.
    """

    n_texts: int
    differences: tuple[TextDifference, ...]
    tokenizer: str

    @property
    def ok(self) -> bool:
        return not self.differences

    @property
    def sentences(self) -> tuple[str, ...]:
        """The result in words: one sentence, and one for each of the first differences."""
        if self.ok:
            return (f"all {self.n_texts} texts become the tokens of {self.tokenizer}",)
        first = f"{len(self.differences)} of {self.n_texts} texts become other tokens than those of {self.tokenizer}"
        return (first, *map(_sentence, self.differences[:_MOST_NAMED]))


def _sentence(difference: TextDifference) -> str:
    expected, found = (
        "the end" if piece is None else repr(piece) for piece in (difference.expected_piece, difference.found_piece)
    )
    return f"{difference.text!r:.80}: token {difference.at} is {found}, and should be {expected}"


def check_tokens(metadata: Metadata, folder: Folder, texts: Sequence[str] = SAMPLE) -> TokenCheck:
    """Compares what two tokenizers make of texts: the checkpoint's own one, and llama.cpp with a file's vocabulary.

    Args:
        metadata: The keys of the GGUF file.
        folder: The checkpoint.
        texts: What is compared, without the tokens at the beginning and the end of a prompt.

    Raises:
        UnsupportedError: llama.cpp (the package xllamacpp) or sentencepiece is not installed, or the checkpoint's
            tokenizer is of a kind that neither `tokenizers` nor sentencepiece reads.
        InputError: a tokenizer cannot be loaded.

    Example:
        >>> with open_gguf("model.gguf") as gguf:  # doctest: +SKIP
        ...     check_tokens(gguf.typed_metadata, LocalFolder(Path("Qwen3-0.6B"))).ok
        True
    """
    pieces, kind = _vocabulary(metadata)
    name = next((name for name in _own_files(kind) if folder.has(name)), None)
    if name is None:
        raise UnsupportedError(
            "the folder has neither tokenizer.json nor tokenizer.model to compare with",
            file=folder.path,
            hint="copy tokenizer.json of the same model from a repository that has one",
        )
    content = folder.read_small(name)
    own = {"json": content if name.endswith("json") else None, "model": content, "texts": list(texts)}
    expected = _limited(own_tokenizer.token_ids, own, folder.path / name)
    with TemporaryDirectory(prefix="gguf-forge-") as place:
        carrier = Path(place) / "vocabulary.gguf"
        _write_carrier(carrier, metadata, len(pieces))
        found = _tried({"file": str(carrier), "texts": list(texts)})
    pairs = zip(texts, expected, found, strict=True)
    differences = (_difference(text, own_ids, ids, pieces) for text, own_ids, ids in pairs if own_ids != ids)
    return TokenCheck(len(texts), tuple(differences), name)


def require_libraries() -> None:
    """Raises UnsupportedError if llama.cpp (the package xllamacpp) is missing, before a file is made in vain."""
    if find_spec("xllamacpp") is None:
        raise UnsupportedError("comparing tokens needs the package xllamacpp, which is not installed", hint=_EXTRA)


def _vocabulary(metadata: Metadata) -> tuple[Sequence[object], str]:
    """The tokens of a file, and the kind of its tokenizer."""
    tokens, kind = metadata.get(_TOKENS), metadata.get(_KIND)
    if tokens is None:
        raise InputError("the file has no vocabulary", hint="only files of text models have one")
    if tokens.type is not ValueType.ARRAY:
        raise InputError(f"the vocabulary is damaged: {_TOKENS} is not a list")
    if kind is None or kind.type is not ValueType.STRING:
        raise InputError(f"the vocabulary is damaged: {_KIND} is {'missing' if kind is None else 'not a text'}")
    return tokens.data, kind.data


def _own_files(kind: str) -> tuple[str, ...]:
    """The files of the checkpoint's own tokenizer; those that such a vocabulary is made of come first."""
    return (*_MODELS, "tokenizer.json") if kind in ("llama", "t5") else ("tokenizer.json", *_MODELS)


def _tried(argument: Mapping[str, Any]) -> list[list[int]]:
    for _ in range(_TRIES - 1):
        with suppress(LimitError):
            return _limited(llama_vocabulary.token_ids, argument, None)
    return _limited(llama_vocabulary.token_ids, argument, None)


def _limited(run: _TokenIds, argument: Mapping[str, Any], file: Path | None) -> list[list[int]]:
    try:
        return run_limited(run, dict(argument), memory=_MEMORY, seconds=_SECONDS, most_output=_MOST_OUTPUT)
    except LimitError as error:
        problem = error.words.problem if file is not None else f"llama.cpp with the vocabulary: {error.words.problem}"
        raise LimitError(problem, file=file, hint="if there are many texts, compare fewer (--token-texts)") from None
    except InputError as error:
        if "No module named" in error.words.problem:
            raise UnsupportedError(f"comparing tokens needs a library: {error.words.problem}", hint=_EXTRA) from None
        what = "the tokenizer cannot be loaded" if file is not None else "llama.cpp does not load the vocabulary"
        raise InputError(f"{what}: {error.words.problem}", file=file, hint=error.words.hint) from None


def _difference(text: str, expected: Sequence[int], found: Sequence[int], pieces: Sequence[object]) -> TextDifference:
    same = (one == other for one, other in zip(expected, found, strict=False))
    at = next((n for n, is_same in enumerate(same) if not is_same), min(len(expected), len(found)))
    named = (_piece(ids[at], pieces) if at < len(ids) else None for ids in (expected, found))
    return TextDifference(text, tuple(expected), tuple(found), at, *named)


def _piece(id: int, pieces: Sequence[object]) -> str:
    if not 0 <= id < len(pieces):
        return f"token {id}, which the file does not have"
    piece = pieces[id]
    return piece.decode(errors="replace") if isinstance(piece, bytes) else str(piece)


def _write_carrier(path: Path, metadata: Metadata, n_tokens: int) -> None:
    """A file that llama.cpp loads in a moment: the vocabulary, and a model of one layer whose weights are all zero."""
    keys: Metadata = {
        "general.architecture": string("llama"),
        "llama.block_count": u32(1),
        "llama.context_length": u32(128),
        "llama.embedding_length": u32(_WIDTH),
        "llama.feed_forward_length": u32(_WIDTH),
        "llama.attention.head_count": u32(1),
        "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
    }
    keys |= {key: value for key, value in metadata.items() if key.startswith("tokenizer.ggml.")}
    square = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    tensors = [
        TensorInfo("token_embd.weight", (_WIDTH, n_tokens), F16),
        TensorInfo("output_norm.weight", (_WIDTH,), F32),
        *(TensorInfo(f"blk.0.{name}.weight", (_WIDTH,), F32) for name in ("attn_norm", "ffn_norm")),
        *(TensorInfo(f"blk.0.{name}.weight", (_WIDTH, _WIDTH), F16) for name in square),
    ]
    layout = lay_out(keys, tensors)
    path.write_bytes(layout.header)
    os.truncate(path, layout.size)  # the rest is zeros
