"""Checksums of files and tensors."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from checkpoints import tiny_llama

from gguf_forge import InputError, RefusedError, convert, edit_gguf, open_gguf, split_gguf, verify_gguf, write_sums
from gguf_forge.toolbox.verify.checksums import SumsCheck, check_sums, own_sums, read_sums


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    return convert(tiny_llama(folder), folder / "m.gguf", types="Q8_0")[0].path


@pytest.fixture
def path(_made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(_made, tmp_path))


def _checked(path: Path, sums: Path | str) -> SumsCheck:
    with open_gguf(path) as gguf:
        return check_sums(gguf, own_sums(gguf, read_sums(sums), sums), threads=2)


def test_the_lines_are_those_of_gguf_hash_and_one_of_sha256sum(path: Path, tmp_path: Path) -> None:
    write_sums(path, tmp_path / "sums")
    lines = (tmp_path / "sums").read_text().splitlines()
    with open_gguf(path) as gguf:
        data = {tensor.name: tensor.data().tobytes() for tensor in gguf.tensors}
    expected = [f"sha256    {hashlib.sha256(raw).hexdigest()}  m.gguf:{name}" for name, raw in data.items()]
    expected.append(f"sha256    {hashlib.sha256(b''.join(data.values())).hexdigest()}  m.gguf")
    expected.append(f"sha256sum  {hashlib.sha256(path.read_bytes()).hexdigest()}  m.gguf")
    assert lines[0].startswith("# sha256sum: the file") and lines[1:] == expected
    (tmp_path / "sums").write_text("\n".join(expected))  # without the comment, as earlier versions wrote it
    assert _checked(path, tmp_path / "sums") == SumsCheck(len(expected), (), (), ())


def test_what_was_written_is_right(path: Path, tmp_path: Path) -> None:
    sums = write_sums(path, tmp_path / "sums", threads=2)
    assert _checked(path, tmp_path / "sums") == SumsCheck(len(sums), (), (), ())
    renamed = path.rename(tmp_path / "other.gguf")
    assert _checked(renamed, tmp_path / "sums") == SumsCheck(len(sums), (), (), (), listed_as="m.gguf")


@pytest.mark.parametrize(
    "line",
    [
        "{0}  m.gguf",
        "{0} *m.gguf",
        "sha256sum  {0}  some/where/m.gguf",
        "xxh64  0123456789abcdef  m.gguf\n{0}  m.gguf",
        "{0}",
        "\n{0}\n\n",
        "sha256:{0}",
        "SHA256 (m.gguf) = {0}",
        "version https://git-lfs.github.com/spec/v1\noid sha256:{0}\nsize 12345",
    ],
)
def test_lines_of_other_programs(line: str, path: Path, tmp_path: Path) -> None:
    (tmp_path / "sums").write_text(line.format(hashlib.sha256(path.read_bytes()).hexdigest().upper()) + "\n")
    assert _checked(path, tmp_path / "sums") == SumsCheck(1, (), (), ())


@pytest.mark.parametrize("form", ["{0}", " {0}\n", "sha256:{0}"])
def test_a_digest_in_place_of_a_list(form: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert _checked(path, form.format(digest.upper())) == SumsCheck(1, (), (), ())
    assert _checked(path, form.format("0" * 64)) == SumsCheck(0, ("m.gguf",), (), ())
    Path("0" * 64).write_text(digest)
    assert _checked(path, "0" * 64).ok  # a file of that name is read


@pytest.mark.parametrize("text", ["0" * 63, "0" * 65, "g" * 64, "0" * 64 + "  m.gguf"])
def test_what_is_no_digest_is_the_name_of_a_list(text: str) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_sums(text)


@pytest.mark.parametrize("algorithm", ["sha1", "md5"])
@pytest.mark.parametrize("line", ["{0}  m.gguf", "{1}sum  {0}  m.gguf", "{0}", "{2} (m.gguf) = {0}"])
def test_other_hash_functions(line: str, algorithm: str, path: Path, tmp_path: Path) -> None:
    digest = hashlib.new(algorithm, path.read_bytes()).hexdigest()
    (tmp_path / "sums").write_text(line.format(digest, algorithm, algorithm.upper()))
    assert _checked(path, tmp_path / "sums") == SumsCheck(1, (), (), ())
    (tmp_path / "sums").write_text(line.format(digest[::-1], algorithm, algorithm.upper()))
    assert _checked(path, tmp_path / "sums").different == ("m.gguf",)


def test_a_digest_alone_is_not_for_one_of_several_files(path: Path, tmp_path: Path) -> None:
    shards = split_gguf(path, tmp_path / "p", max_tensors=8).file.shards
    (tmp_path / "sums").write_text(hashlib.sha256(shards[0].path.read_bytes()).hexdigest())
    with pytest.raises(InputError, match="does not say which of 3 files"):
        _checked(shards[0].path, tmp_path / "sums")


def test_what_changed_is_named(path: Path, tmp_path: Path) -> None:
    write_sums(path, tmp_path / "sums")
    with open_gguf(path) as gguf:
        tensor = gguf.tensors[4]
    raw = bytearray(path.read_bytes())
    raw[tensor.offset + 9] ^= 1
    path.write_bytes(raw)
    found = verify_gguf(path, sums=tmp_path / "sums")
    assert not found.ok and found.sums is not None
    assert found.sums.different == (f"m.gguf:{tensor.name}", "m.gguf (all tensors)", "m.gguf")
    assert found.sums.matching == 20


def test_names_that_are_missing(path: Path, tmp_path: Path) -> None:
    write_sums(path, tmp_path / "sums")
    _, *lines = (tmp_path / "sums").read_text().splitlines()
    (tmp_path / "sums").write_text("\n".join([*lines[1:21], lines[0].replace("output.weight", "gone.weight")]))
    found = _checked(path, tmp_path / "sums")
    assert (found.matching, found.missing, found.unnamed) == (20, ("m.gguf:gone.weight",), ("output.weight",))
    assert not found.ok


def test_sums_of_a_split_file(path: Path, tmp_path: Path) -> None:
    shards = split_gguf(path, tmp_path / "p", max_tensors=8).file.shards
    sums = write_sums(shards[0].path, tmp_path / "sums")
    assert len(sums) == 21 + 2 * 3
    assert _checked(shards[0].path, tmp_path / "sums").ok
    raw = bytearray(shards[1].path.read_bytes())
    raw[-40] ^= 1
    shards[1].path.write_bytes(raw)
    found = _checked(shards[0].path, tmp_path / "sums")
    assert {name.split(":")[0].split(" ")[0] for name in found.different} == {shards[1].path.name}


@pytest.mark.parametrize("form", ["{0}  {1}", "{0} *./{1}", "SHA256 ({1}) = {0}", "sha256sum  {0}  {1}"])
def test_lines_of_other_files_are_left_alone(form: str, path: Path, tmp_path: Path) -> None:
    digests = {"a.gguf": "0" * 64, path.name: hashlib.sha256(path.read_bytes()).hexdigest(), "z.gguf": "1" * 64}
    (tmp_path / "sums").write_text("".join(f"{form.format(digest, name)}\n" for name, digest in digests.items()))
    assert _checked(path, tmp_path / "sums") == SumsCheck(1, (), (), (), others=2)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert _checked(path, tmp_path / "sums") == SumsCheck(0, ("m.gguf",), (), (), others=2)


def _in_two_folders(path: Path, tmp_path: Path) -> tuple[Path, Path, str]:
    """Files of one name with different bytes, in folders a and b, and the digest of the first."""
    for name in "ab":
        (tmp_path / name).mkdir()
        shutil.copy(path, tmp_path / name / "m.gguf")
    first, second = tmp_path / "a" / "m.gguf", tmp_path / "b" / "m.gguf"
    edit_gguf(second, set={"general.name": "Another"})
    return first, second, hashlib.sha256(first.read_bytes()).hexdigest()


@pytest.mark.parametrize("folder", ["{0}/", "./{0}/", "models/{0}/"])
def test_a_name_in_several_folders_is_that_of_the_nearest(folder: str, path: Path, tmp_path: Path) -> None:
    for file in _in_two_folders(path, tmp_path)[:2]:
        lines = [
            f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {folder.format(each.parent.name)}m.gguf\n"
            for each in (tmp_path / "a" / "m.gguf", tmp_path / "b" / "m.gguf")
        ]
        (tmp_path / "sums").write_text("".join(lines))
        assert _checked(file, tmp_path / "sums") == SumsCheck(1, (), (), (), others=1)


def test_a_name_in_several_folders_that_the_path_does_not_tell_apart(path: Path, tmp_path: Path) -> None:
    _, _, digest = _in_two_folders(path, tmp_path)
    (tmp_path / "sums").write_text(f"{digest}  a/m.gguf\n{'0' * 64}  b/m.gguf\n")
    with pytest.raises(InputError, match=r"does not tell which of these m\.gguf is: a/m\.gguf, b/m\.gguf"):
        _checked(path, tmp_path / "sums")
    (tmp_path / "sums").write_text(f"{digest}  a/m.gguf\n{digest}  b/m.gguf\n")
    assert _checked(path, tmp_path / "sums") == SumsCheck(2, (), (), ())


def test_lines_of_a_folder_and_of_the_tensors_belong_together(path: Path, tmp_path: Path) -> None:
    sums = write_sums(path, tmp_path / "sums")
    text = (tmp_path / "sums").read_text()
    (tmp_path / "sums").write_text(f"{text}{hashlib.sha256(path.read_bytes()).hexdigest()}  some/where/m.gguf\n")
    assert _checked(path, tmp_path / "sums") == SumsCheck(len(sums) + 1, (), (), ())


def test_the_sums_of_several_models_in_one_list(path: Path, tmp_path: Path) -> None:
    """Both models have tensors of the same names; the file's name decides."""
    other = convert(tiny_llama(tmp_path / "other"), tmp_path / "other.gguf", types="Q4_0")[0].path
    for each in (path, other):
        write_sums(each, tmp_path / f"{each.name}.sums")
    text = (tmp_path / "m.gguf.sums").read_text() + (tmp_path / "other.gguf.sums").read_text()
    (tmp_path / "sums").write_text(text)
    for each in (path, other):
        found = _checked(each, tmp_path / "sums")
        assert (found.ok, found.matching, found.others) == (True, 23, 23)


def test_a_list_of_a_split_and_of_other_files(path: Path, tmp_path: Path) -> None:
    parts = [shard.path for shard in split_gguf(path, tmp_path / "p", max_tensors=8).file.shards]
    lines = [f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.name}\n" for each in (path, *parts)]
    (tmp_path / "sums").write_text("".join(lines))
    assert _checked(parts[0], tmp_path / "sums") == SumsCheck(3, (), (), (), others=1)
    assert _checked(path, tmp_path / "sums") == SumsCheck(1, (), (), (), others=3)
    (tmp_path / "sums").write_text("".join(lines[:3]))
    assert _checked(parts[0], tmp_path / "sums") == SumsCheck(2, (), (), (parts[2].name,), others=1)


@pytest.mark.parametrize("names", [["a.gguf", "b.gguf"], ["a.gguf"]])
def test_a_list_without_a_line_for_the_file(names: list[str], path: Path, tmp_path: Path) -> None:
    (tmp_path / "sums").write_text("".join(f"{'0' * 64}  {name}\n" for name in names))
    with pytest.raises(InputError, match=r"no checksum in it is for m\.gguf: it names a\.gguf") as caught:
        verify_gguf(path, sums=tmp_path / "sums")
    assert str(tmp_path / "sums") in str(caught.value)


def test_names_with_colons(tmp_path: Path) -> None:
    from raw_gguf import RawTensor, raw_gguf, write

    tensors = [RawTensor(b"a:b", (8,)), RawTensor(b"b", (8,), offset=32)]
    path = write(tmp_path, raw_gguf([], tensors, bytes(64)), "x:a.gguf")
    write_sums(path, tmp_path / "sums")
    assert _checked(path, tmp_path / "sums").ok


@pytest.mark.parametrize("text", ["", "nothing here", "crc32  0123abcd  m.gguf", "sha1  " + "0" * 64 + "  m.gguf"])
def test_a_file_without_sums(text: str, path: Path, tmp_path: Path) -> None:
    (tmp_path / "sums").write_text(text)
    with pytest.raises(InputError, match="--write-sums"):
        read_sums(tmp_path / "sums")


def test_sums_replace_nothing_unasked(path: Path, tmp_path: Path) -> None:
    (tmp_path / "sums").write_text("precious")
    with pytest.raises(RefusedError):
        write_sums(path, tmp_path / "sums")
    assert (tmp_path / "sums").read_text() == "precious"
    write_sums(path, tmp_path / "sums", overwrite=True)
    assert _checked(path, tmp_path / "sums").ok
    with pytest.raises(RefusedError, match="one of the inputs"):
        write_sums(path, path, overwrite=True)


def test_what_many_lines_name_is_hashed_once(path: Path, tmp_path: Path) -> None:
    (tmp_path / "sums").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  m.gguf\n{'0' * 64}\n" * 500)
    hashed: list[int] = []
    with open_gguf(path) as gguf:
        own = own_sums(gguf, read_sums(tmp_path / "sums"), tmp_path / "sums")
        result = check_sums(gguf, own, progress=hashed.append)
    assert result == SumsCheck(500, ("m.gguf",) * 500, (), ())
    assert sum(hashed) == path.stat().st_size


def test_lines_that_no_sums_have_are_passed_over(path: Path, tmp_path: Path) -> None:
    (tmp_path / "sums").write_text(f"{'0' * 64}  {':' * 2000}\n" * 3 + f"{'1' * 64}  x\n")
    assert [line.file for line in read_sums(tmp_path / "sums")] == ["x"]


def test_more_sums_than_any_model_has(tmp_path: Path) -> None:
    (tmp_path / "sums").write_text(f"{'0' * 32}\n" * ((1 << 18) + 1))
    with pytest.raises(InputError, match="more than 262,144 sums"):
        read_sums(tmp_path / "sums")
    (tmp_path / "sums").write_text(f"{'0' * 32}\n" * (1 << 18))
    assert len(read_sums(tmp_path / "sums")) == 1 << 18
