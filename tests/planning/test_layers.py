"""Which layers a file is made of: options that not every model has room for."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import FAMILIES, write_checkpoint

from gguf_forge import Request, UsageError
from gguf_forge.planning.making import planned


@pytest.mark.parametrize(("choice", "flag"), [({"mtp": True}, "mtp=True"), ({"no_mtp": True}, "no_mtp=True")])
def test_a_model_without_such_layers_has_no_use_for_the_option(
    choice: dict[str, bool], flag: str, tmp_path: Path
) -> None:
    source = write_checkpoint(FAMILIES / "qwen2", tmp_path / "hf")
    with (
        pytest.raises(UsageError, match=f"{flag}: not for a qwen2 model"),
        planned(Request(source=source, **choice)),
    ):
        pass


def test_the_options_exclude_each_other() -> None:
    assert Request(source="x").choices == frozenset()
    assert Request(source="x", no_mtp=True).choices == {"no_mtp"}
    with pytest.raises(UsageError, match="exclude each other"):
        _ = Request(source="x", mtp=True, no_mtp=True).choices
