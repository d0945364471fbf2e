"""GGUF to GGUF, against llama-quantize."""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from checkpoints import tiny_gguf
from corpus import Cases, manifests, read_manifest, short, skip_if_not_reached
from gguf import GGUFReader
from gguf.scripts import gguf_convert_endian
from gguf_mutations import fields_of, mutated
from hypothesis import given
from hypothesis import strategies as st
from imatrices import WITH_IMATRIX
from quantized import arguments_of, digest, digests, make_base, name_of, pinned_runs
from raw_gguf import STRING, RawTensor, key, raw_gguf, text, u32_key, write
from synthetic import FAMILIES

from gguf_forge import (
    ForgeError,
    InputError,
    Options,
    RefusedError,
    Split,
    UnsupportedError,
    UsageError,
    open_gguf,
    plan,
    quantize_gguf,
)
from gguf_forge.cli import main
from gguf_forge.planning.file_plan import check_files
from gguf_forge.planning.making import planned
from gguf_forge.recipe import read_imatrix
from gguf_forge.request import Request
from gguf_forge.run_settings import RunSettings
from gguf_forge.types.tensor_type import TENSOR_TYPES


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The file of a family in a float type, made once."""
    return cache(lambda family, base: make_base(family, base, tmp_path_factory.mktemp(f"{family}-{base}")))


@pytest.mark.parametrize("run", pinned_runs(), ids=name_of)
def test_options_give_the_files_of_the_reference(
    run: dict[str, Any], bases: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bases(run["family"], run["base"])
    monkeypatch.chdir(source.parent)
    for number, step in enumerate(run["steps"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert main(["quantize", "--quiet", *arguments_of(step, source, folder / "out.gguf")]) == 0
        source = min(folder.iterdir())
    assert digests(source.parent) == run["files"]


@pytest.mark.parametrize("family", sorted(folder.name for folder in FAMILIES.iterdir()))
def test_two_steps_make_the_file_of_one(
    family: str, bases: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = json.loads((FAMILIES / family / "expected.json").read_text())
    kinds = [kind for kind in expected if kind not in ("auto", "F32", "F16", "BF16")]
    if not kinds:
        pytest.skip("this family has no quantized files")
    sources = json.loads((FAMILIES / family / "checkpoint.json").read_text()).values()
    is_f32 = not any(dtype in ("BF16", "F16") for shard in sources for dtype, shape in shard.values() if len(shape) > 1)
    base = bases(family, "F32" if is_f32 else "auto")
    monkeypatch.chdir(base.parent)
    made = {}
    for ending, options in (("", Options()), (WITH_IMATRIX, Options(imatrix=read_imatrix("imatrix.gguf")))):
        types = [kind.removesuffix(ending) for kind in kinds if kind.endswith(WITH_IMATRIX) == bool(ending)]
        for result in quantize_gguf(base, tmp_path, types=types, options=options, overwrite=True) if types else ():
            made[result.file.file_type.name + ending] = digest(result.path.read_bytes())
    assert made == {kind: [expected[kind]["size"], expected[kind]["sha256"]] for kind in kinds}


MANIFESTS = [path for path in manifests() if read_manifest(path).get("quantize_args")]


@pytest.mark.parametrize("path", MANIFESTS, ids=short)
def test_the_corpus(
    path: Path, cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = read_manifest(path)
    case, arguments = cases.arguments(path, tmp_path, of_base=True)
    monkeypatch.chdir(case)
    base = tmp_path / "base.gguf"
    code = main(["convert", "--quiet", *arguments, "-o", str(base), "-t", manifest["base"]])
    skip_if_not_reached(path, code, capfd.readouterr().err)
    assert code == 0
    *options, kind = manifest["quantize_args"]
    assert main(["quantize", "--quiet", *options, str(base), str(tmp_path / "out.gguf"), kind]) == 0
    data = (tmp_path / "out.gguf").read_bytes()
    assert digest(data) == [manifest["size"], manifest["sha256"]]


@pytest.mark.parametrize("kind", ["F32", "BF16", "Q4_0", "Q8_0", "Q4_K_M"])
def test_big_endian_files(kind: str, bases: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turned by gguf-py, quantized: what the file that was not turned gives."""
    little = tmp_path / "little.gguf"
    quantize_gguf(bases("llama3-bpe", "F32"), little, types=kind, options=Options(pure=True))
    big = tmp_path / "big.gguf"
    big.write_bytes(little.read_bytes())
    monkeypatch.setattr("builtins.input", lambda question: "YES")
    gguf_convert_endian.convert_byteorder(GGUFReader(big, "r+"), argparse.Namespace(order="big", dry_run=False))
    assert big.read_bytes()[4:8] == b"\0\0\0\3"
    options = Options(allow_requantize=True)
    (wanted,) = quantize_gguf(little, tmp_path / "a.gguf", types="Q5_K_M", options=options)
    (made,) = quantize_gguf(big, tmp_path / "b.gguf", types="Q5_K_M", options=options)
    assert made.path.read_bytes() == wanted.path.read_bytes()


def model_file(order: str, type_id: int, data: bytes, shape: tuple[int, ...] = (256, 2)) -> bytes:
    keys = [
        key(b"general.architecture", STRING, text(b"llama", order), order),
        u32_key(b"llama.block_count", 1, order),
    ]
    return raw_gguf(keys, [RawTensor(b"blk.0.ffn_up.weight", shape, type_id)], data, order=order)


def test_big_endian_blocks_of_unclear_order_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, model_file(">", TENSOR_TYPES["Q5_K"].id, bytes(352)))
    with pytest.raises(UnsupportedError, match="Q5_K blocks of big-endian files cannot be read") as caught:
        plan(path, types="Q8_0")
    assert (caught.value.file, caught.value.tensor) == (path, "blk.0.ffn_up.weight")


def test_version_2_becomes_version_3(tmp_path: Path) -> None:
    raw = bytearray(model_file("<", 0, bytes(2048)))
    raw[4] = 2
    quantize_gguf(write(tmp_path, bytes(raw)), tmp_path / "out.gguf", types="Q8_0")
    assert (tmp_path / "out.gguf").read_bytes()[4] == 3


@pytest.mark.parametrize("kind", ["Q8_0", "F16", "COPY"])
def test_empty_tensors_stay_empty(kind: str, tmp_path: Path) -> None:
    for shape in ((0, 2), (256, 0), (0,)):
        path = write(tmp_path, model_file("<", 0, b"", shape))
        quantize_gguf(path, tmp_path / "out.gguf", types=kind, overwrite=True)
        with open_gguf(tmp_path / "out.gguf") as gguf:
            assert gguf.tensors[0].nbytes == 0


@pytest.mark.parametrize("kind", ["I8", "I32", "F64"])
def test_integers_are_copied_and_not_quantized(kind: str, tmp_path: Path) -> None:
    data = bytes(range(127)) * 33
    path = write(tmp_path, model_file("<", TENSOR_TYPES[kind].id, data))
    with pytest.raises(UnsupportedError, match="only F32, F16 and BF16"):
        quantize_gguf(path, tmp_path / "out.gguf", types="Q8_0")
    quantize_gguf(path, tmp_path / "out.gguf", types="COPY")
    with open_gguf(tmp_path / "out.gguf") as gguf:
        assert gguf.tensors[0].data().tobytes() == data[: gguf.tensors[0].nbytes]


def test_quantized_sources_need_consent(bases: Any, tmp_path: Path) -> None:
    quantize_gguf(bases("llama3-bpe", "F32"), tmp_path / "q.gguf", types="Q8_0")
    with pytest.raises(UsageError, match=r"already quantized: .*add allow_requantize=True"):
        quantize_gguf(tmp_path / "q.gguf", tmp_path / "out.gguf", types="Q4_K_M")
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("how", ["same", "link", "hard link", "keep-split"])
def test_the_source_is_never_the_output(how: str, bases: Any, tmp_path: Path) -> None:
    source = tmp_path / "m.gguf"
    source.write_bytes(bases("llama3-bpe", "F32").read_bytes())
    out, split = source, None
    if how == "link":
        out = tmp_path / "link.gguf"
        out.symlink_to(source)
    elif how == "hard link":
        out = tmp_path / "hard.gguf"
        out.hardlink_to(source)
    elif how == "keep-split":
        quantize_gguf(source, source, types="COPY", split=Split(max_tensors=9))
        source = tmp_path / "m-00001-of-00003.gguf"
        split = Split(keep=True)
    before = source.read_bytes()
    with pytest.raises(RefusedError, match="one of the inputs"):
        quantize_gguf(source, out, types="Q8_0", split=split, overwrite=True)
    assert source.read_bytes() == before


def test_alignment_of_the_source_is_kept(tmp_path: Path) -> None:
    keys = [
        key(b"general.architecture", STRING, text(b"llama")),
        u32_key(b"llama.block_count", 1),
        u32_key(b"general.alignment", 128),
    ]
    tensors = [RawTensor(b"blk.0.a.weight", (32,), 0), RawTensor(b"blk.0.b.weight", (32, 3), 0, 128)]
    path = write(tmp_path, raw_gguf(keys, tensors, bytes(512), alignment=128))
    quantize_gguf(path, tmp_path / "out.gguf", types="Q8_0")
    with open_gguf(tmp_path / "out.gguf") as gguf:
        assert [tensor.offset % 128 for tensor in gguf.tensors] == [0, 0]


@pytest.mark.parametrize(
    ("given", "name"),
    [("Q4_K_M", "Q4_K_M"), ("q4_k", "Q4_K"), ("15", "Q4_K"), ("7", "Q8_0"), ("copy", "COPY"), ("0", "F32")],
)
def test_outputs_without_a_name(given: str, name: str, bases: Any, tmp_path: Path) -> None:
    source = tmp_path / "in.gguf"
    source.symlink_to(bases("llama3-bpe", "F32"))
    (beside,) = plan(source, types=given)
    (there,) = plan(source, tmp_path / ".", types=given)
    (templated,) = plan(source, tmp_path / "{ftype}.gguf", types=given)
    assert beside.path == tmp_path / f"ggml-model-{name}.gguf"
    assert there.path == tmp_path / f"in-{name}.gguf"
    assert templated.path.name == f"{beside.file_type.name.lower()}.gguf"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("Qwen3-0.6B-BF16.gguf", "Qwen3-0.6B-Q8_0.gguf"),
        ("Qwen3-0.6B.q4_k_m.gguf", "Qwen3-0.6B-Q8_0.gguf"),
        ("my_model.gguf", "my_model-Q8_0.gguf"),
        ("F32", "F32-Q8_0.gguf"),
    ],
)
def test_a_file_in_a_folder_has_the_name_of_its_source(source: str, name: str, bases: Any, tmp_path: Path) -> None:
    (tmp_path / source).symlink_to(bases("llama3-bpe", "F32"))
    (found,) = plan(tmp_path / source, f"{tmp_path}/to/", types="Q8_0")
    assert found.path == tmp_path / "to" / name


def test_splits_that_make_no_sense() -> None:
    for wrong in ({"max_size": 0}, {"max_tensors": -1}, {"keep": True, "max_size": 5}):
        with pytest.raises(UsageError):
            Split(**wrong)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "metadata lacks general.architecture"),
        ([key(b"general.architecture", STRING, text(b"\xff"))], "metadata lacks general.architecture"),
        ([key(b"general.architecture", STRING, text(b"llama"))], "metadata lacks llama.block_count"),
    ],
)
def test_models_without_the_facts_that_types_need(keys: list[bytes], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, raw_gguf(keys, [RawTensor(b"blk.0.ffn_up.weight", (32, 2))], bytes(256)))
    with pytest.raises(InputError, match=message):
        quantize_gguf(path, tmp_path / "out.gguf", types="Q8_0")


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["Q4_K_M", "Q2_K", "COPY", "F16"]))
def test_damaged_files_are_refused_or_quantized(
    bases: Any, tmp_path_factory: pytest.TempPathFactory, seed: int, kind: str
) -> None:
    source = bases("llama3-bpe", "F32")
    path = tmp_path_factory.mktemp("damaged") / "in.gguf"
    path.write_bytes(mutated(source.read_bytes(), fields_of(source), Random(seed)))
    try:
        with planned(Request(source=str(path), types=(kind,), allow_requantize=True)) as found:
            check_files(found.files, RunSettings())
    except ForgeError:
        pass
    finally:
        path.unlink()


def test_no_more_file_types_are_planned_at_once_than_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GGUF file may have 131,072 tensors, and all its types are some thirty plans of so many."""
    needs: list[int] = []

    def check_memory(need: int, what: str, file: Path) -> None:
        needs.append(need)
        if len(needs) == 4:
            raise InputError(what, file=file)

    monkeypatch.setattr("gguf_forge.planning.file_plan.check_memory", check_memory)
    file = tiny_gguf(tmp_path)
    plan(file, types=("Q8_0",))
    assert needs == []
    with pytest.raises(InputError, match="the plan of another file type than the first 5"):
        plan(file, types=("all",))
    with open_gguf(file) as opened:
        assert min(needs) > 400 * len(opened.tensors)
