"""Codes unpacked and scaled by the kernels, beside the same in NumPy, and between pages that may not be touched."""

from __future__ import annotations

import numpy as np
import pytest

from gguf_forge.errors import UsageError
from gguf_forge.kernels.binding import scale_codes, unpack_codes


def of_bits(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes (n, count) as streams of bytes."""
    flat = ((codes[:, :, None] >> np.arange(bits)) & 1).reshape(len(codes), -1).astype(np.uint8)
    return np.packbits(flat, axis=1, bitorder="little")


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [1, 31, 32, 33, 200])
@pytest.mark.parametrize("to_columns", [False, True])
def test_every_code_is_what_was_packed(bits: int, count: int, to_columns: bool) -> None:
    codes = np.random.default_rng(bits + count).integers(0, 1 << bits, (70, count)).astype(np.uint8)
    streams = of_bits(codes, bits)
    out = np.full((count, 70), 0xEE, np.uint8).T if to_columns else np.full((70, count), 0xEE, np.uint8)
    unpack_codes(streams, bits, out)
    np.testing.assert_array_equal(out, codes)
    words = np.pad(streams, ((0, 0), (0, -streams.shape[1] % 4))).view(np.uint32)
    out[:] = 0xEE
    unpack_codes(np.ascontiguousarray(words.T).T, bits, out)
    np.testing.assert_array_equal(out, codes)


def test_only_the_given_places_are_written() -> None:
    room = np.full((4, 40), 0xEE, np.uint8)
    unpack_codes(np.zeros((4, 8), np.uint8), 4, room[:, 5:18])
    assert (room[:, 5:18] == 0).all() and (room[:, :5] == 0xEE).all() and (room[:, 18:] == 0xEE).all()


@pytest.mark.parametrize(
    ("streams", "bits", "out"),
    [
        (np.zeros((2, 4), np.uint8), 4, np.empty((2, 9), np.uint8)),
        (np.zeros((2, 4), np.uint8), 9, np.empty((2, 1), np.uint8)),
        (np.zeros((2, 4), np.uint8), 0, np.empty((2, 1), np.uint8)),
        (np.zeros((2, 4), np.int32), 4, np.empty((2, 8), np.uint8)),
        (np.zeros((2, 8), np.uint8)[:, ::2], 4, np.empty((2, 8), np.uint8)),
        (np.zeros((2, 4), np.uint8), 4, np.empty((3, 8), np.uint8)),
        (np.zeros((2, 4), np.uint8), 4, np.empty((2, 16), np.uint8)[:, ::2]),
    ],
)
def test_what_does_not_fit_is_refused(streams: np.ndarray, bits: int, out: np.ndarray) -> None:
    with pytest.raises(UsageError):
        unpack_codes(streams, bits, out)


@pytest.mark.parametrize("order", [np.full(32, 32, np.uint8), np.arange(8, dtype=np.uint8)])
def test_an_order_names_places_of_a_unit(order: np.ndarray) -> None:
    with pytest.raises(UsageError, match="an order"):
        unpack_codes(np.zeros((1, 16), np.uint8), 4, np.empty((1, 32), np.uint8), order=order)


def request(**changed: object) -> dict[str, object]:
    """Two rows of five codes in runs of three and two columns."""
    random = np.random.default_rng(1)
    return {
        "codes": random.integers(0, 256, (2, 5)).astype(np.uint8),
        "levels": random.standard_normal(256, np.float32),
        "numbers": tuple(random.standard_normal((3, 4, 2), np.float32)),
        "scale_rows": np.array([3, 1]),
        "runs": (np.array([0, 3]), np.array([1, 0])),
        "out": np.empty((2, 5), np.float32),
    } | changed


def test_values_are_scaled_in_float32() -> None:
    given = request()
    scale_codes(**given)  # type: ignore[arg-type]
    scales, zeros, shifts = (each[[3, 1]][:, [1, 1, 1, 0, 0]] for each in given["numbers"])
    wanted = (given["levels"][given["codes"]] - zeros) * scales + shifts
    np.testing.assert_array_equal(given["out"], wanted)
    again = request(codes=None, levels=None, out=given["levels"][given["codes"]])
    scale_codes(**again)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again["out"], wanted)


def test_zeros_keep_their_signs_without_zero_points_and_shifts() -> None:
    levels = np.zeros(256, np.float32)
    levels[1] = -0.0
    one, at = np.ones((1, 1), np.float32), np.zeros(1, np.int64)
    out = np.empty((1, 2), np.float32)
    scale_codes(np.array([[0, 1]], np.uint8), levels, (one, None, None), at, (at, at), out)
    assert np.signbit(out).tolist() == [[False, True]]


@pytest.mark.parametrize(
    "changed",
    [
        {"scale_rows": np.array([4, 1])},
        {"scale_rows": np.array([-1, 1])},
        {"scale_rows": np.array([1])},
        {"runs": (np.array([0, 3]), np.array([2, 0]))},
        {"runs": (np.array([1, 3]), np.array([1, 0]))},
        {"runs": (np.array([0, 6]), np.array([1, 0]))},
        {"runs": (np.array([0]), np.array([1, 0]))},
        {"numbers": (np.zeros((4, 2), np.float32), np.zeros((4, 1), np.float32), None)},
        {"numbers": (np.zeros((4, 2)), None, None)},
        {"levels": np.zeros(16, np.float32)},
        {"levels": None},
        {"codes": np.zeros((2, 4), np.uint8)},
        {"out": np.empty((2, 5))},
    ],
)
def test_numbers_that_do_not_fit_are_refused(changed: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        scale_codes(**request(**changed))  # type: ignore[arg-type]
