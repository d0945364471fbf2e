from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import tiny_llama
from imatrices import write_for_model

import gguf_forge
from gguf_forge.planning.notebook import size_text


def test_what_a_notebook_prints_is_short(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    planned = gguf_forge.plan(model, tmp_path, types=["Q8_0", "Q4_K_M"])
    written = gguf_forge.convert(model, tmp_path, types=["Q8_0", "Q4_K_M"])
    assert repr(planned[1]).startswith(f"<FilePlan {planned[1].path}, type Q4_K_M, size 787 kB, ")
    assert all(len(repr(file)) < 400 for file in (*planned, *written))
    edited = gguf_forge.edit_gguf(written[0].path, set={"general.name": "Other"})
    assert "general.name" in repr(edited) and len(repr(edited)) < 400
    with gguf_forge.open_gguf(written[0].path) as gguf:
        assert repr(gguf) == f"<GgufFile {written[0].path}: {len(gguf.metadata)} keys, 21 tensors>"
        assert gguf["output_norm.weight"].shape == (256,)
        assert gguf["blk.0.ffn_up.weight"].values().shape == (256, 256)
        with pytest.raises(KeyError, match="nothing"):
            gguf["nothing"]


def test_what_was_found_of_a_file_prints_as_one_line(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path)
    file = gguf_forge.convert(model, tmp_path / "m.gguf", types="Q8_0")[0].path
    other = gguf_forge.convert(model, tmp_path / "n.gguf", types="Q4_0")[0].path
    job = gguf_forge.plan_work(
        gguf_forge.Request(source=model, out=tmp_path / "j.gguf"), tmp_path / "plan.json", tasks=3
    )
    with gguf_forge.open_gguf(file) as gguf:
        assert repr(gguf["token_embd.weight"]) == "<GgufTensor token_embd.weight: Q8_0, 256 x 831>"
    shown = [
        (gguf_forge.inspect_gguf(file), f"<Overview {file}: "),
        (gguf_forge.inspect_tensor(file, "token_embd.weight"), "<TensorView token_embd.weight: Q8_0, 256 x 831, -"),
        (gguf_forge.verify_gguf(file), f"<Verification {file}: ok, not compared with a source, 21 tensors>"),
        (gguf_forge.verify_gguf(file, model), f"<Verification {file}: ok, identical, 21 tensors>"),
        (gguf_forge.compare_gguf(file, file), f"<Comparison {file} with {file}: same>"),
        (gguf_forge.compare_gguf(file, other), f"<Comparison {file} with {other}: 16 of 21 tensors and 1 keys differ>"),
        (gguf_forge.report(file, source=model), f"<Report {file}: Q8_0, 21 tensors, error "),
        (
            gguf_forge.read_imatrix(write_for_model(other)),
            f"<ImportanceMatrix {tmp_path / 'imatrix.gguf'}: 15 tensors>",
        ),
        (job, f"<JobPlan {tmp_path / 'j.gguf'}: 3 tasks>"),
    ]
    for found, begin in shown:
        assert repr(found).startswith(begin) and len(repr(found)) < 400


def test_several_files_are_a_table_in_a_notebook(tmp_path: Path) -> None:
    shown = gguf_forge.plan(tiny_llama(tmp_path), "<b>-{ftype}.gguf", types=["Q8_0", "Q4_K_M"])._repr_html_()
    assert shown.count("<tr>") == 3 and "<td>Q4_K_M</td>" in shown
    assert "&lt;b&gt;" in shown and "<b>" not in shown


def test_a_bar_that_is_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gguf_forge.convert(tiny_llama(tmp_path), tmp_path, types="Q8_0", observer=gguf_forge.ProgressBar())
    shown = capfd.readouterr()
    assert "Q8_0" in shown.out + shown.err and "100%" in shown.out + shown.err


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(0, "0 bytes"), (999, "999 bytes"), (999_600, "1 MB"), (10**16, "1e+04 TB")]
)
def test_sizes(n_bytes: int, text: str) -> None:
    assert size_text(n_bytes) == text
