"""How checkpoint names are rewritten, and the way back."""

from __future__ import annotations

from pathlib import Path

import pytest

from gguf_forge.architectures.appended_layers import MTP_NAMES, is_appended, is_left_out
from gguf_forge.architectures.config import Config
from gguf_forge.architectures.site import Site
from gguf_forge.storage.local.folder import LocalFolder

SITE = Site(Config({"num_hidden_layers": 24}), LocalFolder(Path()), block_count=26)


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("mtp.layers.0.mlp.up_proj.weight", "model.layers.24.mlp.up_proj.weight"),
        ("mtp.layers.1.mlp.up_proj.weight", "model.layers.25.mlp.up_proj.weight"),
        ("mtp.fc.weight", "model.layers.24.eh_proj.weight"),
        ("mtp.norm.weight", "model.layers.24.shared_head.norm.weight"),
        ("model.layers.3.mtp.fc.weight", "model.layers.3.mtp.fc.weight"),
        ("mtp.layers.x.weight", "mtp.layers.x.weight"),
    ],
)
def test_appended_layers_follow_the_models_own(stored: str, name: str) -> None:
    found = stored
    for rename in MTP_NAMES:
        found = rename(found, SITE)
    assert found == name
    for rename in reversed(MTP_NAMES):
        found = rename.undone(found, SITE)
    assert found == stored


def test_which_layers_are_left_out() -> None:
    own, appended = SITE.at(23), SITE.at(24)
    assert (is_appended(own), is_appended(appended)) == (False, True)
    assert not is_left_out(own)
    assert not is_left_out(appended)
    for choice, expected in (("no_mtp", [False, True]), ("mtp_only", [True, False])):
        site = Site(SITE.config, LocalFolder(Path()), block_count=26, choices=frozenset((choice,)))
        assert [is_left_out(site.at(layer)) for layer in (23, 24)] == expected
