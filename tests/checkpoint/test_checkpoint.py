from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from corpus import Cases, checkpoints
from safetensors import deserialize
from safetensors.numpy import save_file

from gguf_forge.checkpoint import Checkpoint
from gguf_forge.errors import ForgeError, InputError, UnsupportedError, UsageError

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def tensor(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


def write_index(folder: Path, weight_map: object, **metadata: object) -> None:
    index = {"metadata": metadata, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A config alone."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    return path


@pytest.fixture
def sharded(folder: Path) -> Path:
    """Tensors d and b in the first shard, c and a in the second."""
    save_file({"d": tensor(1), "b": tensor(2)}, folder / SHARDS[0])
    save_file({"c": tensor(3), "a": tensor(4)}, folder / SHARDS[1])
    write_index(folder, {"a": SHARDS[1], "b": SHARDS[0], "c": SHARDS[1], "d": SHARDS[0]}, total_size=16)
    return folder


@pytest.mark.parametrize("path", checkpoints(), ids=lambda path: path.parent.name)
def test_checkpoints_are_read_as_the_library_reads_them(path: Path, cases: Cases) -> None:
    with Checkpoint.open(cases.folder_of(path.parent) / path.name) as checkpoint:
        names: list[str] = []
        for file in checkpoint.files:
            held = deserialize(file.path.read_bytes())
            # no file has a place for the scales of a cache, which are left out
            reference = {name: one for name, one in held if not name.endswith((".k_scale", ".v_scale"))}
            names += sorted(reference)
            for name, wanted in reference.items():
                stored = checkpoint.tensors[name]
                assert (stored.dtype, list(stored.shape)) == (wanted["dtype"], wanted["shape"])
                assert stored.array().tobytes() == wanted["data"]
        assert list(checkpoint.tensors) == names


def test_one_file(folder: Path) -> None:
    save_file({"b": tensor(1, 2), "a": tensor(3)}, folder / "model.safetensors")
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.folder.path == folder
        assert checkpoint.config == {"architectures": ["LlamaForCausalLM"]}
        assert list(checkpoint.tensors) == ["a", "b"]
        b = checkpoint.tensors["b"]
        assert (b.name, b.dtype, b.shape, b.nbytes) == ("b", "F32", (2,), 8)
        assert b.source.path == folder / "model.safetensors"
        assert b.array().tolist() == [1, 2]


def test_bf16_comes_as_bf16(folder: Path) -> None:
    values = np.array([[1, -2.5], [0, 3]], ml_dtypes.bfloat16)
    save_file({"a": values}, folder / "model.safetensors")
    with Checkpoint.open(folder) as checkpoint:
        array = checkpoint.tensors["a"].array()
    assert (array.dtype, array.shape) == (values.dtype, (2, 2))
    np.testing.assert_array_equal(array, values)


def test_the_order_is_by_shard_then_by_name(sharded: Path) -> None:
    with Checkpoint.open(sharded) as checkpoint:
        assert list(checkpoint.tensors) == ["b", "d", "a", "c"]
        assert [file.path.name for file in checkpoint.files] == list(SHARDS)


def test_shards_without_an_index(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").unlink()
    with Checkpoint.open(sharded) as checkpoint:
        assert list(checkpoint.tensors) == ["b", "d", "a", "c"]


def test_no_weights_are_needed_for_a_vocabulary(folder: Path) -> None:
    with Checkpoint.open(folder, weights=False) as checkpoint:
        assert (dict(checkpoint.tensors), checkpoint.files) == ({}, ())


def test_what_was_opened_cannot_be_changed(sharded: Path) -> None:
    with Checkpoint.open(sharded) as checkpoint:
        with pytest.raises(TypeError):
            checkpoint.tensors["x"] = checkpoint.tensors["a"]  # type: ignore[index]
        with pytest.raises(TypeError):
            checkpoint.config["x"] = 1  # type: ignore[index]


def refused(folder: Path, kind: type[ForgeError] = InputError) -> str:
    with pytest.raises(kind) as caught:
        Checkpoint.open(folder)
    assert caught.value.hint or kind is InputError
    return str(caught.value)


# -- shards and their index


def test_missing_shard(sharded: Path) -> None:
    (sharded / SHARDS[1]).unlink()
    assert f"1 of 2 files of the model are missing: {SHARDS[1]}" in refused(sharded)


def test_extra_shard(sharded: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file({"a": tensor(9)}, sharded / "model-extra.safetensors")
    with Checkpoint.open(sharded) as checkpoint:
        assert checkpoint.tensors["a"].array() == 4
    assert "model-extra.safetensors" in caplog.text


def test_tensor_in_two_shards(sharded: Path) -> None:
    save_file({"c": tensor(3), "a": tensor(4), "b": tensor(5)}, sharded / SHARDS[1])
    assert f"{SHARDS[1]}: 1 tensors are also in {SHARDS[0]}: b" in refused(sharded)


def test_leftover_single_file_beside_shards(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").unlink()
    save_file({"a": tensor(4)}, sharded / "model.safetensors")
    assert "two copies of the model" in refused(sharded)


def test_tensor_in_the_index_and_in_no_shard(sharded: Path) -> None:
    save_file({"c": tensor(3)}, sharded / SHARDS[1])
    assert "1 of its tensors are in no file: a" in refused(sharded)


def test_tensor_in_a_shard_and_not_in_the_index(sharded: Path) -> None:
    save_file({name: tensor(3) for name in ("a", "c", *"efghijk")}, sharded / SHARDS[1])
    assert "7 tensors of the files are not in it: e, f, g, h, i and 2 more" in refused(sharded)


def test_tensors_in_another_shard_than_the_index_says(sharded: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_index(sharded, dict.fromkeys("abc", SHARDS[1]) | {"d": SHARDS[0]})
    with Checkpoint.open(sharded) as checkpoint:
        assert len(checkpoint.tensors) == 4
    assert "1 tensors are in another file than it says: b" in caplog.text


@pytest.mark.parametrize("total_size", [15, "16", None, -1])
def test_wrong_total_size(sharded: Path, caplog: pytest.LogCaptureFixture, total_size: object) -> None:
    write_index(sharded, dict.fromkeys("ac", SHARDS[1]) | dict.fromkeys("bd", SHARDS[0]), total_size=total_size)
    with Checkpoint.open(sharded) as checkpoint:
        assert len(checkpoint.tensors) == 4
    assert ("16 bytes" in caplog.text) == (total_size is not None)


def test_right_total_size_is_not_mentioned(sharded: Path, caplog: pytest.LogCaptureFixture) -> None:
    Checkpoint.open(sharded).close()
    assert not caplog.records


@pytest.mark.parametrize(
    "name",
    [
        "../x.safetensors",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:x",
        "",
        ".",
        "..",
        "a\0b",
        "\x1b",
        "x" * 256,
        7,
        None,
    ],
)
def test_weight_map_that_leaves_the_folder(sharded: Path, name: object) -> None:
    save_file({"a": tensor(1)}, sharded.parent / "x.safetensors")
    write_index(sharded, {"a": name})
    assert "not the name of a file in the folder" in refused(sharded)


@pytest.mark.parametrize("index", ['{"weight_map": {}}', '{"weight_map": []}', "{}", "[]", "", "{", "null"])
def test_broken_index(sharded: Path, index: str) -> None:
    path = sharded / "model.safetensors.index.json"
    path.write_text(index)
    assert str(path) in refused(sharded)


def test_names_that_differ_in_case_only(sharded: Path) -> None:
    write_index(sharded, {"a": SHARDS[1], "b": SHARDS[1].upper()})
    assert "differ in case only" in refused(sharded)


def test_links_of_a_hub_cache(sharded: Path) -> None:
    snapshot = sharded.parent / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (sharded.parent / "blobs").mkdir()
    for i, path in enumerate(sharded.iterdir()):
        (sharded.parent / "blobs" / str(i)).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", str(i)))
    with Checkpoint.open(snapshot) as checkpoint:
        assert checkpoint.tensors["a"].array() == 4
        assert checkpoint.files[0].path == snapshot / SHARDS[0]


@pytest.mark.parametrize("target", ["nowhere", SHARDS[1]])
def test_broken_links_and_loops(sharded: Path, target: str) -> None:
    (sharded / SHARDS[1]).unlink()
    (sharded / SHARDS[1]).symlink_to(target)
    assert f"missing (broken links): {SHARDS[1]}" in refused(sharded)


@pytest.mark.parametrize("target", ["nowhere", "model.safetensors.index.json", "config.json"])
def test_broken_links_and_loops_without_an_index(folder: Path, target: str) -> None:
    (folder / "model.safetensors").symlink_to("model.safetensors")
    assert "cannot be read" in refused(folder)
    (folder / "model.safetensors.index.json").symlink_to(target)
    assert "model.safetensors.index.json" in refused(folder)


def test_a_broken_shard_is_named_and_the_others_are_closed(sharded: Path) -> None:
    (sharded / SHARDS[1]).write_bytes((sharded / SHARDS[1]).read_bytes()[:-1])
    opened = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else None
    assert f"{SHARDS[1]}: c: " in refused(sharded)
    assert opened in (None, len(list(Path("/proc/self/fd").iterdir())))


# -- folders without safetensors


def test_pickles_are_never_read(folder: Path) -> None:
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"cos\nsystem\n")
    message = refused(folder, UnsupportedError)
    assert "never read" in message
    assert "safetensors" in message


def test_stale_pickles_beside_safetensors(sharded: Path) -> None:
    (sharded / "pytorch_model.bin").write_bytes(b"stale")
    (sharded / "consolidated.safetensors").write_bytes(b"another format")
    with Checkpoint.open(sharded) as checkpoint:
        assert len(checkpoint.tensors) == 4


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("tf_model.h5", UnsupportedError, "another framework"),
        ("consolidated.safetensors", UnsupportedError, "consolidated.safetensors"),
        ("a-Q8_0.gguf", UnsupportedError, "gguf-forge quantize"),
        ("README.md", InputError, "download the weights"),
    ],
)
def test_no_safetensors(folder: Path, name: str, kind: type[ForgeError], message: str) -> None:
    (folder / name).touch()
    assert message in refused(folder, kind)


# -- config.json and the folder


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, "missing"),
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "line 1, column 2"),
        (b'{\n"a": 1,\n}', "line 3"),
        (b"[]", "not a list"),
        (b"null", "not a NoneType"),
        (b'{"a": "\xff"}', "UTF-8 at byte 7"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": %s}' % (b"9" * 5000), "too many digits"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!doctype html>", "web page"),
    ],
)
def test_broken_config(sharded: Path, raw: bytes | None, message: str) -> None:
    path = sharded / "config.json"
    path.unlink()
    if raw is not None:
        path.write_bytes(raw)
    found = refused(sharded)
    assert message in found
    assert str(path) in found


def test_a_config_may_hold_infinity_as_published_ones_do(sharded: Path) -> None:
    (sharded / "config.json").write_text('{"time_step_limit": [0.0, Infinity]}')
    with Checkpoint.open(sharded) as checkpoint:
        assert checkpoint.config["time_step_limit"] == [0.0, float("inf")]


def test_a_config_that_is_a_folder(sharded: Path) -> None:
    (sharded / "config.json").unlink()
    (sharded / "config.json").mkdir()
    assert "this is a folder" in refused(sharded)


def test_a_config_without_end(sharded: Path) -> None:
    (sharded / "config.json").unlink()
    with (sharded / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    assert "larger than" in refused(sharded)


def test_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such folder" in refused(tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    assert "hf download acme/tiny" in refused(Path("acme/tiny"))


@pytest.mark.parametrize(("name", "message"), [("a.gguf", "gguf-forge quantize"), ("a.safetensors", "give the folder")])
def test_a_file_for_a_folder(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).touch()
    assert message in refused(tmp_path / name, UsageError)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "loop"])
def test_folders_that_cannot_be(tmp_path: Path, name: str) -> None:
    if name == "loop":
        (tmp_path / name).symlink_to(name)
    assert "cannot be opened" in refused(tmp_path / name, UsageError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(sharded: Path) -> None:
    (sharded / SHARDS[0]).chmod(0)
    assert "Permission denied" in refused(sharded)


def test_a_module_beside_the_model_comes_first_under_its_prefix(folder: Path) -> None:
    save_file({"model.norm.weight": tensor(1, 2)}, folder / "model.safetensors")
    (folder / "1_Dense").mkdir()
    save_file({"linear.weight": tensor(3, 4, 5)}, folder / "1_Dense" / "model.safetensors")
    with Checkpoint.open(folder) as alone, alone.with_module("1_Dense/model.safetensors", "dense.") as both:
        assert list(both.tensors) == ["dense.linear.weight", "model.norm.weight"]
        assert both.tensors["dense.linear.weight"].shape == (3,)
        assert [file.path.parent.name for file in both.files] == ["model", "1_Dense"]


def test_a_module_that_is_not_there_changes_nothing(folder: Path) -> None:
    save_file({"model.norm.weight": tensor(1, 2)}, folder / "model.safetensors")
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.with_module("1_Dense/model.safetensors", "dense.") is checkpoint


def test_a_module_that_repeats_a_tensor_of_the_model(folder: Path) -> None:
    save_file({"dense.weight": tensor(1, 2)}, folder / "model.safetensors")
    save_file({"weight": tensor(1, 2)}, folder / "module.safetensors")
    with (
        Checkpoint.open(folder) as checkpoint,
        pytest.raises(InputError, match=r"has 1 tensors of this: dense\.weight"),
    ):
        checkpoint.with_module("module.safetensors", "dense.")
