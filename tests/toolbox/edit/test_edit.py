"""`edit`: what changes, what stays, and what is refused."""

from __future__ import annotations

import argparse
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import tiny_llama
from command_line import listing
from gguf import GGUFReader
from gguf.scripts import gguf_convert_endian, gguf_new_metadata
from gguf_headers import HEADERS, TEXTS
from hypothesis import given
from hypothesis import strategies as st
from raw_gguf import U32, RawTensor, key, raw_gguf, u32_key, write

from gguf_forge import InputError, OutputError, RefusedError, UsageError, convert, edit_gguf, open_gguf, split_gguf
from gguf_forge.gguf_file.values import Metadata, Value, ValueType, string, u32
from gguf_forge.storage.local import disk
from gguf_forge.toolbox.edit import edit
from gguf_forge.toolbox.edit.edit import Edits, edited

LONG = "a much longer name than there was: " + "x" * 200


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    return convert(tiny_llama(folder), folder / "m.gguf", types="Q4_0")[0].path


@pytest.fixture
def model(_made: Path, tmp_path: Path) -> Path:
    """A GGUF file that a test may change, in a folder of its own."""
    folder = tmp_path / "in"
    folder.mkdir()
    return Path(shutil.copy(_made, folder))


def contents(path: Path) -> tuple[Metadata, dict[str, bytes]]:
    with open_gguf(path) as gguf:
        data = {t.name: t.source.read(t.offset, t.nbytes).tobytes() for t in gguf.tensors}
        return gguf.typed_metadata, data


@pytest.mark.parametrize("name", ["Mine", LONG])
def test_in_place(model: Path, name: str) -> None:
    """Whether the header keeps its length or not."""
    keys, data = contents(model)
    plan = edit_gguf(model, set={"general.name": name}, rename={"general.type": "general.kind"})
    assert (len(plan.header) == plan.old_header) == (name == "Mine")
    assert [(c.renamed_from, c.key, c.old and c.old.data, c.new and c.new.data) for c in plan.changes] == [
        ("general.type", "general.kind", "model", "model"),
        (None, "general.name", "Tiny", name),
    ]
    changed = {"general.type": ("general.kind", keys["general.type"]), "general.name": ("general.name", string(name))}
    expected = dict(changed.get(key, (key, value)) for key, value in keys.items())
    found, found_data = contents(model)
    assert (found, list(found), found_data) == (expected, list(expected), data)
    assert model.stat().st_size == plan.size
    assert listing(model.parent) == ["m.gguf"]


def test_the_same_changes_as_gguf_new_metadata(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Byte for byte."""
    arguments = ["--general-name", "Mine", "--general-description", "Ours", "--pre-tokenizer", "llama-bpe"]
    arguments += ["--remove-metadata", "general.type", "--special-token", "eos", "<unk>"]
    arguments += ["--special-token-by-id", "padding", "5", "--force"]
    theirs = tmp_path / "theirs.gguf"
    monkeypatch.setattr("sys.argv", ["gguf-new-metadata", str(model), str(theirs), *arguments])
    gguf_new_metadata.main()
    ours = tmp_path / "ours.gguf"
    edit_gguf(
        model,
        ours,
        remove=["general.type"],
        pre_tokenizer="llama-bpe",
        special_tokens={"eos": "<unk>"},
        set={"general.name": "Mine", "general.description": "Ours", "tokenizer.ggml.padding_token_id": 5},
    )
    assert ours.read_bytes() == theirs.read_bytes()


def test_new_names_keep_the_place(model: Path) -> None:
    before = list(contents(model)[0])
    plan = edit_gguf(
        model,
        rename={"general.name": "general.title", "general.size_label": "general.name"},
        set={"general.title": "Other"},
    )
    after = list(contents(model)[0])
    names = {"general.name": "general.title", "general.size_label": "general.name"}
    assert after == [names.get(name, name) for name in before]
    assert [(change.renamed_from, change.key) for change in plan.changes] == list(names.items())
    assert contents(model)[0]["general.title"].data == "Other"


def test_what_does_not_change_is_not_written(model: Path, tmp_path: Path) -> None:
    before = model.stat()
    scores = contents(model)[0]["tokenizer.ggml.scores"].data
    plan = edit_gguf(model, set={"general.name": "Tiny", "tokenizer.ggml.scores": tuple(scores)})
    assert (plan.changes, plan.is_needed) == ((), False)
    assert model.stat() == before
    assert edit_gguf(model, tmp_path / "copy.gguf", set={"general.name": "Tiny"}).is_needed
    assert (tmp_path / "copy.gguf").read_bytes() == model.read_bytes()


def test_values_that_differ_in_a_sign_or_a_type(model: Path) -> None:
    edit_gguf(model, set={"x": Value(ValueType.FLOAT32, 0.0)})
    assert edit_gguf(model, set={"x": -0.0}).changes
    assert edit_gguf(model, set={"x": Value(ValueType.FLOAT64, -0.0)}).changes
    assert not edit_gguf(model, set={"x": -0.0}).changes


def test_chat_templates_replace_all_that_were(model: Path) -> None:
    edit_gguf(
        model,
        set={
            "tokenizer.chat_template": "old",
            "tokenizer.chat_template.tool_use": "older",
            "tokenizer.chat_templates": ["tool_use"],
            "last": 1,
        },
    )
    edit_gguf(model, chat_template="{{ new }}")
    keys = contents(model)[0]
    assert [key for key in keys if key.startswith("tokenizer.chat_template")] == ["tokenizer.chat_template"]
    assert keys["tokenizer.chat_template"].data == "{{ new }}"
    assert list(keys)[-2:] == ["tokenizer.chat_template", "last"]
    with pytest.raises(UsageError, match=r"template is empty; remove tokenizer\.chat_template instead"):
        edit_gguf(model, chat_template="")


@pytest.mark.parametrize(
    ("kind", "token", "key", "id"),
    [
        ("eos", "<unk>", "eos", 0),
        ("unk", "</s>", "unknown", 2),
        ("pad", 5, "padding", 5),
        ("separator", 830, "seperator", 830),
        ("fim_pre", "<s>", "fim_pre", 1),
    ],
)
def test_special_tokens(model: Path, kind: str, token: str | int, key: str, id: int) -> None:
    edit_gguf(model, special_tokens={kind: token})
    assert contents(model)[0][f"tokenizer.ggml.{key}_token_id"] == u32(id)


def test_a_token_that_is_there_twice(caplog: pytest.LogCaptureFixture) -> None:
    keys: Metadata = {"tokenizer.ggml.tokens": Value(ValueType.ARRAY, ("a", "b", "b"), ValueType.STRING)}
    assert edited(keys, Edits(special_tokens={"eos": "b"}))["tokenizer.ggml.eos_token_id"] == u32(1)
    assert "tokens 1, 2 are all b" in caplog.text


Doing = Callable[[Path], Any]


@pytest.mark.parametrize(
    ("kind", "arguments", "problem"),
    [
        (UsageError, {"remove": ["general.nam"]}, r"there is no key general\.nam; there is general\.name"),
        (UsageError, {"rename": {"zzz": "x"}}, "there is no key zzz; `gguf-forge inspect` lists the keys"),
        (UsageError, {"rename": {"general.name": "general.type"}}, r"a key general\.type already; remove it first"),
        (UsageError, {"rename": {"general.name": ""}}, "cannot be the name of a key"),
        (UsageError, {"set": {"": 1}}, "cannot be the name of a key"),
        (UsageError, {"set": {"x" * 65536: 1}}, "cannot be the name of a key"),
        (UsageError, {"set": {"a\0b": 1}}, "cannot be the name of a key"),
        (UsageError, {"set": {"\udcff": 1}}, "cannot be the name of a key"),
        (UsageError, {"set": {"llama.context_length": -1}}, "UINT32, which cannot be -1"),
        (UsageError, {"set": {"general.architecture": u32(1)}}, "is STRING to every reader, and not UINT32"),
        (UsageError, {"set": {"general.architecture": ""}}, "cannot be empty"),
        (UsageError, {"set": {"general.file_type": string("Q4_0")}}, "to every reader, and not STRING"),
        (UsageError, {"set": {"tokenizer.ggml.eot_token_id": "2"}}, "to every reader, and not STRING"),
        (UsageError, {"rename": {"general.name": "general.quantization_version"}}, "there is a key"),
        (
            UsageError,
            {"rename": {"general.name": "tokenizer.ggml.eot_token_id"}},
            "to every reader, and not STRING",
        ),
        (UsageError, {"pre_tokenizer": "llama-bep"}, "did you mean llama-bpe"),
        (UsageError, {"special_tokens": {"end": 1}}, "there is no special token end; there are bos, eos"),
        (UsageError, {"special_tokens": {"eos": "<nope>"}}, "the vocabulary has no token <nope>"),
        (UsageError, {"special_tokens": {"eos": 831}}, "831 is not a token; the vocabulary has tokens 0 to 830"),
        (UsageError, {"special_tokens": {"eos": -1}}, "-1 is not a token"),
        (RefusedError, {"remove": ["general.architecture"]}, "cannot be removed"),
        (RefusedError, {"rename": {"general.architecture": "x"}}, "cannot be renamed"),
        (RefusedError, {"set": {"general.alignment": 64}}, "cannot be changed; it says where the tensor data begins"),
        (RefusedError, {"rename": {"general.name": "general.alignment"}}, "cannot be changed"),
        (RefusedError, {"set": {"split.count": 2}}, "use `gguf-forge split` or `merge`"),
    ],
)
def test_nonsense_is_refused(model: Path, kind: type[Exception], arguments: Any, problem: str) -> None:
    before = model.read_bytes()
    with pytest.raises(kind, match=problem):
        edit_gguf(model, **arguments)
    assert model.read_bytes() == before


def test_a_file_without_a_vocabulary(tmp_path: Path) -> None:
    path = write(tmp_path, raw_gguf([u32_key(b"a", 1)], [RawTensor()], bytes(128)))
    with pytest.raises(UsageError, match="the file has no vocabulary"):
        edit_gguf(path, special_tokens={"eos": 0})


def test_warnings(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit_gguf(model, set={"general.architecture": "qwen2", "general.name": u32(1)}, force=True)
    assert "keys that begin with llama. keep their names" in caplog.text
    assert "general.name was STRING and will be UINT32" in caplog.text


def test_another_file(model: Path, tmp_path: Path) -> None:
    before = model.read_bytes()
    out = tmp_path / "out.gguf"
    edit_gguf(model, out, set={"general.name": LONG})
    assert model.read_bytes() == before
    assert contents(out)[1] == contents(model)[1]
    with pytest.raises(RefusedError, match="already exists"):
        edit_gguf(model, out, set={"general.name": "B"})
    edit_gguf(model, out, set={"general.name": "B"}, overwrite=True)
    assert contents(out)[0]["general.name"].data == "B"
    link = tmp_path / "link.gguf"
    link.symlink_to(model)
    with pytest.raises(RefusedError, match="one of the inputs"):
        edit_gguf(model, link, set={"general.name": "B"}, overwrite=True)


def test_links_and_permissions(model: Path, tmp_path: Path) -> None:
    """What else leads to the file keeps what it had, as with hard links of a cache."""
    before = model.read_bytes()
    hard, soft = tmp_path / "hard.gguf", tmp_path / "soft.gguf"
    hard.hardlink_to(model)
    soft.symlink_to(model)
    model.chmod(0o640)
    edit_gguf(soft, set={"general.name": "soft"})
    assert not soft.is_symlink()
    assert model.read_bytes() == before
    edit_gguf(model, set={"general.name": "model"})
    assert hard.read_bytes() == before
    assert stat.S_IMODE(model.stat().st_mode) == stat.S_IMODE(soft.stat().st_mode) == 0o640


def test_the_first_file_of_a_split(model: Path, tmp_path: Path) -> None:
    parts = [shard.path for shard in split_gguf(model, tmp_path / "p", max_tensors=8).file.shards]
    edit_gguf(parts[0], set={"general.name": LONG})
    keys, data = contents(parts[0])
    assert keys["general.name"].data == LONG
    assert data == contents(model)[1]
    with pytest.raises(InputError, match="only the first file of a split has the keys"):
        edit_gguf(parts[1], set={"general.name": "x"})


def test_a_part_of_a_split_keeps_a_name_by_which_readers_find_it(model: Path, tmp_path: Path) -> None:
    first, *others = [shard.path for shard in split_gguf(model, tmp_path / "p", max_tensors=8).file.shards]
    for name in ("out.gguf", f"p-00002-of-0000{len(others) + 1}.gguf", "p-00001-of-00009.gguf"):
        with pytest.raises(UsageError, match=r"one of \d parts of a split|the name of one of"):
            edit_gguf(first, tmp_path / "new" / name, set={"general.name": "x"})
    (tmp_path / "new").mkdir()
    edit_gguf(first, tmp_path / "new" / first.name, set={"general.name": "x"})


@pytest.mark.parametrize("name", ["Mine", LONG])
def test_a_big_endian_file(model: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda question: "YES")

    def turned(path: Path) -> bytes:
        turning = Path(shutil.copy(path, tmp_path / "turning.gguf"))
        gguf_convert_endian.convert_byteorder(GGUFReader(turning, "r+"), argparse.Namespace(order="big", dry_run=False))
        return turning.read_bytes()

    big = tmp_path / "big.gguf"
    big.write_bytes(turned(model))
    for path in (big, model):
        edit_gguf(path, set={"general.name": name})
    assert big.read_bytes() == turned(model)


def test_a_large_alignment(tmp_path: Path) -> None:
    keys = [u32_key(b"general.alignment", 4096), key(b"a", U32, bytes(4))]
    data = bytes(range(128)).ljust(4096, b"\0") + bytes(range(128, 256)).ljust(4096, b"\0")
    path = write(tmp_path, raw_gguf(keys, [RawTensor(b"b"), RawTensor(b"c", offset=4096)], data, alignment=4096))
    before = contents(path)[1]
    plan = edit_gguf(path, set={"b": "x" * 5000})
    assert (plan.old_header, len(plan.header)) == (4096, 8192)
    assert contents(path)[1] == before


def test_what_follows_the_tensors_stays(tmp_path: Path) -> None:
    path = write(tmp_path, raw_gguf([], [RawTensor()], bytes(128) + b"more"))
    edit_gguf(path, set={"a": "x" * 100})
    assert path.read_bytes().endswith(bytes(128) + b"more")


@pytest.mark.parametrize("padding", [0, 32])
def test_a_vocabulary_alone(tmp_path: Path, padding: int) -> None:
    raw = raw_gguf([u32_key(b"a", 1)])
    path = write(tmp_path, raw + bytes(-len(raw) % 32 if padding else 0))
    edit_gguf(path, set={"b": 2})
    assert {name: value.data for name, value in contents(path)[0].items()} == {"a": 1, "b": 2}
    assert (path.stat().st_size % 32 == 0) == bool(padding)


@pytest.mark.parametrize("failing", ["copy_range", "pwrite", "sync", "rename"])
def test_a_disk_that_fails_leaves_the_old_file(model: Path, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model.read_bytes()

    def fail(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, failing, fail)
    if failing == "copy_range":  # the bytes go another way
        edit_gguf(model, set={"general.name": LONG})
        assert contents(model)[0]["general.name"].data == LONG
        return
    with pytest.raises(OutputError, match="No space left"):
        edit_gguf(model, set={"general.name": LONG})
    assert model.read_bytes() == before
    assert listing(model.parent) == ["m.gguf"]


def test_a_file_that_changes_meanwhile(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = edit.published

    def written_to(path: Path, *more: Any, **options: Any) -> Any:
        with path.open("ab") as file:
            file.write(b"x")
        return published(path, *more, **options)

    monkeypatch.setattr(edit, "published", written_to)
    with pytest.raises(InputError, match="changed while it was read"):
        edit_gguf(model, set={"general.name": LONG})
    assert model.read_bytes().endswith(b"x")


@given(HEADERS[0], st.data())
def test_any_edit_of_any_keys(metadata: Metadata, data: st.DataObject) -> None:
    """What is not named stays, in its order."""
    names = [name for name in metadata if "." not in name]
    removed = data.draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    new_names = TEXTS.filter(lambda text: text and "\0" not in text and "." not in text)
    added = data.draw(st.dictionaries(new_names, st.integers(0, 9), max_size=3))
    result = edited(metadata, Edits(remove=removed, set={name: u32(number) for name, number in added.items()}))
    kept = [name for name in metadata if name not in removed]
    assert list(result) == [*kept, *(name for name in added if name not in kept)]
    assert all(result[name] is metadata[name] for name in kept if name not in added)
    assert all(result[name] == u32(number) for name, number in added.items())
