"""Checksums that are at hand: a digest alone, and what llama-gguf-hash prints."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import tiny_gguf
from command_line import Forge

from gguf_forge import InputError, open_gguf, split_gguf

Made = Callable[..., Path]


@pytest.mark.parametrize(("manifest", "matching"), [("bare.sha256", 1), ("sha1.manifest", 21)])
def test_the_sums_are_right(manifest: str, matching: int, made: Made, forge: Forge) -> None:
    folder = made()
    run = forge("verify", folder / "model.gguf", "--check-sums", folder / manifest, "--json")
    assert (run.code, run.json["sums"]["matching"]) == (0, matching)


@pytest.mark.parametrize("manifest", ["bare.sha256", "sha1.manifest"])
def test_the_sums_of_another_file_are_wrong(manifest: str, made: Made, forge: Forge) -> None:
    folder = made()
    text = (folder / manifest).read_text()
    digest = next(word for word in text.split() if len(word) in (40, 64))
    (folder / manifest).write_text(text.replace(digest, digest[::-1]))
    assert forge("verify", folder / "model.gguf", "--check-sums", folder / manifest).code == 7


def test_xxh64_is_not_right(made: Made, forge: Forge) -> None:
    folder = made()
    run = forge("verify", folder / "model.gguf", "--check-sums", folder / "xxh64.manifest")
    assert run.code == InputError.exit_code
    assert "xxh64 is not supported" in run.err
    assert "llama-gguf-hash --sha256" in run.err


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_what_gguf_hash_prints_of_all_its_sums(algorithm: str, tmp_path: Path, forge: Forge) -> None:
    """Lines of sums that are not known stand between those that are."""
    file = tiny_gguf(tmp_path)
    with open_gguf(file) as gguf:
        data = {tensor.name: tensor.data().tobytes() for tensor in gguf.tensors}
    lines = []
    for name, raw in (*data.items(), (None, b"".join(data.values()))):
        where = "tiny.gguf" if name is None else f"tiny.gguf:{name}"
        lines += [
            f"xxh64     0123456789abcdef  {where}",
            f"{algorithm:<8}  {hashlib.new(algorithm, raw).hexdigest()}  {where}",
        ]
    lines.append("uuid      6f2ab3c4-0000-5000-8000-000000000000  tiny.gguf")
    Path("manifest").write_text("\n".join(lines))
    run = forge("verify", file, "--check-sums", "manifest", "--json")
    assert (run.code, run.json["sums"]["matching"]) == (0, len(data) + 1)
    Path("manifest").write_text("\n".join(lines[2:]))
    run = forge("verify", file, "--check-sums", "manifest", "--json")
    assert (run.code, run.json["sums"]["unnamed"]) == (7, [next(iter(data))])


def test_the_list_of_a_split_as_sha256sum_prints_it(tmp_path: Path, forge: Forge) -> None:
    parts = [shard.path for shard in split_gguf(tiny_gguf(tmp_path), tmp_path / "p", max_tensors=4).file.shards]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ./{path.name}\n" for path in parts]
    Path("SHA256SUMS").write_text("".join(lines))
    run = forge("verify", parts[0], "--check-sums", "SHA256SUMS", "--json")
    assert (run.code, run.json["sums"]["matching"]) == (0, len(parts))


def test_the_pointer_of_git_lfs(tmp_path: Path, forge: Forge) -> None:
    file = tiny_gguf(tmp_path)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    Path("pointer").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 7\n")
    assert forge("verify", file, "--check-sums", "pointer").code == 0
