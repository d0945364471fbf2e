from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_forge.errors import UsageError
from gguf_forge.general import ModelIdentity, fill_template, output_name
from gguf_forge.general.naming import NameParts, parse_model_id, title

B = 1_000_000_000


@pytest.mark.parametrize(
    ("model_id", "total", "parts"),
    [
        ("Mistral-7B-Instruct-v0.3", 7 * B, ("Mistral", "Instruct", "v0.3", "7B")),
        ("Meta-Llama-3.1-8B-Instruct", 8 * B, ("Meta-Llama-3.1", "Instruct", None, "8B")),
        ("Meta-Llama-3.1-8B-Instruct", 1_400_000, ("Meta-Llama-3.1", "8b-Instruct", None, None)),
        ("Mixtral-8x7B-Instruct-v0.1", 46 * B, ("Mixtral", "Instruct", "v0.1", "8x7B")),
        ("Phi-3-mini-4k-instruct", 4 * B, ("Phi-3", "4k-instruct", None, "mini")),
        ("Phi-3-mini-3.8B-instruct", 4 * B, ("Phi-3-mini", "instruct", None, "3.8B")),
        ("bloom-7b1", 7 * B, ("bloom", None, None, "7.1B")),
        ("Qwen3-30B-A3B-Instruct-2507", 30 * B, ("Qwen3", "Instruct", "2507", "30B-A3B")),
        ("tiny-1_5b-chat-f16", 0, ("tiny", "chat", None, "1.5B")),
        ("tiny-3B-lora", -4 * B, ("tiny", None, None, "3B")),
        ("tiny-3B-lora", 3 * B, ("tiny", "lora", None, "3B")),
        ("tiny-70B-chat", -4 * B, ("tiny", "chat", None, "70B")),
        ("Tiny-2.0", 0, ("Tiny", None, "2.0", None)),
        ("gpt2", B, (None, None, None, None)),
        ("7B", 7 * B, (None, "7B", None, None)),
        ("", 0, (None, None, None, None)),
        ("---", 0, (None, None, None, None)),
        ("A model-7B", 7 * B, (None, None, None, None)),
    ],
)
def test_parts_of_a_model_id(model_id: str, total: int, parts: tuple[str | None, ...]) -> None:
    found = parse_model_id(model_id, total)
    assert (found.basename, found.finetune, found.version, found.size_label) == parts
    assert found.name == model_id


@pytest.mark.parametrize(
    ("model_id", "name", "organization"),
    [
        ("acme/Tiny-1B", "Tiny-1B", "acme"),
        ("acme/a/b", "a/b", "acme"),
        ("./Tiny-1B", "Tiny-1B", None),
        ("../Tiny-1B", "Tiny-1B", None),
        ("/Tiny-1B", "Tiny-1B", ""),
        ("Tiny-1B", "Tiny-1B", None),
    ],
)
def test_organization(model_id: str, name: str, organization: str | None) -> None:
    found = parse_model_id(model_id, 0)
    assert (found.name, found.organization) == (name, organization)


@given(st.text() | st.from_regex(r"([\w.]{1,6}-){1,6}", fullmatch=True), st.integers(-(10**13), 10**13))
def test_no_model_id_breaks_it(model_id: str, total: int) -> None:
    found = parse_model_id(model_id, total)
    assert isinstance(found, NameParts)
    assert "" not in (found.basename, found.finetune, found.version, found.size_label)


def test_title() -> None:
    assert title(" tiny-llama-v2-v2x-3b-MoE  gpt ") == "Tiny Llama v2 V2X 3b MoE Gpt"


def test_output_name() -> None:
    whole = ModelIdentity("Tiny Llama", "Tiny Llama", "Chat HF", "v1 b", "1.1B")
    assert output_name(whole, "q4_k_m") == "Tiny-Llama-1.1B-Chat-HF-v1-b-Q4_K_M.gguf"
    assert output_name(whole, "q4_k_m", vocab_only=True) == "Tiny-Llama-Chat-HF-v1-b-vocab.gguf"
    assert output_name(ModelIdentity("My Model"), "F16") == "My-Model-F16.gguf"
    assert output_name(ModelIdentity(""), "F16") == "ggml-model-F16.gguf"


@given(st.builds(ModelIdentity, st.text(), *[st.none() | st.text()] * 4))
def test_output_names_are_names_of_files(identity: ModelIdentity) -> None:
    name = output_name(identity, "Q4_K_M")
    assert name.endswith("-Q4_K_M.gguf")
    assert not set(name) & {"/", "\0", "\n"}
    assert len(name.encode()) <= 255


def test_a_name_cannot_leave_its_folder_or_grow_without_end() -> None:
    assert output_name(ModelIdentity("a", "b", "../../etc/x"), "F16") == "b-..-..-etc-x-F16.gguf"
    assert len(output_name(ModelIdentity("ü" * 500), "F16").encode()) in (254, 255)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("x-{ftype}.gguf", "x-q4_k_m.gguf"),
        ("x-{outtype}-{}-{0}.gguf", "x-q4_k_m-q4_k_m-q4_k_m.gguf"),
        ("x-{FTYPE}-{OUTTYPE}.gguf", "x-Q4_K_M-Q4_K_M.gguf"),
        ("x.gguf", "x.gguf"),
        ("{{}}-{{name}}-{", "{}-{name}-{"),
    ],
)
def test_fill_template(template: str, name: str) -> None:
    assert fill_template(template, "Q4_K_M") == name


@pytest.mark.parametrize(
    "name",
    [
        "x-{type}.gguf",
        "{QUANT}.gguf",
        "x-{file_type}.gguf",
        "{name}-{FTYPE}.gguf",
        "{1}",
        "{ftype.__class__}",
        "{Ftype}",
    ],
)
def test_other_words_in_braces_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"write \{ftype\}"):
        fill_template(name, "Q4_K_M")
    assert fill_template("x-{{type}}.gguf", "Q4_K_M") == "x-{type}.gguf"
