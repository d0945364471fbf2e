"""Numbers as text for people."""

from __future__ import annotations

from math import isfinite

# A no-break space keeps a number and its unit on one line.
_GAP = "\N{NO-BREAK SPACE}"

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_COUNTS = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"))


def size(n_bytes: float) -> str:
    """Bytes in decimal units.

    Example:
        >>> size(999), size(4_329_856), size(61_000_000_000)
        ('999\\xa0bytes', '4.33\\xa0MB', '61.0\\xa0GB')
    """
    unit = 0
    while n_bytes >= 999.5 and unit < len(_UNITS) - 1:
        n_bytes, unit = n_bytes / 1000, unit + 1
    return f"{three(n_bytes) if unit else int(n_bytes)}{_GAP}{_UNITS[unit]}"


def count(number: int) -> str:
    """
    Example:
        >>> count(6_818_048), count(9_999), count(1_100_048_384)
        ('6.82\\xa0million', '9,999', '1.10\\xa0billion')
    """
    for least, name in _COUNTS:
        if number >= least:
            return f"{three(number / least)}{_GAP}{name}"
    return f"{number:,}"


def three(value: float) -> str:
    """The number with three significant digits.

    Example:
        >>> three(4.3298), three(61.04), three(999.4)
        ('4.33', '61.0', '999')
    """
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"


def percent(share: float) -> str:
    """
    Example:
        >>> percent(0.0529), percent(0.29), percent(0.00034), percent(0.0)
        ('5.3\\xa0%', '29\\xa0%', '0.034\\xa0%', '0\\xa0%')
    """
    if not isfinite(share):
        return "—"
    value = 100 * share
    if value == 0:
        return f"0{_GAP}%"
    digits = 0 if value >= 10 else 1 if value >= 1 else 2 if value >= 0.1 else 3 if value >= 0.001 else 5
    return f"{value:.{digits}f}{_GAP}%"


def decibels(value: float | None) -> str:
    """
    Example:
        >>> decibels(25.533), decibels(None)
        ('25.5\\xa0dB', 'exact')
    """
    return "exact" if value is None else f"{value:.1f}{_GAP}dB"


def bits(value: float) -> str:
    """
    Example:
        >>> bits(4.5), bits(16.0), bits(5.0642)
        ('4.5', '16', '5.06')
    """
    return f"{value:.2f}".rstrip("0").rstrip(".")


def weight(value: float) -> str:
    """A weight, or a step between weights."""
    return f"{value:.3g}"
