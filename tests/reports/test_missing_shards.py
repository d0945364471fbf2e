"""Some parts of a split are quantized by themselves, and come out as a run with all parts makes them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import TINY, tiny_llama
from command_line import Forge, listing
from synthetic import FAMILIES, write_checkpoint

from gguf_forge import InputError, RefusedError, Split, UsageError, convert, open_gguf

Made = Callable[..., Path]
KEPT = Split(keep=True)


def test_what_is_here_is_made(made: Made, forge: Forge) -> None:
    first = made() / "t-00001-of-00022.gguf"
    run = forge("quantize", first, "out.gguf", "Q8_0", "--keep-split")
    assert run.code == InputError.exit_code
    assert "3 of 22 parts are here; 00002 to 00004, 00006 to 00007, 00009 to 00022 are missing" in run.err
    assert "--partial" in run.err
    run = forge("quantize", first, "out.gguf", "Q8_0", "--keep-split", "--partial")
    assert (run.code, "3 of 22 parts are made" in run.err) == (0, True)
    assert listing(Path()) == [f"out-{number:05}-of-00022.gguf" for number in (1, 5, 8)]
    for path in Path().iterdir():
        assert forge("inspect", path, "--json").json["metadata"]["split.tensors.count"]["value"] == 21
    before = {path: path.stat() for path in Path().iterdir()}
    assert forge("quantize", first, "out.gguf", "Q8_0", "--keep-split", "--partial", "--resume").code == 0
    assert {path: path.stat() for path in Path().iterdir()} == before


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first part of a model of two layers, one tensor in each part but the first."""
    folder = tmp_path_factory.mktemp("split")
    how = Split(max_tensors=1, no_tensor_first=True)
    return convert(tiny_llama(folder, TINY), folder / "m.gguf", types="BF16", split=how)[0].path


def whole_run(first: Path, kind: str, folder: Path, **options: object) -> dict[str, bytes]:
    (made,) = convert(first, folder / "whole" / "o.gguf", types=kind, split=KEPT, **options)  # type: ignore[arg-type]
    return {shard.path.name: shard.path.read_bytes() for shard in made.file.shards}


def some_of(first: Path, folder: Path, numbers: list[int], *, heads: bool = False) -> Path:
    """A folder with some parts of a split; of the others nothing, or the beginnings."""
    folder.mkdir()
    with open_gguf(first) as gguf:
        for number, (path, shard) in enumerate(zip(gguf.paths, gguf.shards, strict=True)):
            if number in numbers:
                shutil.copy(path, folder)
            elif heads and shard:
                (folder / path.name).write_bytes(path.read_bytes()[: shard[0].offset + 5])
    return folder / first.name


def made_of(first: Path, kind: str, **options: object) -> dict[str, bytes]:
    how = Split(keep=True, partial=True)
    (made,) = convert(first, first.parent / "o.gguf", types=kind, split=how, **options)  # type: ignore[arg-type]
    return {shard.path.name: shard.path.read_bytes() for shard in made.file.shards}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    (tmp_path / "whole").mkdir()
    return tmp_path


@pytest.mark.parametrize("kind", ["COPY", "F16", "Q8_0", "Q6_K", "MXFP4_MOE"])
@pytest.mark.parametrize("numbers", [[0], [0, 1, 2], [0, 3, 9, 20]])
def test_the_bytes_are_those_of_the_whole_run(kind: str, numbers: list[int], split: Path, whole: Path) -> None:
    expected = whole_run(split, kind, whole)
    found = made_of(some_of(split, whole / "some", numbers), kind)
    assert len(found) == len(numbers)
    assert found == {name: expected[name] for name in found}


@pytest.mark.parametrize("kind", ["Q4_K_M", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q5_K_M"])
def test_a_mix_that_counts_tensors_needs_to_know_all(kind: str, split: Path, whole: Path) -> None:
    """The beginning of a part, without its data, is enough."""
    expected = whole_run(split, kind, whole)
    with open_gguf(split) as gguf:
        counted = [n for n, shard in enumerate(gguf.shards) if shard and "ffn_down" in shard[0].name]
    with pytest.raises(UsageError, match="its type depends on tensors of the missing parts") as caught:
        made_of(some_of(split, whole / "some", [0, counted[0]]), kind)
    assert caught.value.tensor is not None
    assert "ffn_down" in caught.value.tensor
    found = made_of(some_of(split, whole / "heads", [0, *counted], heads=True), kind)
    assert len(found) == 1 + len(counted)
    assert found == {name: expected[name] for name in found}
    shutil.rmtree(whole / "whole")
    (whole / "whole").mkdir()
    found = made_of(some_of(split, whole / "pure", [0, *counted]), kind, pure=True)
    expected = whole_run(split, kind, whole, pure=True)
    assert found == {name: expected[name] for name in found}


def test_experts_count_by_their_layer(whole: Path) -> None:
    (whole / "in").mkdir()
    model = write_checkpoint(FAMILIES / "mixtral", whole / "hf")
    how = Split(max_tensors=1)
    first = convert(model, whole / "in" / "m.gguf", types="BF16", split=how)[0].path
    with open_gguf(first) as gguf:
        down = [n for n, shard in enumerate(gguf.shards) if "ffn_down" in shard[0].name]
    expected = whole_run(first, "Q4_K_M", whole)
    found = made_of(some_of(first, whole / "some", [0, *down[1:]]), "Q4_K_M")
    assert found == {name: expected[name] for name in found}


def test_an_embedding_that_may_be_the_output(split: Path, whole: Path) -> None:
    with open_gguf(split) as gguf:
        (embedding,) = [n for n, shard in enumerate(gguf.shards) if shard and "token_embd" in shard[0].name]
        (output,) = [n for n, shard in enumerate(gguf.shards) if shard and shard[0].name == "output.weight"]
    with pytest.raises(UsageError, match="token_embd"):
        made_of(some_of(split, whole / "some", [0, embedding]), "Q4_K_M")
    expected = whole_run(split, "Q4_K_M", whole)
    found = made_of(some_of(split, whole / "both", [0, embedding, output]), "Q4_K_M")
    assert found == {name: expected[name] for name in found}


def test_what_makes_no_sense(split: Path, whole: Path, forge: Forge) -> None:
    some = some_of(split, whole / "some", [0, 2])
    run = forge("quantize", some, "o.gguf", "Q8_0", "--partial")
    assert (run.code, "add --keep-split" in run.err) == (UsageError.exit_code, True)
    run = forge("quantize", some, "o.gguf", "Q8_0", "--partial", "--keep-split", "--prune-layers", "1")
    assert (run.code, "--prune-layers" in run.err) == (UsageError.exit_code, True)
    second = some.with_name(some.name.replace("00001-of", "00003-of"))
    run = forge("quantize", second, "o.gguf", "Q8_0", "--partial", "--keep-split")
    assert (run.code, "this is not the first file of its split" in run.err) == (InputError.exit_code, True)
    assert forge("merge", some, "o.gguf", "--partial", "--delete-splits").code == RefusedError.exit_code


def test_merge_and_split_take_what_is_here(split: Path, whole: Path, forge: Forge) -> None:
    some = some_of(split, whole / "some", [0, 2, 3])
    for arguments in (("merge", some, "o.gguf"), ("split", some, "p")):
        run = forge(*arguments)
        assert (run.code, "3 of 22 parts are here" in run.err) == (InputError.exit_code, True)
        run = forge(*arguments, "--partial")
        assert (run.code, "3 of 22 parts are here" in run.err) == (0, True)
    for path in ("o.gguf", "p-00001-of-00001.gguf"):
        with open_gguf(path) as gguf, open_gguf(split) as source:
            data = {tensor.name: tensor.data().tobytes() for tensor in source.tensors}
            assert len(gguf.tensors) == 2
            assert all(tensor.data().tobytes() == data[tensor.name] for tensor in gguf.tensors)
            assert gguf.metadata["general.architecture"] == "llama"
