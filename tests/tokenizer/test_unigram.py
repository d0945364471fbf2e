from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece_models import trained
from tokenizer_folders import edit

from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import (
    Reader,
    TokenizerFiles,
    TokenizerSource,
    nomic_bert_moe,
    read_vocabulary,
    t5,
    xlm_roberta,
)
from gguf_forge.tokenizer.checks import Place
from gguf_forge.tokenizer.unigram_vocabulary import _charsmap

TOKENS, SCORES, TYPES = (f"tokenizer.ggml.{name}" for name in ("tokens", "scores", "token_type"))
CHARSMAP = base64.b64encode(b"\x01\x02\x03").decode()


def tokenizer_json(**model: Any) -> dict[str, Any]:
    vocab = [["<s>", 0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["a", -1.5], ["[A]", -2.0], ["<mask>", 0.0]]
    return {
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, **model},
        "added_tokens": [{"id": 5, "content": "[A]"}, {"id": 9, "content": "[B]"}],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": CHARSMAP},
    }


def read(folder: Path, reader: Reader = xlm_roberta, **config: Any) -> dict[str, Any]:
    return {key: value.data for key, value in read_vocabulary(LocalFolder(folder), config, reader).items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An XLM-RoBERTa folder with tokenizer.json alone."""
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "XLMRobertaTokenizer"}))
    return tmp_path


def test_tokens_of_tokenizer_json(folder: Path) -> None:
    found = read(folder, vocab_size=9)
    assert found[TOKENS] == (b"<s>", b"<pad>", b"</s>", b"<unk>", b"a", b"[A]", b"<mask>", b"[PAD7]", b"[PAD8]")
    assert found[SCORES] == (0.0, 0.0, 0.0, 0.0, -1.5, -2.0, 0.0, -10000.0, -10000.0)
    assert found[TYPES] == (3, 3, 3, 2, 1, 1, 3, 5, 5)
    assert found["tokenizer.ggml.precompiled_charsmap"] == (1, 2, 3)
    assert found["tokenizer.ggml.token_type_count"] == 1


def test_the_vocabulary_is_never_smaller_than_the_tokenizer(folder: Path) -> None:
    assert len(read(folder, vocab_size=2)[TOKENS]) == 7


def test_the_unknown_token_that_the_settings_name(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda config: config.update(unk_token="[A]"))
    assert read(folder)[TYPES] == (3, 3, 3, 1, 1, 2, 3)


def test_a_charsmap_in_a_sequence() -> None:
    steps = [{"type": "Replace"}, {"type": "Precompiled", "precompiled_charsmap": CHARSMAP}]
    assert _charsmap({"type": "Sequence", "normalizers": steps}, Place("tokenizer.json")) == b"\x01\x02\x03"


@pytest.mark.parametrize(
    ("normalizer", "told"),
    [
        (5, "must be an object"),
        ({"type": "NFKC"}, "no precompiled character map"),
        ({"type": "Sequence"}, "must be a list"),
        ({"type": "Sequence", "normalizers": [5]}, "must be an object"),
        ({"type": "Precompiled"}, "must be a string"),
        ({"type": "Precompiled", "precompiled_charsmap": "A=A"}, "not base64"),
        ({"type": "Precompiled", "precompiled_charsmap": "é"}, "not base64"),
    ],
)
def test_a_normalizer_without_a_charsmap(folder: Path, normalizer: object, told: str) -> None:
    edit(folder / "tokenizer.json", lambda tokenizer: tokenizer.update(normalizer=normalizer))
    with pytest.raises(InputError, match=told):
        read(folder)


@pytest.mark.parametrize(
    "model",
    [
        {"vocab": {}},
        {"vocab": []},
        {"vocab": [["a"]]},
        {"vocab": [[1, 1.0]]},
        {"vocab": [["a", "1"]]},
        {"vocab": [["a", True]]},
        {"vocab": [["a", 1e39]]},
        {"vocab": [["a", float("nan")]]},
        {"vocab": [["\ud800", 1.0]]},
        {"unk_id": -1},
        {"unk_id": "3"},
    ],
)
def test_a_broken_unigram_model(folder: Path, model: dict[str, Any]) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(**model)))
    with pytest.raises(InputError, match=r"tokenizer\.json: model\."):
        read(folder)


def test_another_kind_of_tokenizer_json_is_none(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(type="BPE")))
    assert xlm_roberta(TokenizerSource(TokenizerFiles(LocalFolder(folder)), {})) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["vocab", "unk_id", "id"]), inner),
    )
)
def test_no_vocab_gets_past_the_checks(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    folder = tmp_path_factory.mktemp("hf")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(vocab=value, unk_id=value)))
    with pytest.raises(InputError):
        read(folder)


def test_t5_reads_spiece_model(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(trained("unigram", add_dummy_prefix=False, remove_extra_whitespaces=False))
    (tmp_path / "added_tokens.json").write_text('{"<extra>": 9, "late": 10}')
    found = read(tmp_path, t5, vocab_size=10)
    assert found[TOKENS][:3] == (b"<unk>", b"<s>", b"</s>")
    assert (found[TOKENS][9], found[SCORES][9], found[TYPES][9]) == (b"<extra>", -1000.0, 4)
    assert found["tokenizer.ggml.model"] == "t5"
    assert found["tokenizer.ggml.add_space_prefix"] is found["tokenizer.ggml.remove_extra_whitespaces"] is False


def test_t5_refuses_a_vocabulary_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(trained("unigram"))
    with pytest.raises(InputError, match="and the model's vocab_size is 3"):
        read(tmp_path, t5, vocab_size=3)


def test_t5_reads_a_bpe_tokenizer_model_as_any_other(tmp_path: Path) -> None:
    data = trained("bpe")
    (tmp_path / "tokenizer.model").write_bytes(data)
    assert read(tmp_path, t5)["tokenizer.ggml.model"] == "llama"
    (tmp_path / "tokenizer.model").rename(tmp_path / "spiece.model")
    with pytest.raises(InputError, match=r"spiece\.model: the file is a BPE tokenizer"):
        read(tmp_path, t5)


def test_xlm_roberta_realigns_its_sentencepiece_model(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(trained("unigram"))
    plain = read(tmp_path)
    assert plain[TOKENS][:5] == (b"<s>", b"<pad>", b"</s>", b"<unk>", "▁".encode())
    assert plain[TYPES][:5] == (3, 3, 3, 2, 1)
    (tmp_path / "spiece.model").write_bytes(trained("unigram"))
    assert plain[TOKENS][4:] == read(tmp_path, t5)[TOKENS][3:-1]


def test_nomic_has_a_mask_far_behind(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(trained("unigram"))
    found = read(tmp_path, nomic_bert_moe, vocab_size=250048)
    assert (found[TOKENS][250001], found[SCORES][250001], found[TYPES][250001]) == (b"<mask>", 0.0, 3)
    with pytest.raises(InputError, match="and <mask> is token 250001"):
        read(tmp_path, nomic_bert_moe, vocab_size=100)
