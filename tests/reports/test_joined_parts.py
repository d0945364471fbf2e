"""Parts of a split that `cat` has joined, and plain pieces of a file that `cat` would join."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import tiny_llama
from reports import MadeInput

from gguf_forge import InputError, convert, inspect_gguf, merge_gguf, open_gguf, quantize_gguf, split_gguf
from gguf_forge.cli import main


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    (made,) = convert(tiny_llama(tmp_path), tmp_path / "whole.gguf", types="BF16")
    return made.path


def contents(file: Path) -> dict[str, bytes]:
    with open_gguf(file) as gguf:
        return {tensor.name: tensor.data().tobytes() for tensor in gguf.tensors}


def test_joined_parts_are_named_and_merged(made: MadeInput, tmp_path: Path) -> None:
    folder = made()
    with pytest.raises(InputError, match="these are files of a split of 3, one behind the other") as caught:
        open_gguf(folder / "joined.gguf")
    assert f"gguf-forge merge {folder / 'joined.gguf'} OUT.gguf" in str(caught.value.hint)
    merge_gguf(folder / "joined.gguf", tmp_path / "out.gguf")
    merge_gguf(folder / "whole.gguf.part1of2", tmp_path / "whole.gguf")
    assert contents(tmp_path / "out.gguf") == contents(tmp_path / "whole.gguf")


def test_plain_pieces_are_named_and_merged(made: MadeInput, tmp_path: Path) -> None:
    folder = made()
    for name in ("whole.gguf.part1of2", "whole.gguf.part2of2"):
        with pytest.raises(InputError) as caught:
            open_gguf(folder / name)
        assert "`cat whole.gguf.part* > whole.gguf`" in str(caught.value.hint)
        merge_gguf(folder / name, tmp_path / name)
        joined = b"".join((folder / f"whole.gguf.part{number}of2").read_bytes() for number in (1, 2))
        assert (tmp_path / name).read_bytes() == joined


def test_merged_from_joined_parts_it_is_the_file_of_the_parts(whole: Path, tmp_path: Path) -> None:
    written = split_gguf(whole, tmp_path / "part", max_tensors=5)
    parts = [shard.path for shard in written.file.shards]
    (tmp_path / "joined.gguf").write_bytes(b"".join(part.read_bytes() for part in parts))
    from_parts = merge_gguf(parts[0], tmp_path / "a.gguf").path.read_bytes()
    assert merge_gguf(tmp_path / "joined.gguf", tmp_path / "b.gguf").path.read_bytes() == from_parts
    assert main(["merge", str(tmp_path / "joined.gguf"), str(tmp_path / "c.gguf"), "--dry-run"]) == 0


@pytest.mark.parametrize(
    "names",
    [
        ["m.gguf.part1of3", "m.gguf.part2of3", "m.gguf.part3of3"],
        ["m.gguf-split-a", "m.gguf-split-b", "m.gguf-split-c"],
        ["m.gguf.001", "m.gguf.002", "m.gguf.003"],
        ["m.gguf.000", "m.gguf.001", "m.gguf.002"],
        ["m.gguf.part-aa", "m.gguf.part-ab", "m.gguf.part-ac"],
        ["m.gguf.part01", "m.gguf.part02", "m.gguf.part03"],
    ],
    ids=lambda names: names[0],
)
def test_names_of_pieces(whole: Path, tmp_path: Path, names: list[str]) -> None:
    data, pieces = whole.read_bytes(), [tmp_path / name for name in names]
    for number, piece in enumerate(pieces):
        piece.write_bytes(data[number * 700_001 : (number + 1) * 700_001 if number < 2 else None])
    for piece in pieces:
        assert merge_gguf(piece, tmp_path / "out.gguf", overwrite=True).path.read_bytes() == data
    merge_gguf(pieces[0], tmp_path / "out.gguf", overwrite=True, delete_splits=True)
    assert not any(piece.exists() for piece in pieces)


def test_a_missing_piece_is_named(made: MadeInput, tmp_path: Path) -> None:
    folder = made()
    (folder / "whole.gguf.part2of2").unlink()
    with pytest.raises(InputError, match=r"1 of its 2 pieces are missing: whole\.gguf\.part2of2"):
        merge_gguf(folder / "whole.gguf.part1of2", tmp_path / "out.gguf")


def test_pieces_without_a_total_that_end_too_early(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "m.gguf.001").write_bytes(whole.read_bytes()[:1_000_000])
    with pytest.raises(InputError, match=r"ends|lacks") as caught:
        merge_gguf(tmp_path / "m.gguf.001", tmp_path / "out.gguf")
    assert caught.value.hint == "the pieces up to m.gguf.001 were joined: is there a further one?"


def test_joined_parts_of_which_one_is_missing(whole: Path, tmp_path: Path) -> None:
    written = split_gguf(whole, tmp_path / "part", max_tensors=5)
    *parts, _ = [shard.path for shard in written.file.shards]
    (tmp_path / "joined.gguf").write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(InputError, match="GGUF files are here one behind the other") as caught:
        merge_gguf(tmp_path / "joined.gguf", tmp_path / "out.gguf")
    assert caught.value.hint == "get the parts again, and merge those"


def test_other_commands_point_to_merge(made: MadeInput, tmp_path: Path) -> None:
    folder = made()
    for name in ("joined.gguf", "whole.gguf.part1of2"):
        with pytest.raises(InputError) as caught:
            quantize_gguf(folder / name, tmp_path / "q.gguf", types="Q8_0")
        assert "gguf-forge merge" in str(caught.value.hint)
    assert inspect_gguf(folder / "whole.gguf.part1of2").tensors


def test_a_file_that_only_has_the_name_of_a_piece(whole: Path) -> None:
    renamed = whole.rename(whole.with_name("m.gguf.001"))
    with open_gguf(renamed) as gguf:
        assert gguf.tensors
