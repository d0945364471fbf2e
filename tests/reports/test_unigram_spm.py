"""A tokenizer.model of the Unigram kind is split as Unigram does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from llama_cpp import token_ids
from sentencepiece import SentencePieceProcessor
from sentencepiece_models import trained
from synthetic import FAMILIES, write_checkpoint
from tokenizer_folders import edit
from tokenizers import Tokenizer
from vocabularies import converted, keys

from gguf_forge import UnsupportedError

OWN_IDS = {
    "the model folder": [1, 259, 260, 261],
    "weights of the model": [1, 263, 262, 259, 260],
    "loading": [1, 266, 277, 270, 269, 276, 264],
}
PROSE = ["the cat sat on the mat and the cat ran", "a black cat and a white rat", "on the mat sat a rat"]
LINES = ["the cat ran", "a rat and a cat sat", "white mat on the black mat", "the the cat"]


def test_the_ids_are_those_of_sentencepiece(made: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    file = converted(made())
    found = keys(file)
    assert (found["model"], found["add_space_prefix"], found["remove_extra_whitespaces"]) == ("t5", True, False)
    assert token_ids(file, list(OWN_IDS)) == list(OWN_IDS.values())
    assert "of the Unigram kind" in caplog.text


def test_as_the_reference_writes_it(made: Callable[..., Path]) -> None:
    assert keys(converted(made(), as_reference=True))["model"] == "llama"


def _with_model(folder: Path, family: str, kind: str, **settings: object) -> tuple[Path, SentencePieceProcessor]:
    checkpoint = write_checkpoint(FAMILIES / family, folder / "hf")
    data = trained(kind, lines=PROSE * 20, vocab_size=40, **settings)
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (checkpoint / name).unlink(missing_ok=True)
    (checkpoint / "tokenizer.model").write_bytes(data)
    edit(checkpoint / "config.json", lambda config: config.update(bos_token_id=1, eos_token_id=2))
    return checkpoint, SentencePieceProcessor(model_proto=data)


@pytest.mark.parametrize(
    ("family", "add_dummy_prefix"),
    [("llama2-spm", True), ("qwen3", True), ("phi3", True), ("llama2-spm", False), ("gemma2", False)],
)
def test_other_families(family: str, add_dummy_prefix: bool, tmp_path: Path) -> None:
    folder, own = _with_model(tmp_path, family, "unigram", add_dummy_prefix=add_dummy_prefix)
    file = converted(folder)
    assert token_ids(file, LINES) == [[own.bos_id(), *own.encode(line)] for line in LINES]


def test_bpe_stays_bpe(tmp_path: Path) -> None:
    folder, own = _with_model(tmp_path, "llama2-spm", "bpe")
    file = converted(folder)
    assert keys(file)["model"] == "llama"
    assert token_ids(file, LINES) == [[own.bos_id(), *own.encode(line)] for line in LINES]


def test_a_model_of_words_is_refused(tmp_path: Path) -> None:
    folder, _ = _with_model(tmp_path, "llama2-spm", "word")
    with pytest.raises(UnsupportedError, match="of the kind WORD"):
        converted(folder)


def test_a_unigram_tokenizer_json(tmp_path: Path) -> None:
    folder, own = _with_model(tmp_path, "qwen3", "unigram")
    (folder / "tokenizer.model").unlink()
    vocab = [[own.id_to_piece(id), own.get_score(id)] for id in range(own.get_piece_size())]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": id, "content": text, **added} for id, text in enumerate(("<unk>", "<s>", "</s>"))],
        "normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        "pre_tokenizer": metaspace,
        "post_processor": None,
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": False},
    }
    tokenizer["added_tokens"].append({"id": len(vocab), "content": "<|turn|>", **added})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    file = converted(folder)
    assert keys(file)["tokens"][len(vocab)] == "<|turn|>"
    texts = [*LINES, "the cat<|turn|>"]
    engine = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert token_ids(file, texts) == [[1, *engine.encode(text).ids] for text in texts]
