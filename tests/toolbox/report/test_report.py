"""`report`: its numbers against ones computed apart, its page as XML, and files that mean no good."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from checkpoints import tiny_llama
from gguf import GGUFReader, dequantize
from imatrices import write_for_model
from raw_gguf import STRING, RawTensor, key, raw_gguf, text, u32_key, write
from synthetic import FAMILIES, read_description, write_checkpoint

import gguf_forge
from gguf_forge import InputError, OutputError, RefusedError, convert, report
from gguf_forge.cli import main
from gguf_forge.cli.demo_checkpoint import Shape, make_model
from gguf_forge.toolbox.edit.splitting import split_gguf
from gguf_forge.toolbox.report import charts, words
from gguf_forge.toolbox.report.data import Report, as_object
from gguf_forge.toolbox.report.page import page
from gguf_forge.types.tensor_type import TensorType

CASES = [("llama2-spm", "Q4_K_M"), ("qwen2moe", "Q4_K_M"), ("deepseek2-lite", "Q8_0"), ("gptoss-mxfp4", "auto")]


def made(family: str, kind: str, folder: Path) -> tuple[Path, Path]:
    """The file of a family, and its checkpoint."""
    source = write_checkpoint(FAMILIES / family, folder / "hf")
    pre_tokenizer = read_description(FAMILIES / family).pre_tokenizer
    return convert(source, folder / "m.gguf", types=kind, pre_tokenizer=pre_tokenizer)[0].path, source


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint whose rows every type's blocks divide, `hf`, and its files."""
    folder = tmp_path_factory.mktemp("model")
    make_model(folder / "hf", Shape(n_embd=256, n_ff=512, n_layer=2, n_head=4, n_head_kv=2))
    convert(folder / "hf", folder / "m-{FTYPE}.gguf", types=["Q4_K_M", "Q4_0", "Q8_0", "BF16"])
    return folder


def tree_of(html: str) -> ElementTree.Element:
    """The page as XML: whatever is not closed or not escaped fails here."""
    return ElementTree.fromstring(html.split("<!DOCTYPE html>")[1])


def words_of(tree: ElementTree.Element) -> str:
    return re.sub(r"[ \n]+", " ", "".join(tree.itertext()))


def rows_of_table(tree: ElementTree.Element) -> Iterator[list[str]]:
    for row in tree.findall(".//table[@class='sortable']/tbody/tr"):
        yield ["".join(cell.itertext()).strip() for cell in row]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_the_page_says_what_the_data_says(family: str, kind: str, tmp_path: Path) -> None:
    file, source = made(family, kind, tmp_path)
    found = report(file, tmp_path / "page.html", source=source)
    tree = tree_of((tmp_path / "page.html").read_text())
    assert not found.missing
    rows = list(rows_of_table(tree))
    assert [row[0] for row in rows] == [tensor.name for tensor in found.tensors]
    for row, tensor in zip(rows, found.tensors, strict=True):
        assert tensor.error is not None
        assert row[1].split()[0] == tensor.type
        assert row[3] == words.size(tensor.nbytes)
        assert row[4:6] == [words.percent(tensor.error.relative), words.decibels(tensor.error.snr_db)]
        assert row[8] == (words.percent(tensor.levels.at_ends) if tensor.levels else "—")
    assert found.error is not None
    assert words.percent(found.error.relative) in words_of(tree) or found.error.relative == 0
    assert f"{words.bits(found.model.bits_per_weight)} bits" in words_of(tree)


@pytest.mark.parametrize("source", ["hf", "m-BF16.gguf", None])
@pytest.mark.parametrize("kind", ["Q4_K_M", "Q8_0"])
def test_nothing_is_loaded(kind: str, source: str | None, model: Path, tmp_path: Path) -> None:
    report(model / f"m-{kind}.gguf", tmp_path / "page.html", source=model / source if source else None)
    html = (tmp_path / "page.html").read_text()
    tree = tree_of(html)
    assert "//" not in re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    policy = tree.find(".//meta[@http-equiv='Content-Security-Policy']")
    assert policy is not None
    assert policy.get("content", "").startswith("default-src 'none'; style-src 'sha256-")
    for node in tree.iter():
        assert not {"src", "style", "onclick", "onload", "onerror"} & set(node.keys())
        assert node.tag not in ("link", "img", "iframe", "object", "use", "image")
        assert node.get("href", "#").startswith("#")
    ids = [node.get("id") for node in tree.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    assert {node.get("href", "")[1:] for node in tree.iter("a")} <= set(ids)


def test_errors_are_those_that_others_compute(model: Path) -> None:
    found = report(model / "m-Q4_K_M.gguf", source=model / "m-BF16.gguf")
    ours = {tensor.name: tensor.error for tensor in found.tensors}
    read = {t.name: t for t in GGUFReader(model / "m-Q4_K_M.gguf").tensors}
    whole = noise = 0.0
    for tensor in GGUFReader(model / "m-BF16.gguf").tensors:
        weights = dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
        difference = dequantize(read[tensor.name].data, read[tensor.name].tensor_type).astype(np.float64) - weights
        relative = np.sqrt(np.square(difference).sum() / np.square(weights).sum())
        whole += np.square(weights).sum()
        noise += np.square(difference).sum()
        error = ours[tensor.name]
        assert error is not None
        assert error.relative == pytest.approx(relative, rel=1e-6)
        assert error.largest == pytest.approx(np.abs(difference).max(), rel=1e-6)
        if error.worst:
            block = TensorType.named(read[tensor.name].tensor_type.name).block_elements
            by_block = np.sqrt(np.square(difference).reshape(len(weights), -1, block).mean(axis=2))
            assert by_block[error.worst.row, error.worst.block] == pytest.approx(by_block.max())
    assert found.error is not None
    assert found.error.relative == pytest.approx(np.sqrt(noise / whole), rel=1e-6)
    assert found.error.snr_db == pytest.approx(10 * np.log10(whole / noise), rel=1e-6)


def test_folder_and_file_as_source_agree(model: Path) -> None:
    by_folder = report(model / "m-Q4_0.gguf", source=model / "hf")
    by_file = report(model / "m-Q4_0.gguf", source=model / "m-BF16.gguf")
    assert by_folder.tensors == by_file.tensors
    assert by_folder.blocks == by_file.blocks


def test_lessons_are_true_of_the_weights(model: Path) -> None:
    lessons = report(model / "m-Q4_K_M.gguf", source=model / "hf").lessons
    assert lessons is not None
    assert lessons.symmetry and lessons.block_size and lessons.outlier
    symmetric, asymmetric, *_ = lessons.symmetry.roundings
    assert (symmetric.type, asymmetric.type) == ("Q4_0", "Q4_1")
    assert asymmetric.relative < symmetric.relative
    assert 0.0 in symmetric.levels
    for rounding in lessons.symmetry.roundings:
        assert set(rounding.stored) <= {float(np.float32(level)) for level in rounding.levels}
    errors = [cost.relative for cost in lessons.block_size.costs]
    assert errors == sorted(errors)
    assert lessons.block_size.relative_small < lessons.block_size.relative_large
    assert lessons.outlier.without.relative < lessons.outlier.with_it.relative
    assert abs(lessons.outlier.weights[lessons.outlier.at]) == max(map(abs, lessons.outlier.weights))
    by_type = {one.type: one.relative for one in lessons.alternatives}
    assert by_type["Q2_K"] > by_type["Q3_K"] > by_type["Q4_K"] > by_type["Q5_K"] > by_type["Q6_K"] > by_type["Q8_0"]


def test_types_as_fine_as_the_weights_at_hand_are_no_alternatives(model: Path) -> None:
    lessons = report(model / "m-Q4_K_M.gguf").lessons
    assert lessons is not None
    assert not lessons.of_source
    assert max(one.bits_per_weight for one in lessons.alternatives) < 6.5625


def test_blocks_are_those_of_the_file(model: Path) -> None:
    found = report(model / "m-Q4_K_M.gguf", source=model / "hf")
    read = {t.name: t for t in GGUFReader(model / "m-Q4_K_M.gguf").tensors}
    worst, typical, least = found.blocks
    place = next(tensor.error.worst for tensor in found.tensors if tensor.name == worst.tensor and tensor.error)
    assert place and (worst.row, worst.block) == (place.row, place.block)
    assert worst.relative == pytest.approx(place.relative)
    assert worst.relative and typical.relative and least.relative
    assert worst.relative > typical.relative > least.relative
    for view in found.blocks:
        row = dequantize(read[view.tensor].data, read[view.tensor].tensor_type)[view.row]
        np.testing.assert_array_equal(row.reshape(-1, len(view.stored))[view.block], view.stored)


def test_a_block_has_one_error_wherever_it_is_told(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is the block's RMSE by the RMS of the whole tensor: in the list of tensors, the pictures, and `compare`."""
    found = report(model / "m-Q4_K_M.gguf", source=model / "m-BF16.gguf")
    stored = {t.name: t for t in GGUFReader(model / "m-Q4_K_M.gguf").tensors}
    weights = {t.name: t for t in GGUFReader(model / "m-BF16.gguf").tensors}
    errors = {tensor.name: tensor.error for tensor in found.tensors}
    for view in found.blocks:
        one, other = (dequantize(t.data, t.tensor_type) for t in (weights[view.tensor], stored[view.tensor]))
        rms = np.sqrt(np.square(one, dtype=np.float64).mean())
        noise = np.square(one - other, dtype=np.float64).reshape(len(one), -1, 256).mean(axis=2)
        assert view.relative == pytest.approx(np.sqrt(noise[view.row, view.block]) / rms, rel=1e-6)
        error = errors[view.tensor]
        assert error is not None
        assert error.relative == pytest.approx(np.sqrt(noise.mean()) / rms, rel=1e-6)
    main(["compare", str(model / "m-BF16.gguf"), str(model / "m-Q4_K_M.gguf"), "--json"])
    for each in json.loads(capfd.readouterr().out)["tensors"]:
        error = errors[each["name"]]
        if error and error.worst:
            assert each["distance"]["worst_block"]["relative"] == pytest.approx(error.worst.relative)


def test_an_outlier_has_one_error_in_text_and_picture(model: Path) -> None:
    found = report(model / "m-Q4_K_M.gguf", source=model / "hf")
    lesson = found.lessons.outlier if found.lessons else None
    assert lesson
    said = words_of(tree_of(page(found)))
    for rounding in (lesson.with_it, lesson.without):
        assert said.count(f"{words.percent(rounding.relative)}") >= 2


@pytest.mark.parametrize("kind", ["IQ2_XXS", "IQ1_S", "IQ3_S", "TQ2_0", "MXFP4_MOE"])
def test_the_types_of_the_file_are_in_the_comparison_of_types(kind: str, model: Path, tmp_path: Path) -> None:
    importance = write_for_model(model / "m-BF16.gguf")
    convert(model / "hf", tmp_path / "m.gguf", types=kind, imatrix=importance)
    found = report(tmp_path / "m.gguf", source=model / "hf")
    assert found.lessons
    packed = {tensor.type for tensor in found.tensors if tensor.levels}
    assert packed <= {one.type for one in found.lessons.alternatives}
    drawn = [node for node in tree_of(page(found)).iter("text") if node.get("class") == "label strong"]
    assert packed <= {(node.text or "").removesuffix(" *") for node in drawn}


def test_a_file_of_floats_is_no_mix(model: Path) -> None:
    said = words_of(tree_of(page(report(model / "m-BF16.gguf"))))
    assert "a mix of types" not in said and "for each weight, scales included" not in said
    said = words_of(tree_of(page(report(model / "m-Q4_K_M.gguf"))))
    assert "a mix of types" in said and "for each weight, scales included" in said


def test_what_is_left_out_is_counted(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = report(model / "m-Q4_K_M.gguf")
    monkeypatch.setattr("gguf_forge.toolbox.report.page._MOST_TENSORS", 4)
    monkeypatch.setattr("gguf_forge.toolbox.report.page._MOST_KEYS", 5)
    monkeypatch.setattr("gguf_forge.toolbox.report.page._MOST_LAYERS", 1)
    said = words_of(tree_of(page(found)))
    for what in ("the largest tensors: 4 of 21", f"keys: 5 of {len(found.model.metadata)}", "layers: 1 of 2"):
        assert f"{what} are shown. gguf-forge report FILE --json prints all." in said
    monkeypatch.undo()
    assert "are shown. gguf-forge report" not in words_of(tree_of(page(found)))


def test_layers_are_drawn_in_their_order(tmp_path: Path) -> None:
    """As text is read: from left to right, from top to bottom."""
    make_model(tmp_path / "hf", Shape(n_embd=32, n_ff=32, n_layer=30, n_head=2, n_head_kv=1))
    convert(tmp_path / "hf", tmp_path / "m.gguf", types="Q4_0")
    found = report(tmp_path / "m.gguf")
    colours = {tensor.type: "t4" for tensor in found.tensors}
    tree = ElementTree.fromstring(str(charts.treemap(found.tensors, colours)))
    places: dict[int, tuple[float, float]] = {}
    for cell in tree.iter("rect"):
        layer = found.tensors[int(cell.get("data-of", ""))].layer
        if layer is not None:
            places.setdefault(layer, (float(cell.get("y", "")), float(cell.get("x", ""))))
    assert len(places) == 30
    assert sorted(places, key=lambda layer: places[layer]) == sorted(places)


def test_stand_in_types_are_said_plainly(tmp_path: Path) -> None:
    file, source = made("qwen2moe", "Q4_K_M", tmp_path)
    planned = gguf_forge.plan(
        source, types="Q4_K_M", pre_tokenizer=read_description(FAMILIES / "qwen2moe").pre_tokenizer
    )
    found = report(file)
    assert {tensor.name for tensor in found.fallbacks} == set(planned[0].fallbacks)
    assert found.fallbacks
    said = words_of(tree_of(page(found)))
    assert f"{len(found.fallbacks)} tensors with" in said
    assert "Q5_0 instead of Q4_K: rows of" in said


def test_float_files_have_no_levels(model: Path) -> None:
    found = report(model / "m-BF16.gguf")
    assert not found.blocks
    assert not any(tensor.levels for tensor in found.tensors)
    assert "nothing was put on levels" in words_of(tree_of(page(found)))


def test_equal_files_have_no_error(model: Path) -> None:
    found = report(model / "m-Q8_0.gguf", source=model / "m-Q8_0.gguf")
    assert found.error is not None
    assert found.error.relative == 0
    assert "Every weight equals that of m-Q8_0.gguf" in words_of(tree_of(page(found)))


def test_a_spoilt_scale_is_found(model: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt.gguf"
    data = bytearray((model / "m-Q4_0.gguf").read_bytes())
    with gguf_forge.open_gguf(model / "m-Q4_0.gguf") as gguf:
        tensor = next(tensor for tensor in gguf.tensors if tensor.name == "blk.1.ffn_up.weight")
        data[tensor.offset + 5 * 18 : tensor.offset + 5 * 18 + 2] = struct.pack("<e", float("inf"))
    spoilt.write_bytes(data)
    for source in (None, model / "hf"):
        found = report(spoilt, source=source)
        assert [(problem.tensor, problem.count) for problem in found.problems or ()] == [("blk.1.ffn_up.weight", 1)]
        assert "blk.1.ffn_up.weight: 1 blocks have an infinite" in words_of(tree_of(page(found)))
        json.dumps(as_object(found), allow_nan=False)


def test_another_model_as_source(model: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "hf", Shape(n_embd=128, n_ff=256, n_layer=3, n_head=4, n_head_kv=2))
    with pytest.raises(gguf_forge.UsageError, match="nothing can be compared"):
        report(model / "m-Q4_0.gguf", source=tmp_path / "hf")


def test_weights_of_another_model(model: Path, tmp_path: Path) -> None:
    data = bytearray((model / "m-BF16.gguf").read_bytes())
    with gguf_forge.open_gguf(model / "m-BF16.gguf") as gguf:
        first = gguf.tensors[0].offset
    halves = np.frombuffer(bytes(data[first:]), np.uint16)
    data[first:] = halves[::-1].tobytes()
    (tmp_path / "other.gguf").write_bytes(data)
    found = report(model / "m-Q4_0.gguf", source=tmp_path / "other.gguf")
    assert "other.gguf seems to be another model" in words_of(tree_of(page(found)))


HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "blk.0.\u202etxt.exe",
    "blk.1.\x1b[31m\x07bell",
    "blk.2.]]>&amp;&#60;",
    "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}",
    "blk.99999999999.x",
    "a\nb",
]


def hostile_file(folder: Path) -> Path:
    tensors = [RawTensor(name.encode(), (32, 2), 2, n * 64) for n, name in enumerate(HOSTILE)]
    keys = [
        key(b"general.architecture", STRING, text(b"<b>x</b>")),
        key(b"general.name", STRING, text("</title><script>alert(2)</script>\u202e\x00".encode())),
        key(b"<i>\xe2\x80\xae", STRING, text(b"\xff\xfe</dd>")),
        u32_key(b"general.file_type", 2),
    ]
    return write(folder, raw_gguf(keys, tensors, bytes(64 * len(HOSTILE))))


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    found = report(hostile_file(tmp_path))
    html = page(found)
    tree = tree_of(html)
    assert html.count("<script>") == 1
    assert not [node for node in tree.iter() if node.tag in ("img", "i") and node.get("class") is None]
    assert [row[0] for row in rows_of_table(tree)] == [tensor.name for tensor in found.tensors]
    assert found.tensors[0].name == HOSTILE[0]
    assert "{{ 7 * 7 }}" in html
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", html)
    assert r"blk.0.\u202etxt.exe" in html


def test_names_that_differ_in_unseen_characters_are_told_apart(tmp_path: Path) -> None:
    tensors = [RawTensor(name, (32,), 0, n * 128) for n, name in enumerate((b"a", b"a\xe2\x80\x8b", b"a\x07"))]
    found = report(write(tmp_path, raw_gguf([], tensors, bytes(3 * 128))))
    assert len({tensor.name for tensor in found.tensors}) == 3


@pytest.mark.parametrize(
    "tensors",
    [
        [],
        [RawTensor(b"zeros", (256, 4), 12)],
        [RawTensor(b"one", (1,), 0)],
        [RawTensor(b"row.weight", (4096, 1), 8)],
        [RawTensor(b"whole", (64, 3), 26)],
        [RawTensor(b"doubles", (64, 3), 28)],
        [RawTensor(b"activations", (256, 2), 15)],
        [RawTensor(b"empty", (32, 0), 2)],
        [RawTensor(b"cube", (32, 2, 2, 2), 2)],
    ],
    ids=lambda tensors: tensors[0].name.decode() if tensors else "none",
)
@pytest.mark.parametrize("fill", [0x00, 0x3C, 0xFF])
def test_odd_files_have_a_page(tensors: list[RawTensor], fill: int, tmp_path: Path) -> None:
    path = write(tmp_path, raw_gguf([], tensors, bytes([fill]) * 8192))
    for source in (None, path):
        found = report(path, source=source)
        tree_of(page(found))
        json.dumps(as_object(found), allow_nan=False)


def test_both_byte_orders(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.float32)
    found = {}
    for order in "<>":
        folder = tmp_path / {"<": "little", ">": "big"}[order]
        folder.mkdir()
        raw = raw_gguf([], [RawTensor(b"x.weight", (32, 8), 0)], values.astype(f"{order}f4").tobytes(), order=order)
        found[order] = report(write(folder, raw))
    assert found["<"].portraits == found[">"].portraits


def test_packed_blocks_whose_byte_order_nobody_knows(tmp_path: Path) -> None:
    raw = raw_gguf([], [RawTensor(b"x.weight", (256, 2), 13)], bytes(2 * 176), order=">")
    found = report(write(tmp_path, raw))
    assert found.problems is None
    assert not found.portraits
    assert "x.weight" in words_of(tree_of(page(found)))


def test_the_parts_of_a_split_are_one_model(model: Path, tmp_path: Path) -> None:
    parts = split_gguf(model / "m-Q4_0.gguf", tmp_path / "part", max_tensors=7).file.shards
    found, whole = report(parts[0].path, source=model / "hf"), report(model / "m-Q4_0.gguf", source=model / "hf")
    assert len(found.model.files) == len(parts) > 1
    assert found.tensors == whole.tensors
    tree_of(page(found))


def test_the_command_prints_the_data(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file, out = model / "m-Q4_K_M.gguf", tmp_path / "page.html"
    assert main(["report", str(file), "--source", str(model / "hf"), "-o", str(out), "--json"]) == 0
    printed: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert printed.pop("page") == str(out) and printed.pop("schema") == 1
    found = report(file, source=model / "hf")
    assert printed == json.loads(json.dumps(as_object(found)))
    assert page(found) == out.read_text()
    assert printed["tensors"][0]["error"]["relative"] > 0


def test_the_command_without_options(model: Path, tmp_path: Path, capfd: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(model / "m-Q4_0.gguf")]) == 0
    assert "m-Q4_0.html" in capfd.readouterr().out
    tree_of((tmp_path / "m-Q4_0.html").read_text())
    assert main(["report", str(model / "m-Q4_0.gguf")]) == 8
    assert main(["report", str(model / "m-Q4_0.gguf"), "--overwrite", "--quiet"]) == 0
    assert main(["report", str(model / "m-Q4_0.gguf"), "--json"]) == 0


def test_a_page_replaces_nothing_unasked(model: Path, tmp_path: Path) -> None:
    file = model / "m-Q4_0.gguf"
    before = file.read_bytes()
    with pytest.raises(RefusedError, match="one of the inputs"):
        report(file, file, overwrite=True)
    shard = next((model / "hf").glob("*.safetensors"))
    with pytest.raises(RefusedError, match="one of the inputs"):
        report(file, shard, source=model / "hf", overwrite=True)
    with pytest.raises(OutputError, match="Not a directory"):
        report(file, file / "page.html")
    assert file.read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_a_broken_file_leaves_no_page(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\x03\x00")
    with pytest.raises(InputError):
        report(broken, tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.gguf"]


def test_progress_goes_to_the_end(model: Path) -> None:
    for source, passes in ((None, 1), (model / "hf", 2)):
        told: list[int] = []
        found: Report = report(model / "m-Q4_0.gguf", source=source, progress=told.append)
        assert sum(told) == passes * found.model.tensor_bytes
        assert len(told) > len(found.tensors) // 2


def test_a_tokenizer_is_not_needed(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    file = convert(folder, tmp_path / "m.gguf", types="Q8_0")[0].path
    for path in folder.glob("token*"):
        path.unlink()
    assert report(file, source=folder).error is not None
