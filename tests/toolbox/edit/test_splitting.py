"""`split` and `merge`, against llama-gguf-split."""

from __future__ import annotations

import argparse
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from checkpoints import tiny_llama
from gguf import GGUFReader
from gguf.scripts import gguf_convert_endian
from quantized import digest, digests, make_base
from raw_gguf import STRING, RawTensor, key, raw_gguf, text, u32_key, write
from splits import run_name, split_runs

from gguf_forge import InputError, OutputError, RefusedError, UnsupportedError, UsageError, convert, open_gguf
from gguf_forge.cli import main
from gguf_forge.planning.splits import Split
from gguf_forge.storage.local import disk, publish
from gguf_forge.storage.local.disk import Name
from gguf_forge.toolbox.edit.splitting import merge_gguf, plan_split, split_gguf


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The file of a family, made once."""
    return cache(lambda family, base: make_base(family, base, tmp_path_factory.mktemp(f"{family}-{base}")))


@pytest.mark.parametrize("run", split_runs(), ids=run_name)
def test_the_files_of_the_reference(run: dict[str, Any], bases: Any, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    source = bases(run["family"], run["base"])
    assert main(["split", "--quiet", *run["options"], str(source), str(parts / "out")]) == 0
    assert digests(parts) == run["parts"]
    assert main(["merge", "--quiet", str(min(parts.iterdir())), str(tmp_path / "merged.gguf")]) == 0
    assert digest((tmp_path / "merged.gguf").read_bytes()) == run["merged"]


@pytest.fixture(scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    return convert(tiny_llama(folder), folder / "m.gguf", types="Q4_0")[0].path


@pytest.fixture
def whole(_whole: Path, tmp_path: Path) -> Path:
    """A file of 21 tensors, in a folder of its own."""
    return Path(shutil.copy(_whole, tmp_path))


@pytest.fixture
def parts(whole: Path) -> list[Path]:
    """Its three parts, beside it."""
    result = split_gguf(whole, whole.with_name("p"), max_tensors=8)
    return [shard.path for shard in result.file.shards]


def test_what_is_merged_is_split_into_the_same_parts(whole: Path, parts: list[Path]) -> None:
    before = [part.read_bytes() for part in parts]
    merged = merge_gguf(parts[0], whole.with_name("merged.gguf")).path
    split_gguf(merged, whole.with_name("p"), max_tensors=8, overwrite=True)
    assert [part.read_bytes() for part in parts] == before


def test_a_split_is_split_anew(whole: Path, parts: list[Path], tmp_path: Path) -> None:
    split_gguf(whole, tmp_path / "a", max_tensors=5)
    split_gguf(parts[0], tmp_path / "b", max_tensors=5)
    for number in range(1, 6):
        name = f"-0000{number}-of-00005.gguf"
        assert (tmp_path / f"a{name}").read_bytes() == (tmp_path / f"b{name}").read_bytes()


def test_one_thread_and_many_make_the_same(whole: Path, tmp_path: Path) -> None:
    for folder, threads in (("one", 1), ("many", 7)):
        (tmp_path / folder).mkdir()
        split_gguf(whole, tmp_path / folder / "p", max_tensors=3, threads=threads)
    assert digests(tmp_path / "one") == digests(tmp_path / "many")


def test_merging_deletes_the_parts_when_it_is_told(whole: Path, parts: list[Path]) -> None:
    merge_gguf(parts[0], whole.with_name("a.gguf"))
    assert all(part.exists() for part in parts)
    merge_gguf(parts[0], whole.with_name("b.gguf"), delete_splits=True)
    assert not any(part.exists() for part in parts)
    assert whole.with_name("a.gguf").read_bytes() == whole.with_name("b.gguf").read_bytes()


def test_parts_that_cannot_be_deleted(whole: Path, parts: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = disk.unlink

    def refuse(name: Name) -> None:
        if name.path in parts:
            raise PermissionError(1, "not allowed")
        unlink(name)

    monkeypatch.setattr(disk, "unlink", refuse)
    with pytest.raises(OutputError, match="is complete, but this part cannot be deleted: not allowed") as caught:
        merge_gguf(parts[0], whole.with_name("b.gguf"), delete_splits=True)
    assert caught.value.file == parts[0]
    assert whole.with_name("b.gguf").exists()


def test_files_in_the_way(whole: Path, parts: list[Path]) -> None:
    before = digests(whole.parent)
    link = whole.with_name("link.gguf")
    link.symlink_to(parts[1])
    with pytest.raises(RefusedError, match="already exists"):
        split_gguf(whole, whole.with_name("p"), max_tensors=8)
    with pytest.raises(RefusedError, match="one of the inputs"):
        merge_gguf(parts[0], link, overwrite=True)
    link.unlink()
    with pytest.raises(RefusedError, match="one of the inputs"):
        split_gguf(parts[0], whole.with_name("p"), max_tensors=8, overwrite=True)
    assert digests(whole.parent) == before


def test_a_full_disk_is_seen_before_anything_is_written(
    whole: Path, parts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(whole.parent)
    room = whole.stat().st_size // 2
    monkeypatch.setattr(publish.shutil, "disk_usage", lambda folder: argparse.Namespace(free=room))
    with pytest.raises(OutputError, match=f"the disk has {room:,} free"):
        split_gguf(whole, whole.with_name("q"), max_tensors=8)  # each part would fit
    with pytest.raises(OutputError, match=f"the disk has {room:,} free"):
        merge_gguf(parts[0], whole.with_name("q.gguf"))
    assert digests(whole.parent) == before


def test_parts_that_do_not_belong_together(whole: Path, parts: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(InputError, match="not the first file of its split"):
        merge_gguf(parts[1], out)
    with pytest.raises(InputError, match=r"split\.count is missing: this is not a part of a split; the file is whole"):
        merge_gguf(whole, out)
    with pytest.raises(InputError, match=r"split\.count is 0: this is not a part"):
        merge_gguf(merge_gguf(parts[0], tmp_path / "merged.gguf").path, out)
    second, third = parts[1].read_bytes(), parts[2].read_bytes()
    parts[1].write_bytes(third)
    with pytest.raises(InputError, match=r"split\.no is 2 where 1 is expected") as caught:
        merge_gguf(parts[0], out)
    assert caught.value.file == parts[1]
    parts[1].write_bytes(second[: len(second) // 2])
    with pytest.raises(InputError, match="cut short"):
        merge_gguf(parts[0], out)
    parts[1].unlink()
    with pytest.raises(InputError, match="2 of 3 parts are here; 00002 is missing") as caught:
        merge_gguf(parts[0], out)
    assert caught.value.file == parts[1]
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"max_tensors": 0}, "room for something"),
        ({"max_size": -1}, "room for something"),
        ({"max_tensors": 2, "max_size": 2}, "both a size and a number"),
        ({"out": "parts/"}, "no beginning of a name"),
        ({"out": ""}, "no beginning of a name"),
    ],
)
def test_requests_that_make_no_sense(whole: Path, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        split_gguf(whole, **{"out": whole.with_name("p"), **arguments})


def test_more_parts_than_can_be_counted(tmp_path: Path) -> None:
    tensors = [RawTensor(b"%d" % number, (1,), offset=32 * number) for number in range(2**16)]
    path = write(tmp_path, raw_gguf((), tensors, bytes(32 * 2**16)))
    with open_gguf(path) as gguf, pytest.raises(UsageError, match="65,536 parts, and GGUF counts to 65,535"):
        plan_split(gguf, "p", Split(max_tensors=1))


def test_one_huge_tensor_has_a_part_of_its_own(whole: Path) -> None:
    result = split_gguf(whole, whole.with_name("q"), max_size=40_000)
    with open_gguf(whole) as gguf:
        largest = max(gguf.tensors, key=lambda tensor: tensor.nbytes).name
    assert [largest] in [[t.info.name for t in shard.layout.tensors] for shard in result.file.shards]


def test_the_byte_order_stays(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Split and merged, a big-endian file is what gguf-py makes of the little-endian file that was."""
    monkeypatch.setattr("builtins.input", lambda question: "YES")

    def turned(path: Path) -> bytes:
        turning = Path(shutil.copy(path, tmp_path / "turning.gguf"))
        gguf_convert_endian.convert_byteorder(GGUFReader(turning, "r+"), argparse.Namespace(order="big", dry_run=False))
        return turning.read_bytes()

    big = tmp_path / "big.gguf"
    big.write_bytes(turned(whole))
    wanted = [shard.path for shard in split_gguf(whole, tmp_path / "little", max_tensors=8).file.shards]
    made = [shard.path for shard in split_gguf(big, tmp_path / "big", max_tensors=8).file.shards]
    assert [path.read_bytes() for path in made] == [turned(path) for path in wanted]
    merged = merge_gguf(made[0], tmp_path / "merged-big.gguf").path
    assert merged.read_bytes() == turned(merge_gguf(wanted[0], tmp_path / "merged.gguf").path)
    made[1].write_bytes(wanted[1].read_bytes())
    with pytest.raises(UnsupportedError, match=r"the byte order is not that of big-00001-of-00003\.gguf") as caught:
        merge_gguf(made[0], tmp_path / "out.gguf")
    assert caught.value.file == made[1]


def test_an_alignment_of_its_own(tmp_path: Path) -> None:
    """llama-gguf-split pads by 32 whatever the file says, and makes what no one can read."""
    keys = [u32_key(b"general.alignment", 64)]
    tensors = [RawTensor(name, (8,), offset=64 * number) for number, name in enumerate((b"a", b"b", b"c"))]
    data = b"".join(bytes([number] * 32 + [0] * 32) for number in (1, 2, 3))
    path = write(tmp_path, raw_gguf(keys, tensors, data, alignment=64))
    first = split_gguf(path, tmp_path / "p", max_tensors=2).path
    merged = merge_gguf(first, tmp_path / "merged.gguf").path
    for made in (first, merged):
        with open_gguf(made) as gguf:
            assert [bytes(t.source.read(t.offset, t.nbytes)) for t in gguf.tensors] == [
                bytes([n] * 32) for n in (1, 2, 3)
            ]


def test_text_ends_at_its_first_nul(tmp_path: Path) -> None:
    path = write(tmp_path, raw_gguf([key(b"a", STRING, text(b"x\0y"))], [RawTensor()], bytes(128)))
    with open_gguf(split_gguf(path, tmp_path / "p").path) as gguf:
        assert gguf.metadata["a"] == "x"


def test_a_vocabulary_alone(tmp_path: Path) -> None:
    path = write(tmp_path, raw_gguf([u32_key(b"a", 1)]))
    first = split_gguf(path, tmp_path / "p", no_tensor_first=True).path
    assert first.name == "p-00001-of-00002.gguf"
    with open_gguf(merge_gguf(first, tmp_path / "merged.gguf").path) as gguf:
        assert not gguf.tensors
        assert gguf.metadata["a"] == 1
