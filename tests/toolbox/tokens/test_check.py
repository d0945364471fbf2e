from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import TINY, tiny_llama
from synthetic import write_checkpoint

import gguf_forge
from gguf_forge.cli import main
from gguf_forge.errors import InputError, UnsupportedError
from gguf_forge.foreign.limited import LimitError
from gguf_forge.gguf_file.values import Metadata, u32
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.toolbox.tokens import SAMPLE, check_tokens, read_texts
from gguf_forge.toolbox.tokens import check as check_module
from gguf_forge.toolbox.tokens.sample import PLAIN

ROOT = Path(__file__).parents[3]
needs_llama_cpp = pytest.mark.usefixtures("llama_cpp")


@pytest.fixture(scope="module")
def llama_cpp() -> None:
    pytest.importorskip("xllamacpp", reason="there is no xllamacpp for this platform", exc_type=ImportError)


def keys_of(folder: Path, **more: object) -> Metadata:
    (file,) = gguf_forge.plan(folder, types="F16", vocab_only=True, **more)
    return file.metadata


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(ROOT / "tests" / "families" / "qwen3", tmp_path_factory.mktemp("qwen") / "hf")


@needs_llama_cpp
def test_a_right_vocabulary(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path, TINY)
    found = check_tokens(keys_of(folder), LocalFolder(folder))
    assert found.ok and found.n_texts == len(SAMPLE)
    assert found.sentences == (f"all {len(SAMPLE)} texts become the tokens of tokenizer.model",)


@needs_llama_cpp
def test_lost_merges_are_found(qwen: Path) -> None:
    keys = keys_of(qwen, pre_tokenizer="qwen2")
    assert check_tokens(keys, LocalFolder(qwen), PLAIN).ok
    merges = keys["tokenizer.ggml.merges"]
    broken = {**keys, "tokenizer.ggml.merges": type(merges)(merges.type, merges.data[:5], merges.element)}
    found = check_tokens(broken, LocalFolder(qwen), PLAIN)
    assert not found.ok
    first = found.differences[0]
    assert first.expected[: first.at] == first.found[: first.at] and first.expected != first.found
    assert first.expected_piece == keys["tokenizer.ggml.tokens"].data[first.expected[first.at]]
    assert "texts become other tokens" in found.sentences[0] and repr(first.text)[:20] in found.sentences[1]


def test_a_missing_library_is_named(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_library(*arguments: object, **limits: object) -> None:
        raise InputError("No module named 'xllamacpp'")

    monkeypatch.setattr(check_module, "run_limited", without_library)
    with pytest.raises(UnsupportedError, match="needs a library: No module named 'xllamacpp'") as error:
        check_tokens(keys_of(qwen, pre_tokenizer="qwen2"), LocalFolder(qwen))
    assert error.value.hint == "in a checkout of gguf-forge, install the extra for it: pip install '.[tokens]'"


def test_what_cannot_be_compared_is_refused(qwen: Path, tmp_path: Path) -> None:
    keys = keys_of(qwen, pre_tokenizer="qwen2")
    with pytest.raises(UnsupportedError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        check_tokens(keys, LocalFolder(tmp_path))
    with pytest.raises(InputError, match="no vocabulary"):
        check_tokens({}, LocalFolder(qwen))
    without_kind = {key: value for key, value in keys.items() if key != "tokenizer.ggml.model"}
    for damaged in ({**keys, "tokenizer.ggml.tokens": u32(5)}, without_kind, {**keys, "tokenizer.ggml.model": u32(5)}):
        with pytest.raises(InputError, match="the vocabulary is damaged"):
            check_tokens(damaged, LocalFolder(qwen))


@pytest.mark.parametrize("content", [b"{", b"\xff", b'{"model": {"type": "BPE"}}'])
def test_a_tokenizer_that_is_broken_is_an_error(qwen: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match="the tokenizer cannot be loaded"):
        check_tokens(keys_of(qwen, pre_tokenizer="qwen2"), LocalFolder(tmp_path), PLAIN)


def test_texts_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("one\n\ntwo", encoding="utf-8")
    assert read_texts(tmp_path / "texts") == ("one\n", "\n", "two")
    (tmp_path / "texts").write_text("a\u2028b\r\nc\x0cd\n", encoding="utf-8")
    assert read_texts(tmp_path / "texts") == ("a\u2028b\n", "c\x0cd\n")


def test_a_file_of_millions_of_texts_is_refused_by_its_name(tmp_path: Path) -> None:
    """Each line becomes an object, which is far more than its bytes."""
    (tmp_path / "texts").write_bytes(b"\n" * ((1 << 18) + 1))
    with pytest.raises(InputError, match="texts: has more than 262,144 lines"):
        read_texts(tmp_path / "texts")


def test_texts_that_take_too_long_are_told(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_long(*args: object, **named: object) -> None:
        raise LimitError("it takes more than 5 s of processor time")

    monkeypatch.setattr(check_module, "run_limited", too_long)
    keys = keys_of(qwen, pre_tokenizer="qwen2")
    with pytest.raises(InputError, match=r"tokenizer\.json: it takes more.*; if there are many texts, compare fewer"):
        check_tokens(keys, LocalFolder(qwen), PLAIN)


@needs_llama_cpp
def test_the_commands(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, out = tiny_llama(tmp_path, TINY), tmp_path / "m.gguf"
    (tmp_path / "texts").write_text("a word\n")
    more = ("--check-tokens", "--token-texts", str(tmp_path / "texts"))
    assert main(["convert", str(folder), "-o", str(out), "-t", "Q8_0", *more]) == 0
    assert "all 1 texts become the tokens of tokenizer.model" in capfd.readouterr().err
    assert main(["verify", str(out), "--source", str(folder), *more]) == 0
    assert "all 1 texts become the tokens" in capfd.readouterr().out
    with gguf_forge.open_gguf(out) as gguf:
        tokens = list(gguf.metadata["tokenizer.ggml.tokens"])
    at, other = tokens.index("e"), tokens.index("o")
    tokens[at], tokens[other] = tokens[other], tokens[at]
    gguf_forge.edit_gguf(out, set={"tokenizer.ggml.tokens": tokens})
    assert main(["verify", str(out), "--source", str(folder), "--only-tensors", "--check-tokens", "--json"]) == 7
    assert main(["verify", str(out), "--check-tokens"]) == 2
