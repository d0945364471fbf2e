from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import NARROW, tiny_llama
from imatrices import write_for_model

from gguf_forge import Request, compare_gguf, convert
from gguf_forge.planning import from_checkpoint
from gguf_forge.recipe import FILE_TYPES
from gguf_forge.recipe.file_types import AUTO, COPY
from gguf_forge.toolbox.choose import choose_type
from gguf_forge.toolbox.choose.choose import PURPOSES, TypeChoice


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


def test_every_type_has_a_purpose() -> None:
    assert PURPOSES.keys() == {name for name, kind in FILE_TYPES.items() if kind not in (AUTO, COPY)}


def test_all_types_are_listed_the_smallest_first(tiny: Path) -> None:
    found = choose_type(Request(source=str(tiny))).choices
    assert {choice.file_type.name for choice in found} == PURPOSES.keys()
    sizes = [choice.file.size for choice in found]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("name", ["Q8_0", "Q4_K_M", "IQ3_S", "Q2_K", "BF16"])
def test_the_sampled_error_is_near_the_real_one(tiny: Path, tmp_path: Path, name: str) -> None:
    (choice,) = choose_type(Request(source=str(tiny), types=(name,))).choices
    assert choice.error is not None
    float_file, written = convert(tiny, tmp_path, types=["F32", name])
    distances = [tensor.distance for tensor in compare_gguf(float_file.path, written.path).tensors]
    known = [distance for distance in distances if distance is not None]
    noise = sum(distance.count * distance.rmse**2 for distance in known)
    power = sum(distance.count * distance.rms**2 for distance in known)
    assert choice.error == pytest.approx((noise / power) ** 0.5, rel=0.1, abs=1e-6)


def test_sizes_are_those_of_the_files(tiny: Path, tmp_path: Path) -> None:
    (choice,) = choose_type(Request(source=str(tiny), types=("Q5_K_M",))).choices
    (written,) = convert(tiny, tmp_path, types="Q5_K_M")
    assert choice.file.size == written.path.stat().st_size


def test_types_that_need_a_matrix_have_no_error_without_one(tiny: Path, tmp_path: Path) -> None:
    request = Request(source=str(tiny), types=("IQ1_S",))
    (without,) = choose_type(request).choices
    assert without.needs_imatrix and without.error is None
    (base,) = convert(tiny, tmp_path, types="auto")
    matrix = write_for_model(base.path)
    (with_one,) = choose_type(Request(source=str(tiny), types=("IQ1_S",), imatrix=str(matrix))).choices
    assert not with_one.needs_imatrix and with_one.error is not None and 0.2 < with_one.error < 0.8


def test_the_best_type_that_fits_is_recommended(tiny: Path) -> None:
    every = {choice.file_type.name: choice for choice in choose_type(Request(source=str(tiny))).choices}
    for name in ("Q8_0", "Q6_K", "Q4_K_M"):
        found = choose_type(Request(source=str(tiny)), fit=every[name].memory)
        assert found.recommended is not None and found.recommended.file_type.name == name
        assert [choice.file_type.name for choice in found.choices if choice.is_recommended] == [name]


def test_verdicts_do_not_contradict_the_errors(tiny: Path, tmp_path: Path) -> None:
    (base,) = convert(tiny, tmp_path, types="auto")
    for matrix in (None, str(write_for_model(base.path))):
        found = choose_type(Request(source=str(tiny), imatrix=matrix)).choices
        graded = [choice for choice in found if choice.is_for_any_model and choice.error is not None]
        worst = {"good": 0.0, "worse": 0.0, "poor": 0.0, **_ends(graded, max)}
        least = {"good": 1.0, "worse": 1.0, "poor": 1.0, **_ends(graded, min)}
        assert worst["good"] < least["worse"] and worst["worse"] < least["poor"]


def _ends(choices: list[TypeChoice], end: Callable[[list[float]], float]) -> dict[str, float]:
    """The largest or the smallest error of each verdict."""
    found: dict[str, list[float]] = {}
    for choice in choices:
        word = next((word for word in ("worse", "poor") if choice.purpose.startswith(word)), "good")
        found.setdefault(word, []).append(choice.error or 0.0)
    return {word: end(errors) for word, errors in found.items()}


def test_mxfp4_without_experts_is_told(tiny: Path) -> None:
    (choice,) = choose_type(Request(source=str(tiny), types=("MXFP4_MOE",))).choices
    assert choice.purpose == "no experts here: it is Q8_0"


def test_the_context_is_the_model_s_own_if_that_is_shorter(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    config = json.loads((model / "config.json").read_text())
    for own, expected in ((512, 512), (1 << 20, 4096)):
        (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": own}))
        found = choose_type(Request(source=str(model), types=("Q8_0",)))
        assert (found.context, found.longest, found.is_too_long) == (expected, own, False)


def test_memory_has_room_for_everything(tiny: Path) -> None:
    found = choose_type(Request(source=str(tiny), types=("Q8_0",)))
    (choice,) = found.choices
    assert found.buffers > 0 and choice.memory == choice.file.size + found.cache + found.buffers


def test_nothing_is_recommended_where_nothing_fits(tiny: Path) -> None:
    found = choose_type(Request(source=str(tiny)), fit=1000)
    assert found.recommended is None and not any(choice.fits for choice in found.choices)


def test_a_gguf_file_is_a_model_too(tiny: Path, tmp_path: Path) -> None:
    (base,) = convert(tiny, tmp_path, types="auto")
    of_file = choose_type(Request(source=str(base.path), types=("Q4_K_M", "Q6_K")))
    of_folder = choose_type(Request(source=str(tiny), types=("Q4_K_M", "Q6_K")))
    assert [choice.error for choice in of_file.choices] == [choice.error for choice in of_folder.choices]
    assert of_file.cache == of_folder.cache > 0


def test_a_longer_context_takes_more_memory(tiny: Path) -> None:
    short, long = (choose_type(Request(source=str(tiny), types=("Q8_0",)), context=n) for n in (1024, 4096))
    assert long.cache == 4 * short.cache


def test_types_without_blocks_for_the_rows_are_left_out(tmp_path: Path) -> None:
    found = choose_type(Request(source=str(tiny_llama(tmp_path, NARROW)), types=("Q1_0", "Q8_0"))).choices
    assert [choice.file_type.name for choice in found] == ["Q8_0"]


def test_a_model_is_opened_a_few_times_however_many_types_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[object] = []
    plan_model = from_checkpoint.plan_model
    monkeypatch.setattr(from_checkpoint, "plan_model", lambda *a, **k: plans.append(a) or plan_model(*a, **k))
    choose_type(Request(source=str(tiny_llama(tmp_path, NARROW))))
    assert len(plans) <= 3


def test_a_copy_has_words_of_its_own(tiny: Path, tmp_path: Path) -> None:
    (base,) = convert(tiny, tmp_path, types="Q8_0")
    (choice,) = choose_type(Request(source=str(base.path), types=("COPY",))).choices
    assert (choice.purpose, choice.error) == ("as it is", 0.0)
