"""Patterns mean what they mean in an ECMAScript engine, and take no time to speak of."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_forge.errors import UsageError
from gguf_forge.name_pattern import NamePattern, found_in


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("attn_v", "blk.0.attn_v.weight", "blk.0.attn_k.weight"),
        ("FFN_Down", "blk.0.ffn_down.weight", "blk.0.FFN_Down.weight"),
        (r"blk\.(0|1[0-2])\.", "blk.11.attn_v.weight", "blk.13.attn_v.weight"),
        (r"^blk\.\d+\.ffn_(up|gate)", "blk.40.ffn_gate_exps.weight", "v.blk.4.ffn_gate.weight"),
        (r"blk\.\d{2,}\.", "blk.10.attn_v.weight", "blk.9.attn_v.weight"),
        (r"blk\.(?!3\.)\d", "blk.4.x", "blk.3.x"),
        (r"exps\.weight$", "blk.0.ffn_up_exps.weight", "blk.0.ffn_up_exps.weight.1"),
        (r"\battn\b", "a.attn.b", "attn_q"),
        (r"[[:digit:]_]x[^.]", "1xy", "ax."),
        (r"[]a", "never", "a"),
        (r"\x2e\-\]", ".-]", "a-]"),
        (r"a**b*?|c{2}{2}", "cccc", ""),
    ],
)
def test_search(pattern: str, matching: str, other: str) -> None:
    found = NamePattern.compile(pattern)
    assert found.search(matching) is (pattern != r"[]a")
    assert found.search(other) is (pattern == r"a**b*?|c{2}{2}")


@pytest.mark.parametrize(
    "pattern",
    [
        *("(", ")", "a)", "(a", "[a", "*a", "a|*", "{2}", "a{", "a{x}", "a{2,1}", "a{9999999}", "^*", "\\"),
        *(
            "[b-a]",
            r"[a-\d]",
            "[[:word:]]",
            "[[.a.]]",
            "(?i)a",
            "(?<=a)b",
            r"(a)\1",
            r"\q",
            r"\u0041",
            r"\xZZ",
        ),
        "(" * 60 + ")" * 60,
    ],
)
def test_what_is_no_pattern_is_refused_and_quoted(pattern: str) -> None:
    with pytest.raises(UsageError, match=r"pattern .* \(at character \d+\)"):
        NamePattern.compile(pattern)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(a*)*(a*)*c", "((a{0,63}){0,63}){0,63}d", ".*.*.*.*.*=.*"])
def test_patterns_that_hang_other_engines_do_not_match(pattern: str) -> None:
    assert not NamePattern.compile(pattern).search("a" * 62 + "!")


@pytest.mark.parametrize("repeat", ["*", "+", "{1,63}", "{5,99999}"])
def test_deeply_nested_repeats_do_not_double_the_work(repeat: str) -> None:
    pattern = "^" + "(" * 40 + "(?!ab)(a|ab?)" + f"){repeat}" * 40 + "b"
    assert not NamePattern.compile(pattern).search("a" * 63)


def test_letters_outside_ascii_keep_their_case() -> None:
    assert not NamePattern.compile("É").search("é")
    assert NamePattern.compile("É.").search("É!")


PIECES = ["a", "b", "_", "1", r"\.", ".", r"\d", r"\w", r"\s", "[ab]", "[^a]", "[a-z_]", "^", r"\b", "$", "|"]
TERMS = st.recursive(
    st.sampled_from(PIECES),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.tuples(inner, st.sampled_from(["", "*", "+", "?", "*?", "{2}", "{1,}", "{0,2}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
        inner.map(lambda text: f"(?!{text})"),
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(pattern=TERMS, name=st.text("ab1_.", max_size=10))
def test_the_common_grammar_agrees_with_re(pattern: str, name: str) -> None:
    expected = re.search(pattern, name, re.ASCII) is not None
    assert NamePattern.compile(pattern).search(name) is expected


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=20), st.text(max_size=20))
def test_any_text_is_a_pattern_or_a_usage_error(pattern: str, name: str) -> None:
    try:
        assert NamePattern.compile(pattern).search(name) in (True, False)
    except UsageError as error:
        assert repr(pattern) in str(error)


@pytest.mark.parametrize(
    ("pattern", "name", "replacement", "expected"),
    [
        (r"^model\.", "model.blk.0.attn_q.weight", "", "blk.0.attn_q.weight"),
        (r"^model\.", "blk.0.model.weight", "", None),
        ("a|ab|abc", "xabcd", "-", "x-d"),
        ("a*", "baab", "-", "-baab"),
        ("(q|K)$", "attn_K", "v", "attn_v"),
        ("ü", "größe.ü", "ue", "größe.ue"),
        (r"(?=attn)", "blk.0.attn_q", "self_", "blk.0.self_attn_q"),
        ("(a*)*b", "a" * 60, "-", None),
    ],
)
def test_the_longest_of_the_first_matches_is_replaced(
    pattern: str, name: str, replacement: str, expected: str | None
) -> None:
    assert NamePattern.compile(pattern).replace(name, replacement) == expected


def test_names_and_patterns_that_are_found() -> None:
    patterns = [NamePattern.compile(source) for source in ("ATTN", r"^v\.", "nothing")]
    names = ["blk.0.Attn_q", "v.blk.0.x", "V.ATTN", "output"]
    assert found_in(patterns, names) == ({"blk.0.Attn_q", "v.blk.0.x", "V.ATTN"}, {"ATTN", r"^v\."})
    assert found_in([], names) == (set(), set())


@pytest.mark.parametrize(
    "pattern",
    [
        *("(?!.*" * depth + "X" + ")" * depth for depth in (8, 49)),
        *("(?=.*" * depth + "x" + ")" * depth for depth in (8, 49)),
        "a?" * 2048,
        "(a?b?)?" * 580,
        "((.*)*x)*" * 450,
        "(?=.*)" * 680,
        "(" * 49 + "a*" + ")*" * 49,
    ],
)
def test_no_pattern_hangs(pattern: str) -> None:
    """Each group is tried once at each place, and the tries are counted."""
    try:
        NamePattern.compile(pattern).search("model.layers.10.self_attn.q_proj.weight")
    except UsageError as error:
        assert "takes too long" in error.problem


def test_a_pattern_has_an_upper_length() -> None:
    NamePattern.compile("a" * 4096)
    with pytest.raises(UsageError, match="more than 4,096 characters"):
        NamePattern.compile("a?" * 20_000)
