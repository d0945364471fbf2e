"""Keys that have an item for each layer, or count layers, follow --prune-layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import tiny_llama
from command_line import Forge
from small_models import header, model

from gguf_forge import convert
from gguf_forge.gguf_file.opened import open_gguf
from gguf_forge.gguf_file.values import Metadata, ValueType, array, u32
from gguf_forge.recipe import FileType, Options, make_recipe, quantized_metadata


def keys_of(file: Path) -> dict[str, Any]:
    with open_gguf(file) as gguf:
        return dict(gguf.metadata)


def test_lists_lose_the_items_of_pruned_layers(made: Callable[..., Path], forge: Forge) -> None:
    assert forge("quantize", made() / "per-layer.gguf", "pruned.gguf", "Q8_0", "--prune-layers", "2").code == 0
    keys = keys_of(Path("pruned.gguf"))
    assert keys["llama.block_count"] == 3
    assert list(keys["llama.feed_forward_length"]) == [256, 256, 256]
    assert list(keys["llama.attention.head_count_kv"]) == [2, 2, 2]


def test_layers_that_predict_further_tokens(made: Callable[..., Path], forge: Forge) -> None:
    run = forge("quantize", made() / "nextn.gguf", "pruned.gguf", "Q8_0", "--prune-layers", "2", "--json")
    assert keys_of(Path("pruned.gguf"))["llama.nextn_predict_layers"] == 0
    (warning,) = run.json["files"][0]["warnings"]
    assert warning == "--prune-layers leaves out layers that predict further tokens: 2"


def test_as_reference_changes_the_number_of_layers_alone(made: Callable[..., Path], forge: Forge) -> None:
    run = forge(
        *(
            "quantize",
            made() / "per-layer.gguf",
            "pruned.gguf",
            "Q8_0",
            "--prune-layers",
            "2",
            "--as-reference",
            "--json",
        )
    )
    assert len(keys_of(Path("pruned.gguf"))["llama.feed_forward_length"]) == 4
    (warning,) = run.json["files"][0]["warnings"]
    assert "does not change llama.feed_forward_length, llama.attention.head_count_kv" in warning


def after(pruned: tuple[int, ...], architecture: str = "llama", layers: int = 4, **more: Any) -> Metadata:
    metadata = header(layers, architecture)
    for key, value in more.items():
        name = key.replace("__", ".")
        made = array(ValueType.UINT32, value) if isinstance(value, list) else u32(value)
        metadata[name if key.startswith("xielu") else f"{architecture}.{name}"] = made
    return quantized_metadata(model(layers), metadata, Options(FileType.named("Q8_0"), prune_layers=pruned))


@pytest.mark.parametrize(
    ("key", "before", "wanted"),
    [
        ("expert_feed_forward_length", [1, 2, 3, 4], (1, 4)),  # any list of as many items as there are layers
        ("xielu__alpha_p", [1, 2, 3, 4], (1, 4)),
        ("rope__dimension_sections", [1, 2, 3, 4], (1, 2, 3, 4)),  # always four items
        ("classifier__output_labels", [1, 2, 3, 4], (1, 2, 3, 4)),
        ("some_list", [1, 2, 3], (1, 2, 3)),
        ("leading_dense_block_count", 2, 1),
        ("leading_dense_block_count", 1, 1),
        ("hash_layer_count", 3, 1),
        ("decoder_block_count", 4, 2),
        ("nextn_predict_layers", 1, 1),
        ("nextn_predict_layers", 2, 1),
        ("attention__shared_kv_layers", 3, 1),
    ],
)
def test_each_kind_of_key(key: str, before: Any, wanted: Any) -> None:
    name = key.replace("__", ".")
    found = after((1, 2), **{key: before})[name if key.startswith("xielu") else f"llama.{name}"]
    assert found.data == wanted


def test_a_list_of_the_layers_that_do_not_predict() -> None:
    keys = after((1,), nextn_predict_layers=1, feed_forward_length=[5, 6, 7])
    assert keys["llama.feed_forward_length"].data == (5, 7)


def test_patterns_by_number_are_named() -> None:
    metadata = {**header(4), "llama.attention.sliding_window_pattern": u32(2)}
    recipe = make_recipe(model(4), metadata, Options(FileType.named("Q8_0"), prune_layers=(1,)))
    (warning,) = recipe.warnings
    assert warning.endswith("go by the layers' numbers may be wrong: llama.attention.sliding_window_pattern")


def test_convert_prunes_in_the_same_way(tmp_path: Path) -> None:
    (made,) = convert(tiny_llama(tmp_path), tmp_path / "out.gguf", types="Q8_0", prune_layers="0")
    assert keys_of(made.path)["llama.block_count"] == 1
