"""Chat templates are parsed and rendered as transformers does it, and cannot do harm."""

from __future__ import annotations

from typing import Any

import pytest

from gguf_forge.errors import InputError
from gguf_forge.foreign.jinja import BOS_VARIABLE, render, survey
from gguf_forge.foreign.limited import LimitError, run_limited


def limited(template: str, **variables: Any) -> str:
    argument = {"template": template, "variables": variables}
    return run_limited(render, argument, memory=128 << 20, seconds=2, most_output=1 << 20)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{% if true %}\n  a\n{% endif %}\n", "  a\n"),
        ("{% for i in x %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
        ("{% generation %}{{ x[0] }}{% endgeneration %}", "1"),
        ("{{ {'b': 'é<', 'a': 1} | tojson }}", '{"b": "é<", "a": 1}'),
        ("{{ {'a': 1} | tojson(indent=1) }}", '{\n "a": 1\n}'),
        ("{{ strftime_now('%%') }}", "%"),
        ("{{ missing }}", ""),
    ],
)
def test_rendering(template: str, text: str) -> None:
    assert limited(template, x=[1, 2, 3]) == text


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "processor time"),
        ("{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}", "memory|result has more"),
        ("{{ 'x' * 3000000 }}", "result has more"),
        ("{{ 'x' * 10 ** 12 }}", "memory"),
        ("{{ '%999999999999d' | format(1) }}", "memory|too"),
    ],
)
def test_what_is_too_much_ends(template: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        limited(template)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ render.__globals__ }}",
        "{{ x.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_the_sandbox(template: str) -> None:
    with pytest.raises(InputError) as caught:
        limited(template, x=[1])
    assert not isinstance(caught.value, LimitError)


def test_a_template_that_refuses() -> None:
    with pytest.raises(InputError, match="only users"):
        limited("{{ raise_exception('only users') }}")


def test_texts_that_may_be_written() -> None:
    found = survey(
        "{# <|no|> #}{% set x = '<|a|>' %}{% if m['<|no|>'] == '<|no|>' %}<|b|>{% endif %}{{ '<|c|>' + f('<|no|>') }}"
    )
    assert [text for text in found["texts"] if text.strip()] == ["<|a|>", "<|b|>", "<|c|>"]


@pytest.mark.parametrize(
    ("template", "first"),
    [
        ("{{ bos_token }}a", BOS_VARIABLE),
        ("{%- set a = 1 %}\n{{- bos_token + 'x' }}", BOS_VARIABLE),
        ("{% for m in messages %}{% if loop.first %}{{ bos_token ~ m.x }}{% endif %}{% endfor %}", BOS_VARIABLE),
        ("  <s>[INST]", "<s>[INST]"),
        ("{{ '<s>' if a else 'b' }}", "<s>"),
        ("{{ messages[0] }}", None),
        ("{% macro a() %}{{ bos_token }}{% endmacro %}b", "b"),
        ("", None),
    ],
)
def test_what_comes_first(template: str, first: str | None) -> None:
    assert survey(template)["first"] == first


@pytest.mark.parametrize(
    ("template", "told"),
    [("a\n{% if %}", "line 2: "), ("{{ " + "(" * 9999, "nested too deeply|line 1"), ("{% nothing %}", "line 1: ")],
)
def test_a_broken_template(template: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        run_limited(survey, template, memory=128 << 20, seconds=5, most_output=1 << 20)
