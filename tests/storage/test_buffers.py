"""Memory for rows: any size, writable, and given back."""

from __future__ import annotations

import os

import pytest

from gguf_forge.storage.buffers import ALIGNMENT, fresh


@pytest.mark.parametrize("at", [0, 1, 4096, 12_345])
@pytest.mark.parametrize("nbytes", [0, 1, 4095, (4 << 20) - 1, 4 << 20, (5 << 20) + 3])
def test_all_bytes_are_there_and_writable(nbytes: int, at: int) -> None:
    data = fresh(nbytes, at=at)
    assert nbytes == 0 or (data.__array_interface__["data"][0] - at) % ALIGNMENT == 0
    data[:] = 7
    assert data.shape == (nbytes,)
    assert int(data.sum(dtype=int)) == 7 * nbytes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no processes to fork here")
@pytest.mark.parametrize("nbytes", [4096, 8 << 20])
def test_memory_is_this_process_s_alone(nbytes: int) -> None:
    """What is shared counts as a file in memory: it has a limit of its own, and huge pages only if that has."""
    data = fresh(nbytes)
    data[:] = 1
    child = os.fork()
    if not child:
        data[:] = 2
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert set(data.tolist()) == {1}
