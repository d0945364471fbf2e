"""What `dequantize --safetensors` gives is converted to the same file again, or it refuses; there is nothing third."""

from __future__ import annotations

import gc
from pathlib import Path

import projectors
import pytest
from corpus import Cases
from led_back import parts_of_cases
from round_trip import round_trip
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import Request

_ROW = "a row of embeddings, which alone is no tensor of a checkpoint, is left out with a warning"
_BODY = "the file does not tell that its model is one without a head, whose tensors have other names"
# What is neither, and the fact about the file that is why.
_NEITHER = {
    "bitnet": "matrices were rounded to three values times a scale, and rounding again computes another scale",
    "jais": "no float32 number gives the file's when it is multiplied by the config's factor",
    "llava-pixtral--mmproj": _ROW,
    "mistral-native-vl--mmproj--mistral-format": _ROW,
    "mistral4-vl--mmproj": _ROW,
    "pixtral": _ROW,
}
# The same, if config.json is not named.
_BY_FILE_ALONE = {"llama-base": _BODY, "qwen2-base": _BODY, "muse-glimmer-assistant": _BODY}


def _same_or_refused(name: str, request: Request, folder: Path) -> bool:
    """Checks both ways: without config.json, and with it where the file alone is not enough."""
    folder.mkdir()
    alone = round_trip(request, folder / "alone", by_config=False)
    known = alone if alone == "same" else round_trip(request, folder / "known", by_config=True)
    gc.collect()
    fits = [found == "same" or found.startswith("refused: ") for found in (alone, known)]
    return fits == [name not in _NEITHER and name not in _BY_FILE_ALONE, name not in _NEITHER]


@pytest.mark.parametrize("family", sorted(folder.name for folder in FAMILIES.iterdir()))
def test_every_family(family: str, tmp_path: Path) -> None:
    source = write_checkpoint(FAMILIES / family, tmp_path / "hf")
    pre_tokenizer = read_description(FAMILIES / family).pre_tokenizer
    assert _same_or_refused(family, Request(source=str(source), pre_tokenizer=pre_tokenizer), tmp_path / "trip")


@pytest.mark.parametrize("description", projectors.descriptions(), ids=lambda path: path.stem)
def test_every_projector_and_draft(description: Path, tmp_path: Path) -> None:
    source = projectors.write(description, tmp_path / "hf")
    request = Request(source=str(source), **projectors.options(description, tmp_path))
    assert _same_or_refused(description.stem, request, tmp_path / "trip")


def test_every_case(cases: Cases, tmp_path: Path) -> None:
    """All parts of all cases of the conformance corpus."""
    parts = parts_of_cases(cases)
    assert [name for name, request in parts if not _same_or_refused(name, request, tmp_path / name)] == []
