"""Files are never loaded: memory stays far below their size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gguf_forge import quantize_gguf
from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import string, u32
from gguf_forge.types.tensor_type import BF16

_BOUND = 160 << 20
_RUN = """
import re, sys
from gguf_forge import compare_gguf, verify_gguf
verb, *files = sys.argv[1:]
found = verify_gguf(*files, threads=2) if verb == "verify" else compare_gguf(*files, threads=2)
# not getrusage: its peak survives exec, so it may be that of the test runner
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(found.ok if verb == "verify" else found.same, int(peak[1]) << 10)
"""


def _giant(path: Path, *, value: int = 0) -> Path:
    """Two tensors of 400 MB in all, in a file of holes; the last value of each is `value`."""
    keys = {"general.architecture": string("llama"), "llama.block_count": u32(2), "general.file_type": u32(32)}
    infos = [TensorInfo(f"blk.{layer}.ffn_up_exps.weight", (2048, 4096, 12), BF16) for layer in range(2)]
    layout = lay_out(keys, infos)
    with path.open("wb") as file:
        file.write(layout.header)
        file.truncate(layout.size)
        for placed in layout.tensors:
            file.seek(placed.offset + placed.info.nbytes - 1)
            file.write(bytes([value]))
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("verb", ["verify", "verify source", "compare"])
def test_peak_memory_is_bounded(verb: str, tmp_path: Path) -> None:
    one = _giant(tmp_path / "one.gguf")
    files = {
        "verify": lambda: [one],
        "verify source": lambda: [quantize_gguf(one, tmp_path / "q.gguf", types="Q4_0")[0].path, one],
        "compare": lambda: [one, _giant(tmp_path / "other.gguf", value=0x3F)],
    }[verb]()
    command = [sys.executable, "-c", _RUN, verb.split()[0], *map(str, files)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    right, peak = run.stdout.split()
    assert right == str(verb != "compare")
    assert int(peak) < _BOUND
    assert one.stat().st_size > 2 * _BOUND
