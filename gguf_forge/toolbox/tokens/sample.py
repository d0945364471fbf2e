"""The texts that vocabularies are compared over: scripts, code, numbers, emoji, white space."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from gguf_forge.errors import InputError
from gguf_forge.storage.folder import read_text
from gguf_forge.storage.local.folder import located

# Tokens take up to 90 times the memory of their text, in Python's lists of numbers.
_MOST_BYTES, _MOST_TEXTS = 4 << 20, 1 << 18
# Words of ordinary prose, which every rule for splitting text splits alike.
PLAIN = (
    "the quick brown fox jumps over the lazy dog",
    "where there is a will there is a way",
    "quantization moves every weight a little",
    "a small model of the world",
)
# No text needs letters to be composed (NFC): some tokenizers do that, llama.cpp does not, and no file can change it.
SAMPLE = (
    *PLAIN,
    "Hello, World! It's 5 o'clock; don't panic.",
    "I'll we've you'd THEY'RE can't",
    "Numbers: 0 1 12 123 1234 12345678 3.14159 1,000,000 -7 1e-5 0x1F 2026-10-01 50%",
    "  two spaces, three   spaces,\ttabs\t\tand trailing space ",
    "\n\nlines\n\n\nwith\r\nother ends\n",
    'def f(x: int) -> str:\n    return f"{x!r}" if x != 0 else None  # comment\n',
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * 2; } // done",
    "SELECT * FROM t WHERE a >= 10 AND name LIKE '%x_%';",
    '<html><body class="a b">&amp;</body></html>',
    '{"key": [1, 2.5, null, true], "text": "\\u00e9"}',
    "https://example.com/path?query=1&other=a%20b#part user@example.com C:\\Users\\me",
    "CamelCaseName snake_case_name SCREAMING_CASE kebab-case x86_64 v1.2.3-rc4",
    "caf\u00e9 na\u00efve \u00dcber Stra\u00dfe \u0141\u00f3d\u017a \u010cesk\u00fd \u00f8re \u0130stanbul",
    "\ufb01 ligature, \u00bd fraction, x\u00b2, \u2460",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! "
    "\u039a\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1 \u03ba\u03cc\u03c3\u03bc\u03b5",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u4eca\u5929\u662f2026\u5e7410\u67081\u65e5\u3002",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u3001\u30ab\u30bf\u30ab\u30ca \uff21\uff22\uff23",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4 123",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 "
    "\u0661\u0662\u0663 \u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u0928\u092e\u0938\u094d\u0924\u0947 "
    "\u0926\u0941\u0928\u093f\u092f\u093e \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\U0001f600 \U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467 "
    "\u2764\ufe0f \U0001f1e9\U0001f1ea \u2603",
    "\u201cquotes\u201d \u2018single\u2019 \u2014 dash \u2026 \u20ac\u00a3\u00a5 \u2264\u2265\u2260 \u2200x\u2203y",
    "zero\u200bwidth no\u00a0break soft\u00adhyphen \u3000wide",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa !!!!!!!! ........ -------- ========",
)


def read_texts(path: Path) -> tuple[str, ...]:
    """The lines of a file, each with its end, as texts to compare.

    Raises:
        InputError: the file cannot be read, is larger than 4 MiB, has more than 262,144 lines, or is not UTF-8.
    """
    text = read_text(*located(path), _MOST_BYTES)
    if text.count("\n") > _MOST_TEXTS:
        raise InputError(f"has more than {_MOST_TEXTS:,} lines", file=path, hint="take some of them")
    return tuple(StringIO(text))
