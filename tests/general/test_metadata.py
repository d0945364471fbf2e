from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from corpus import manifests, read_manifest, short, tensor_infos
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.errors import InputError
from gguf_forge.general import ParameterCount, general_metadata, output_name, parameter_count
from gguf_forge.gguf_file.header import encode_header
from gguf_forge.gguf_file.values import Metadata, ValueType
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.wording import AS_WRITTEN

NAMED = json.loads(Path(__file__).with_name("named_models.json").read_text())
LATER_KEYS = {"general.file_type", "general.quantization_version", "general.alignment"}
B = 1_000_000_000


def shown(metadata: Metadata) -> list[tuple[str, str, Any]]:
    """Key, type and value, as a manifest has them."""
    return [
        (
            key,
            value.type.name,
            list(value.data)
            if value.type is ValueType.ARRAY
            else struct.unpack("<f", struct.pack("<f", value.data))[0]
            if value.type is ValueType.FLOAT32
            else value.data,
        )
        for key, value in metadata.items()
    ]


def general(folder: Path, **options: Any) -> dict[str, Any]:
    """The keys below `general.` and their values, without architecture and type."""
    options = {"config": {}, "count": ParameterCount(), **options}
    _, metadata = general_metadata(LocalFolder(folder), architecture="llama", **options)
    encode_header(metadata, (), ())
    return {key.removeprefix("general."): value for key, _, value in shown(metadata)[2:]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "Tiny-1.1B-Chat"
    path.mkdir()
    return path


def write_card(folder: Path, front: str) -> None:
    (folder / "README.md").write_text(f"---\n{front}\n---\n")


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize("path", manifests(), ids=short)
def test_keys_are_those_of_the_reference(path: Path, tmp_path: Path) -> None:
    manifest = read_manifest(path)
    args = manifest.get("forge_args") or []
    if "kv" not in manifest or {"--override-kv", "--prune-layers"} & set(args):
        pytest.skip("general.* keys or tensors are changed after the conversion")
    source = path.parents[1] / "hf"
    folder = tmp_path / (manifest.get("source_dir_name") or "hf")
    folder.symlink_to(source)
    config = json.loads((source / "config.json").read_text()) if (source / "config.json").exists() else {}
    want = [entry for entry in manifest["kv"] if entry["key"].startswith("general.")]
    values = {entry["key"]: entry["value"] for entry in want}
    identity, metadata = general_metadata(
        LocalFolder(folder),
        config,
        parameter_count(tensor_infos(manifest)),
        architecture=values["general.architecture"],
        model_type=values["general.type"],
        model_name=args[args.index("--model-name") + 1] if "--model-name" in args else None,
    )
    assert shown(metadata) == [
        (entry["key"], entry["type"], entry["value"]) for entry in want if entry["key"] not in LATER_KEYS
    ]
    if "output_name" in manifest:
        type_name = manifest["output_name"].removesuffix(".gguf").rpartition("-")[2]
        assert output_name(identity, type_name) == manifest["output_name"]


@pytest.mark.parametrize("case", NAMED, ids=lambda case: case["folder"])
def test_real_folder_names(case: dict[str, Any]) -> None:
    identity, metadata = general_metadata(
        LocalFolder(Path(case["folder"])), {}, ParameterCount(*case["count"]), architecture="llama"
    )
    found = {key.removeprefix("general."): value for key, _, value in shown(metadata)[2:]}
    assert found == case["general"]
    type_name = case["output_name"].removesuffix(".gguf").rpartition("-")[2]
    assert output_name(identity, type_name) == case["output_name"]


def test_order_of_all_keys(folder: Path) -> None:
    write_card(
        folder,
        "language: [en, fr]\npipeline_tag: text-generation\ntags: [a]\nlicense: [mit, other]\n"
        "license_name: Mine\nlicense_link: LICENSE\n"
        "datasets: acme/tiny-stories\nmodel_creator: Ann\nurl: u\nversion: 1.10\n"
        "base_model:\n- acme/Base-1B-v2\n- {name: Other, author: Bob, unknown: x}",
    )
    write_json(folder / "generation_config.json", {"top_k": 50, "temperature": 1, "repetition_penalty": 1.5})
    expected = {
        "sampling.top_k": 50,
        "sampling.temp": 1.0,
        "sampling.penalty_repeat": 1.5,
        "name": "Tiny 1.1B Chat",
        "author": "Ann",
        "version": "1.10",
        "finetune": "Chat",
        "basename": "Tiny",
        "size_label": "1.1B",
        "license": "mit,other",
        "license.name": "Mine",
        "license.link": "LICENSE",
        "source.url": "u",
        "base_model.count": 2,
        "base_model.0.name": "Base 1B v2",
        "base_model.0.version": "v2",
        "base_model.0.organization": "Acme",
        "base_model.0.repo_url": "https://huggingface.co/acme/Base-1B-v2",
        "base_model.1.name": "Other",
        "base_model.1.author": "Bob",
        "dataset.count": 1,
        "dataset.0.name": "Tiny Stories",
        "dataset.0.organization": "Acme",
        "dataset.0.repo_url": "https://huggingface.co/acme/tiny-stories",
        "tags": ["a", "text-generation"],
        "languages": ["en", "fr"],
    }
    assert list(general(folder, count=ParameterCount(B, B)).items()) == list(expected.items())


@pytest.mark.parametrize(
    ("base_model", "fields"),
    [
        ("https://example.org/a", {"repo_url": "https://example.org/a"}),
        (
            "https://huggingface.co/acme/tiny-1B",
            {"name": "Tiny 1B", "organization": "Acme", "repo_url": "https://huggingface.co/acme/tiny-1B"},
        ),
        (
            "https://huggingface.co/acme/tiny/tree/main",
            {"repo_url": "https://huggingface.co/acme/tiny/tree/main"},
        ),
        ("tiny-1B", {"name": "Tiny 1B"}),
        ("My own model", {"name": "My Own Model"}),
    ],
)
def test_base_model_by_text(folder: Path, base_model: str, fields: dict[str, str]) -> None:
    write_card(folder, f"base_model: {base_model}")
    found = {key: value for key, value in general(folder).items() if key.startswith("base_model.")}
    assert found == {"base_model.count": 1, **{f"base_model.0.{key}": value for key, value in fields.items()}}


def test_an_empty_base_model_is_counted_as_the_reference_does(folder: Path) -> None:
    write_card(folder, "base_model:\ndatasets: []")
    assert {key: value for key, value in general(folder).items() if "count" in key} == {
        "base_model.count": 0,
        "dataset.count": 0,
    }


def test_precedence_of_names(folder: Path) -> None:
    config = {"_name_or_path": "acme/small-2B-v3"}
    assert general(folder)["name"] == "Tiny 1.1B Chat"
    found = general(folder, config=config)
    assert found == {
        "name": "Small 2B v3",
        "version": "v3",
        "organization": "Acme",
        "finetune": "Chat",
        "basename": "small",
        "size_label": "2B",
    }
    write_card(folder, "model_name: From Card")
    assert general(folder, config=config)["name"] == "From Card"
    override = write_json(folder / "m.json", {"general.name": "From File"})
    assert general(folder, metadata_file=override)["name"] == "From File"
    assert general(folder, metadata_file=override, model_name="Said")["name"] == "Said"


@pytest.mark.parametrize("source", ["/home/ann/models/x-7B", "a/b/c", 7, None, ["x"]])
def test_paths_and_odd_values_in_the_config_are_no_names(folder: Path, source: object) -> None:
    assert general(folder, config={"_name_or_path": source})["name"] == "Tiny 1.1B Chat"


def test_the_metadata_file_outranks_the_card(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_card(folder, "author: Ann\nlicense: mit\ntags: [a]\nbase_model: x\nbasename: Big")
    override = {
        "general.author": "Bob",
        "general.quantized_by": "Eve",
        "general.license": "gpl",
        "general.basename": None,
        "general.size_label": None,
        "general.tags": ["b", "c"],
        "general.languages": None,
        "general.base_models": [{"name": "B", "repo_url": "r", "unknown": 1}, {}],
        "general.datasets": [],
        "general.sampling.temp": 0.5,
        "general.sampling.sequence": "kd",
        "made.up": 1,
    }
    found = general(folder, count=ParameterCount(B * 9, B * 9), metadata_file=write_json(folder / "m.json", override))
    assert found == {
        "sampling.sequence": "kd",
        "sampling.temp": 0.5,
        "name": "Tiny 1.1B Chat",
        "author": "Bob",
        "finetune": "1.1b-Chat",
        "quantized_by": "Eve",
        "size_label": "9.0B",
        "license": "mit",
        "base_model.count": 2,
        "base_model.0.name": "B",
        "base_model.0.repo_url": "r",
        "dataset.count": 0,
        "tags": ["b", "c"],
    }
    written = [getattr(record, AS_WRITTEN) for record in caplog.records]
    assert any("general.license is ignored" in text for text in written)
    assert any("--override-kv general.license=str:gpl or the model card" in text for text in written)
    assert any("made.up is ignored" in text and text.endswith("--override-kv made.up=int:1") for text in written)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("general.name", 1),
        ("general.tags", "a"),
        ("general.tags", [1]),
        ("general.base_models", {"name": "x"}),
        ("general.base_models", ["x"]),
        ("general.base_models", [{"name": 1}]),
        ("general.sampling.top_k", 1.5),
        ("general.sampling.top_k", 2**31),
        ("general.sampling.temp", "hot"),
        ("general.sampling.temp", 1e39),
        ("general.sampling.sequence", 1),
    ],
)
def test_wrong_types_in_the_metadata_file(folder: Path, key: str, value: object) -> None:
    path = write_json(folder / "m.json", {key: value})
    with pytest.raises(InputError, match=key) as caught:
        general(folder, metadata_file=path)
    assert caught.value.file == path


@pytest.mark.parametrize("text", ["", "[]", "{", None])
def test_metadata_files_that_are_none(folder: Path, text: str | None) -> None:
    path = folder / "m.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as caught:
        general(folder, metadata_file=path)
    assert caught.value.file == path


@pytest.mark.parametrize("text", ["", "[]", "{", '{"top_k": "many", "top_p": [1], "temperature": 1e39, "min_p": null}'])
def test_a_generation_config_that_cannot_be_used_is_ignored(folder: Path, text: str) -> None:
    (folder / "generation_config.json").write_text(text)
    assert not [key for key in general(folder) if key.startswith("sampling")]


def test_sampler_values(folder: Path) -> None:
    given = {
        "top_k": 50.0,
        "top_p": 1,
        "penalty_repeat": 1.25,
        "repetition_penalty": 2,
        "sequence": "",
        "min_p": 0,
    }
    write_json(folder / "generation_config.json", given)
    found = {key: value for key, value in general(folder).items() if key.startswith("sampling")}
    assert found == {
        "sampling.top_k": 50,
        "sampling.top_p": 1.0,
        "sampling.min_p": 0.0,
        "sampling.penalty_repeat": 1.25,
    }


def test_odd_values_in_a_card_are_ignored(folder: Path) -> None:
    write_card(
        folder,
        "name: [a]\nauthor: {b: c}\nversion: true\nlicense: {d: e}\ntags: &t [x, [y], {z: 1}, *t]\n"
        "language: no\n"
        'base_model: [[x], null, y]\ndatasets: {a: b}\ndescription: "\\uD800!"',
    )
    assert general(folder) == {
        "name": "Tiny 1.1B Chat",
        "finetune": "Chat",
        "basename": "Tiny",
        "description": "\ufffd!",
        "size_label": "1.1B",
        "base_model.count": 3,
        "base_model.2.name": "Y",
        "dataset.count": 0,
        "tags": ["x"],
    }


def test_here_is_called_as_the_folder_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert general(Path())["name"] == "Tiny 1.1B Chat"


@pytest.mark.parametrize(
    ("repository", "organization"), [("models--acme--Tiny-Chat", "Acme"), ("models--Tiny-Chat", None)]
)
def test_a_snapshot_in_the_hubs_cache_is_called_as_its_repository_is(
    repository: str, organization: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / repository / "snapshots" / "c1899de289a04d12100db370d81485cdf75e47ca"
    snapshot.mkdir(parents=True)
    monkeypatch.chdir(snapshot)
    for path in (snapshot, Path(), Path("../c1899de289a04d12100db370d81485cdf75e47ca")):
        keys = general(path)
        assert (keys["name"], keys.get("organization"), keys["finetune"]) == ("Tiny Chat", organization, "Chat")
    assert general(snapshot, as_reference=True)["name"] == "C1899De289A04D12100Db370D81485Cdf75E47Ca"
    (tmp_path / "Mine").symlink_to(snapshot)
    assert general(tmp_path / "Mine")["name"] == "Mine"


@pytest.mark.parametrize(
    "place", ["snapshots/Mine", "models--/snapshots/Mine", "models--a--b/Mine", "models/snapshots/Mine"]
)
def test_other_folders_of_that_name_are_none_of_the_cache(place: str, tmp_path: Path) -> None:
    folder = tmp_path / place
    folder.mkdir(parents=True)
    assert general(folder)["name"] == "Mine"


def test_a_folder_name_that_is_not_utf8(tmp_path: Path) -> None:
    assert general(tmp_path / "caf\udce9-7B")["name"] == "Caf\ufffd 7B"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
CARD_KEYS = ["name", "model_type", "version", "license", "tags", "language", "base_model", "datasets", "url"]


@given(
    name=st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=40).filter(
        lambda name: len(name.encode(errors="replace")) <= 200
    ),
    total=st.integers(-(10**13), 10**13),
    source=JSON,
    card=st.dictionaries(st.sampled_from(CARD_KEYS), JSON),
    sampling=st.dictionaries(st.sampled_from(["temperature", "top_k", "sequence"]), JSON) | JSON,
)
def test_nothing_breaks_it(
    tmp_path_factory: pytest.TempPathFactory, name: str, total: int, source: Any, card: Any, sampling: Any
) -> None:
    folder = tmp_path_factory.mktemp("model")
    (folder / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n")
    write_json(folder / "generation_config.json", sampling)
    count = ParameterCount(total, abs(total))
    general(folder, config={"_name_or_path": source}, count=count)
    general(Path(name), count=count)
