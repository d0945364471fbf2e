"""Memory for rows: any size, writable, and given back."""

from __future__ import annotations

import pytest

from gguf_forge.buffers import ALIGNMENT, fresh


@pytest.mark.parametrize("at", [0, 1, 4096, 12_345])
@pytest.mark.parametrize("nbytes", [0, 1, 4095, (4 << 20) - 1, 4 << 20, (5 << 20) + 3])
def test_all_bytes_are_there_and_writable(nbytes: int, at: int) -> None:
    data = fresh(nbytes, at=at)
    assert nbytes == 0 or (data.__array_interface__["data"][0] - at) % ALIGNMENT == 0
    data[:] = 7
    assert data.shape == (nbytes,)
    assert int(data.sum(dtype=int)) == 7 * nbytes
