"""Any JSON value under any key that a declaration looks at: a message or a plan, never a traceback."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import projectors
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import FAMILIES, read_description, write_checkpoint

from gguf_forge import plan
from gguf_forge.architectures import families
from gguf_forge.architectures.config import Config
from gguf_forge.checkpoint import Checkpoint
from gguf_forge.errors import ForgeError, InputError
from gguf_forge.planning.model_plan import plan_model

VALUES = st.one_of(
    st.sampled_from([None, True, 0, -1, 1, 7, 2**31, 2**63, 10**400, 0.0, 1.5, -2.0, float("inf"), float("nan")]),
    st.sampled_from(["", "x", "8", [], ["a"], [1], {}, {"a": 1}, {"rope_type": "linear", "factor": "8"}]),
    st.sampled_from(["linear", "yarn", "llama3", "longrope"]).map(lambda kind: {"rope_type": kind}),
)
ROPE = st.dictionaries(
    st.sampled_from(["rope_type", "type", "factor", "low_freq_factor", "high_freq_factor", "rope_theta", "long_factor",
                     "short_factor", "original_max_position_embeddings", "mscale_all_dim", "mrope_section",
                     "sliding_attention", "full_attention", "partial_rotary_factor"]),
    VALUES,
)  # fmt: skip


@pytest.fixture(scope="module", params=["llama3-bpe", "gemma3-text", "phi3-longrope", "deepseek3", "gptoss-mxfp4"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str | None]:
    description = FAMILIES / request.param
    folder = tmp_path_factory.mktemp("config") / "hf"
    return write_checkpoint(description, folder), read_description(description).pre_tokenizer


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_any_value_gives_a_plan_or_a_message(checkpoint: tuple[Path, str | None], data: st.DataObject) -> None:
    folder, pre_tokenizer = checkpoint
    original = (folder / "config.json").read_text()
    config = json.loads(original)
    key = data.draw(
        st.sampled_from([*config, "score_function", "rope_parameters", "text_config", "quantization_config"])
    )
    config[key] = data.draw(st.one_of(VALUES, ROPE) if "rope" in key else VALUES)
    (folder / "config.json").write_text(json.dumps(config))
    try:
        plan_model(Checkpoint.open(folder), pre_tokenizer=pre_tokenizer)
    except ForgeError as error:
        assert str(error)
    finally:
        (folder / "config.json").write_text(original)


ANY_JSON = (None, True, 0, -1, 1.5, float("nan"), 10**30, "x", [], {}, [None, "x"], [[1, 2]], {"a": [1]})
_REMOVED = object()


def _paths(value: object, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """The keys that lead to each value inside of a JSON value. Of a list, the first two values stand for all."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*path, key)
        yield from _paths(each, *path, key)


def _changed(text: str, path: tuple[str | int, ...], value: object) -> str:
    config = node = json.loads(text)
    for key in path[:-1]:
        node = node[key]
    if value is _REMOVED:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return json.dumps(config)


def _written(description: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    if description.suffix == ".json":
        return projectors.write(description, folder / "hf"), projectors.options(description, folder)
    return write_checkpoint(description, folder / "hf"), {"pre_tokenizer": read_description(description).pre_tokenizer}


@pytest.mark.parametrize(
    "description", [*sorted(FAMILIES.iterdir()), *projectors.descriptions()], ids=lambda path: path.stem
)
def test_any_value_in_the_config_of_any_family(description: Path, tmp_path: Path) -> None:
    """A few of its keys and values, which its name decides."""
    source, options = _written(description, tmp_path)
    random = Random(description.stem)
    for name in ("config.json", "preprocessor_config.json"):
        file = source / name
        text = file.read_text() if file.is_file() else "{}"
        for path in random.sample(paths := list(_paths(json.loads(text))), min(len(paths), 6)):
            file.write_text(_changed(text, path, random.choice((*ANY_JSON, _REMOVED))))
            with suppress(ForgeError):
                plan(source, "F32", **options)
        if text != "{}":
            file.write_text(text)


def test_declarations_compute_with_checked_values_only() -> None:
    """A value of a config is an `object`, so mypy refuses to compute with it. `Any` would switch that off."""
    of_fields = re.compile(r"from typing import Any|changes: Any|usual: dict\[str, Any\]")  # of an `Architecture`
    for folder in families.__path__:
        texts = {path.name: of_fields.sub("", path.read_text()) for path in Path(folder).glob("*.py")}
        users = [name for name, text in texts.items() if re.search(r"\bAny\b", text)]
        assert not users


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama3-bpe", {"head_dim": 2**31 - 1}),
        ("llama3-bpe", {"head_dim": None, "hidden_size": 2**31 - 1, "num_attention_heads": 1}),
        ("gemma4", {"global_head_dim": 2**31 - 1}),
    ],
)
def test_a_head_is_no_longer_than_those_of_models(family: str, changes: dict[str, object], tmp_path: Path) -> None:
    """The divisors of its frequencies are made from the config alone, so nothing else bounds their memory."""
    folder = write_checkpoint(FAMILIES / family, tmp_path / "hf", config=changes)
    message = "head_dim is 2147483647|hidden_size is 2147483647, too much for 1 attention heads"
    with pytest.raises(InputError, match=message):
        plan_model(Checkpoint.open(folder), pre_tokenizer=read_description(FAMILIES / family).pre_tokenizer)


def test_the_rotated_share_of_a_head_is_at_most_all_of_it(tmp_path: Path) -> None:
    """The share decides the length of an array, too."""
    rope = {"full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 1e30}}
    folder = write_checkpoint(FAMILIES / "gemma4", tmp_path / "hf", config={"rope_parameters": rope})
    with pytest.raises(InputError, match=r"partial_rotary_factor is 1e\+30, which is more"):
        plan_model(Checkpoint.open(folder), pre_tokenizer=read_description(FAMILIES / "gemma4").pre_tokenizer)


@pytest.mark.parametrize("value", [1e308, 3.5e38, 10**400, 1e-320])
def test_a_factor_of_a_size_is_a_number_of_float32(value: float) -> None:
    """The product of a larger one with a size, or 1 divided by a smaller one, would be infinite and no whole number."""
    with pytest.raises(InputError, match=r"partial_rotary_factor is .*, not a positive number of float32"):
        Config.of({"model_type": "glm4", "partial_rotary_factor": value}).rope_number("partial_rotary_factor")


@pytest.mark.parametrize("form", [None, 4, [[]], {}])
def test_formats_of_groups_may_be_any_json(form: object, tmp_path: Path) -> None:
    """They name the file type that the reference's converter writes, also where no weight is quantized."""
    groups = {"group_0": {"format": form}, "group_1": form}
    said = {"quant_method": "compressed-tensors", "format": "mixed-precision", "config_groups": groups}
    folder = write_checkpoint(FAMILIES / "llama3-bpe", tmp_path / "hf", config={"quantization_config": said})
    pre_tokenizer = read_description(FAMILIES / "llama3-bpe").pre_tokenizer
    plan = plan_model(Checkpoint.open(folder), pre_tokenizer=pre_tokenizer, choices=frozenset({"as_reference"}))
    assert plan.labelled is None
