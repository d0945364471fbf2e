"""A process holds no more than it may, whatever the model."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_llama

from gguf_forge import convert
from gguf_forge.engine.batches import RowSource, Shard, cut, whole_tensors
from gguf_forge.engine.forge import forge
from gguf_forge.engine.memory import Budget, room
from gguf_forge.errors import UsageError
from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.run_settings import RunSettings
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.tensors.joined import Stack
from gguf_forge.tensors.row_maps import Transpose, permute_rope
from gguf_forge.tensors.stored import Constant
from gguf_forge.types.tensor_type import F32, TensorType

_RUN = """
import re, sys
from pathlib import Path
from gguf_forge.engine.forge import forge
from gguf_forge.run_settings import RunSettings
from gguf_forge.engine.batches import RowSource, Shard
from gguf_forge.tensors.arithmetic import Add
from gguf_forge.tensors.joined import Stack
from gguf_forge.tensors.merged import Merged, Rounded
from gguf_forge.tensors.row_maps import Slice, Transpose, permute_rope
from gguf_forge.tensors.stored import Stored
from gguf_forge.gguf_file.layout import lay_out
from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.storage.local.source_file import SourceFile
from gguf_forge.types.tensor_type import BF16, TensorType

folder, expressions, types, bound, threads = sys.argv[1:]
holes = Path(folder) / "holes"
with holes.open("wb") as file:
    file.truncate(1 << 32)
source = SourceFile(holes)

def stored(*shape):
    return Stored("t", source, 0, shape, BF16)

found = eval(expressions)
shards = [
    Shard(
        Path(folder) / name,
        lay_out({}, [TensorInfo(str(i), e.shape[::-1], TensorType.named(name)) for i, e in enumerate(found)]),
        tuple(RowSource(e, BF16) for e in found),
    )
    for name in types.split(",")
]
forge(shards, RunSettings(max_memory=int(bound) << 20, threads=int(threads)))
# not getrusage: its peak survives exec, so it may be that of the test runner
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(int(peak[1]) << 10)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("expressions", "types", "bound", "threads"),
    [
        pytest.param("[Stack((stored(64, 2048),) * 600)]", "Q8_0", 90, 2, id="600 experts"),
        pytest.param("[stored(256_000, 256)]", "Q8_0,Q4_K", 120, 12, id="256k rows, many threads"),
        pytest.param("[stored(1, 1 << 23)]", "Q8_0", 110, 4, id="one row that fits once"),
        pytest.param("[stored(1 << 16, 1024)]", "Q8_0,F16,Q4_0", 90, 2, id="a tensor larger than memory"),
        pytest.param(
            "[Rounded(Merged(stored(1 << 12, 4096), stored(64, 4096), stored(1 << 12, 64), 2.0), BF16)]",
            "Q8_0",
            110,
            4,
            id="an adapter",
        ),
        pytest.param(
            "[Merged(stored(1 << 15, 512), Transpose(stored(512, 4)), Transpose(stored(4, 1 << 15)), 2.0)]",
            "Q8_0",
            90,
            4,
            id="an adapter of embeddings",
        ),
        pytest.param("[Transpose(stored(2048, 1 << 15))]", "Q8_0", 90, 3, id="a matrix larger than memory, by columns"),
        pytest.param(
            "[Slice(stored(1 << 15, 4096), -1, half, half + 2048) for half in (0, 2048)]",
            "Q8_0",
            120,
            6,
            id="two halves of columns",
        ),
        pytest.param(
            "[Transpose(Slice(stored(1 << 14, 4096), -1, first, 4096, 2)) for first in (0, 1)]",
            "Q8_0",
            150,
            6,
            id="every second column, transposed",
        ),
        pytest.param(
            "[Transpose(Stack((stored(1024, 2048),) * 16)), permute_rope(stored(4096, 4096), 4), "
            "Stack((stored(64, 2048),) * 100), Add(stored(1024, 4096), 1.0)] * 2",
            "Q8_0,Q4_K",
            120,
            16,
            id="of everything",
        ),
    ],
)
def test_the_bound_holds(tmp_path: Path, expressions: str, types: str, bound: int, threads: int) -> None:
    command = [sys.executable, "-c", _RUN, str(tmp_path), expressions, types, str(bound), str(threads)]
    # elsewhere than in the project's folder, whose package has no kernels unless it is installed from there
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(run.stdout) <= bound << 20


def some_tensors() -> list[TensorExpr]:
    values = np.random.default_rng(5).normal(size=(96, 64, 64)).astype(np.float32)
    experts = Stack(tuple(map(Constant, values)))
    return [
        experts,
        Transpose(experts),
        Transpose(Constant(values.reshape(64, -1))),
        permute_rope(Constant(values[0]), 4),
    ]


def test_the_bytes_do_not_depend_on_the_memory(tmp_path: Path) -> None:
    tensors = some_tensors()
    infos = [TensorInfo(str(n), tensor.shape[::-1], TensorType.named("Q8_0")) for n, tensor in enumerate(tensors)]
    shards = [Shard(tmp_path / "out", lay_out({}, infos), tuple(RowSource(tensor, F32) for tensor in tensors))]
    made = set()
    for buffer in (1, 10_000, 1_000_000, None):
        forge(shards, RunSettings(buffer=buffer, threads=2, overwrite=True))
        made.add((tmp_path / "out").read_bytes())
    assert len(made) == 1


def test_too_little_is_refused_before_any_work(tmp_path: Path) -> None:
    model, out = tiny_llama(tmp_path), tmp_path / "out.gguf"
    with pytest.raises(
        UsageError, match=r"this needs [0-9,]+ bytes of memory at least, and 1,048,576 are allowed"
    ) as e:
        convert(model, out, max_memory=1 << 20)
    assert not out.exists()
    # what the message says is enough
    enough = re.search("--max-memory ([0-9]+)M", str(e.value.words.hint))
    assert enough is not None
    convert(model, out, max_memory=int(enough[1]) << 20)


def test_threads_are_fewer_where_memory_is_short(held: int) -> None:
    (tensor,) = some_tensors()[:1]
    info = TensorInfo("t", tensor.shape[::-1], TensorType.named("Q8_0"))
    whole = whole_tensors([Shard(Path("x"), lay_out({}, [info]), (RowSource(tensor, F32),))])
    assert room(whole, 64, max_memory=held + (1 << 30)).threads == 64
    few = room(whole, 64, max_memory=held + (30 << 20))
    assert 1 <= few.threads < 10
    assert few.total + few.threads * few.share < 30 << 20
    # a batch that reads a whole matrix may be as large as the total, and an allocator keeps 8 MiB of it for each thread
    by_columns = whole_tensors([Shard(Path("x"), lay_out({}, [info]), (RowSource(Transpose(tensor), F32),))])
    fewer = room(by_columns, 64, max_memory=held + (100 << 20))
    assert 1 < fewer.threads < room(whole, 64, max_memory=held + (100 << 20)).threads
    assert fewer.total + fewer.threads * (8 << 20) <= 100 << 20
    assert room(whole, 8, buffer=4 << 20).total == 4 << 20
    keeping = room(whole, 64, max_memory=held + (200 << 20), kept=1 << 40)
    assert 30 << 20 < keeping.kept < 50 << 20
    assert keeping.kept + keeping.total + keeping.threads * keeping.share < 200 << 20
    assert room(whole, 64, max_memory=held + (200 << 20), kept=5000).kept == 5000
    # one row has to fit, whatever the buffer
    assert room(whole, 8, buffer=1).total == whole[0].need(1)


@pytest.mark.parametrize("wanted", [1, 3, 64])
@pytest.mark.parametrize("number", range(4))
def test_each_batch_fits_into_the_budget_of_all(held: int, number: int, wanted: int) -> None:
    # a batch that asks for more than all may have would wait forever
    tensor = some_tensors()[number]
    info = TensorInfo("t", tensor.shape[::-1], TensorType.named("Q8_0"))
    (whole,) = whole_tensors([Shard(Path("x"), lay_out({}, [info]), (RowSource(tensor, F32),))])
    taken = 0
    for more in (*range(17 << 20, 64 << 20, 123_457), 1 << 28, 1 << 30):
        try:
            limits = room([whole], wanted, max_memory=held + more)
        except UsageError:
            continue
        assert limits.share <= limits.total
        batches = cut([whole], 1 << 19, share=limits.share, total=limits.total)
        assert max(batch.nbytes for batch in batches) <= limits.total
        taken += 1
    assert taken > 300


def test_a_budget_is_never_overdrawn_and_serves_in_turn() -> None:
    budget, most, held, order = Budget(10), 0, 0, []
    lock = threading.Lock()

    def work(number: int, nbytes: int) -> None:
        nonlocal most, held
        for _ in range(200):
            with budget.taken(nbytes):
                with lock:
                    held += nbytes
                    most = max(most, held)
                with lock:
                    held -= nbytes
        order.append(number)

    threads = [threading.Thread(target=work, args=(n, size)) for n, size in enumerate((10, 3, 4, 1, 7))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 10
    assert len(order) == 5
