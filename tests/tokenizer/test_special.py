"""Special tokens and chat templates: which file says what, and which goes first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.errors import InputError
from gguf_forge.storage.local.folder import LocalFolder
from gguf_forge.tokenizer import TokenizerFiles, TokenizerSource, special_ids
from gguf_forge.tokenizer.special import special_tokens

NESTED = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}
A, B = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}


def special(text: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": text, "type_id": 0}}


def template(single: list[Any], pair: list[Any]) -> dict[str, Any]:
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": {}}


def read(folder: Path, **files: Any) -> dict[str, Any]:
    """The metadata of a folder with these JSON files, by the last part of each key."""
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    found = special_tokens(TokenizerFiles(LocalFolder(folder)))
    return {key.removeprefix("tokenizer.").removeprefix("ggml."): value.data for key, value in found.items()}


def tokenizer(post_processor: Any = None, *texts: str) -> dict[str, Any]:
    added = [{"id": id, "content": text} for id, text in enumerate(texts or ("<s>", "</s>", "<sep>", "<cls>"))]
    return {"model": {}, "added_tokens": added, "post_processor": post_processor}


def test_ids_by_text_go_before_ids_by_config(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        tokenizer=tokenizer(),
        tokenizer_config={"eos_token": {"content": "</s>"}, "pad_token": "absent"},
        config={"bos_token_id": 7, "eos_token_id": 8, "pad_token_id": 9},
    )
    assert list(found.items()) == [("eos_token_id", 1), ("bos_token_id", 7), ("padding_token_id", 9)]


def test_ids_of_a_nested_text_config(tmp_path: Path) -> None:
    assert read(tmp_path, config={"eos_token_id": None, "text_config": {"eos_token_id": 3}}) == {"eos_token_id": 3}


@pytest.mark.parametrize("id", [-2, 1 << 32])
def test_an_id_that_none_can_be(tmp_path: Path, id: int) -> None:
    with pytest.raises(InputError, match=r"config\.json: bos_token_id must be a token id"):
        read(tmp_path, config={"bos_token_id": id})


@pytest.mark.parametrize(
    ("post_processor", "config", "added"),
    [
        ({"type": "ByteLevel"}, {}, {"bos": False, "eos": False}),
        ({"type": "ByteLevel"}, {"add_bos_token": True}, {"bos": False, "eos": False}),
        (None, {"add_eos_token": True}, {"eos": True}),
        (
            {"type": "RobertaProcessing", "sep": ["<sep>", 2], "cls": ["<cls>", 3]},
            {},
            {"bos": True, "eos": True, "sep": True},
        ),
        (template([special("<s>"), A], [special("<s>"), A, special("<s>"), B]), {}, {"bos": True, "sep": False}),
        (template([special("<cls>"), A], []), {"bos_token": "<s>", "cls_token": "<c>"}, {"bos": False}),
        (template([special("<cls>"), A], []), {"bos_token": "<s>"}, {"bos": True}),
        (template([A, special("</s>")], [A, special("</s>"), B, special("</s>")]), {}, {"eos": True, "sep": False}),
        (template([A], [A, special("</s>"), B]), {"eos_token": "</s>"}, {"sep": True}),
        (template([A], [A, special("x"), special("</s>"), B]), {"eos_token": "</s>"}, {"sep": True}),
        (
            {"type": "Sequence", "processors": [{"type": "ByteLevel"}, template([special("<s>"), A], [])]},
            {"bos_token": "<s>"},
            {"bos": True, "eos": False},
        ),
    ],
)
def test_what_is_added_to_a_prompt(tmp_path: Path, post_processor: Any, config: Any, added: dict[str, bool]) -> None:
    found = read(tmp_path, tokenizer=tokenizer(post_processor), tokenizer_config={"x": 1, **config})
    assert {key: value for key, value in found.items() if key.startswith("add_")} == {
        f"add_{kind}_token": flag for kind, flag in added.items()
    }


def test_an_end_that_the_template_replaces_becomes_the_end_of_a_turn(tmp_path: Path) -> None:
    post_processor = template([A, special("<sep>")], [])
    found = read(tmp_path, tokenizer=tokenizer(post_processor), tokenizer_config={"eos_token": "</s>"})
    assert found == {"eos_token_id": 2, "eot_token_id": 1, "add_eos_token": True}


def test_cls_and_sep_stand_in_for_bos_and_eos(tmp_path: Path) -> None:
    found = read(tmp_path, tokenizer=tokenizer(), tokenizer_config={"cls_token": "<cls>", "sep_token": "<sep>"})
    assert found == {"bos_token_id": 3, "eos_token_id": 2, "seperator_token_id": 2}


def test_ids_that_a_family_knows_give_way_to_the_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"eot_token_id": 5}')
    source = TokenizerSource(TokenizerFiles(LocalFolder(tmp_path)), {})
    found = special_ids({"prefix": 1, "eot": 107, "eom": 108})(source)
    assert found is not None
    assert {key: value.data for key, value in found.items()} == {
        "tokenizer.ggml.eot_token_id": 5,
        "tokenizer.ggml.eom_token_id": 108,
    }


@pytest.mark.parametrize(
    ("normalizer", "flags"),
    [
        ({"type": "Lowercase"}, {"lowercase": True}),
        ({"type": "BertNormalizer", "lowercase": False, "strip_accents": None}, {"lowercase": False}),
        (
            {"type": "Sequence", "normalizers": [{"type": "StripAccents"}, NESTED]},
            {"lowercase": True, "strip_accents": True},
        ),
        ({"type": "NFC"}, {}),
    ],
)  # fmt: skip
def test_normalizer_flags(tmp_path: Path, normalizer: Any, flags: dict[str, bool]) -> None:
    found = read(tmp_path, tokenizer={**tokenizer(), "normalizer": normalizer})
    assert found == {f"normalizer.{name}": flag for name, flag in flags.items()}


@pytest.mark.parametrize("config", [{"chat_template": "own"}, {"x": 1}, {"chat_template": None}, {}])
def test_a_chat_template_of_a_file_of_its_own_goes_first(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "chat_template.jinja").write_text("from the file")
    assert read(tmp_path, tokenizer_config=config)["chat_template"] == "from the file"


def test_the_reference_takes_the_chat_template_of_tokenizer_config(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("from the file")

    def found(config: dict[str, Any]) -> str | None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        value = special_tokens(TokenizerFiles(LocalFolder(tmp_path), as_reference=True)).get("tokenizer.chat_template")
        return None if value is None else str(value.data)

    assert [found({"chat_template": "own"}), found({"x": 1}), found({"chat_template": None}), found({})] == [
        "own", "from the file", None, None
    ]  # fmt: skip


def test_chat_template_json(tmp_path: Path) -> None:
    assert read(tmp_path, tokenizer_config={"x": 1}, chat_template={"chat_template": "j"}) == {"chat_template": "j"}


def test_additional_chat_templates(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("default one")
    folder = tmp_path / "additional_chat_templates"
    folder.mkdir()
    (folder / "tool-use.jinja").write_text("tools")
    (folder / "rag.jinja").write_text("rag")
    assert list(read(tmp_path, tokenizer_config={"x": 1}).items()) == [
        ("chat_template.rag", "rag"),
        ("chat_template.tool_use", "tools"),
        ("chat_templates", ("rag", "tool_use")),
        ("chat_template", "default one"),
    ]


def test_templates_as_a_list(tmp_path: Path) -> None:
    templates = [{"name": "default", "template": "d"}, {"name": "a b", "template": "x"}, {"template": "unnamed"}]
    assert list(read(tmp_path, tokenizer_config={"chat_template": templates}).items()) == [
        ("chat_template.a_b", "x"),
        ("chat_templates", ("a_b",)),
        ("chat_template", "d"),
    ]


@pytest.mark.parametrize("value", [{}, 5, ""])
def test_a_template_of_no_use_is_left_out(tmp_path: Path, value: object) -> None:
    assert read(tmp_path, tokenizer_config={"chat_template": value}) == {}


def test_a_template_is_carried_over_and_never_run(tmp_path: Path) -> None:
    text = "{% for i in range(10**12) %}{{ ''.__class__.__mro__ }}{% endfor %}{% if %}"
    assert read(tmp_path, tokenizer_config={"chat_template": text}) == {"chat_template": text}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    post_processor=json_values
    | st.fixed_dictionaries({"type": st.sampled_from(["TemplateProcessing", "RobertaProcessing"])}, optional={
        name: json_values | st.lists(st.sampled_from([A, B, special("<s>"), special("</s>")]), max_size=4)
        for name in ("single", "pair", "sep", "cls")
    }),
    config=st.dictionaries(st.sampled_from(["bos_token", "eos_token", "sep_token", "chat_template"]), json_values),
)  # fmt: skip
def test_no_json_gives_more_than_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, post_processor: Any, config: Any
) -> None:
    try:
        found = read(
            tmp_path_factory.mktemp("any"), tokenizer=tokenizer(post_processor), tokenizer_config={"x": 1, **config}
        )
    except InputError:
        return
    assert all(isinstance(key, str) for key in found)
