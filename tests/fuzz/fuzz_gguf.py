"""Fuzzes the GGUF reader for as long as one likes.

    python tests/fuzz/fuzz_gguf.py SECONDS SEED.gguf...            structure-aware damage
    python tests/fuzz/fuzz_gguf.py SECONDS --atheris SEED.gguf...   coverage-guided (pip install atheris)

Every input must be refused with a ForgeError that names the file, or work, within a second of processor time and 1 GiB
of address space. One that does not is kept in the current folder as `find-*.gguf`.
"""

from __future__ import annotations

import hashlib
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

ADDRESS_SPACE = 1 << 30
SLOW = 1.0


def check(raw: bytes, path: Path) -> str:
    """How the reader takes `raw`: the kind of error, or "opened"."""
    from gguf_mutations import open_and_use

    from gguf_forge.errors import ForgeError

    path.write_bytes(raw)
    begun = time.process_time()
    try:
        open_and_use(path)
        outcome = "opened"
    except ForgeError as error:
        if error.file != path:
            raise
        outcome = type(error).__name__
    if time.process_time() - begun > SLOW:
        raise TimeoutError(f"{time.process_time() - begun:.1f} s")
    return outcome


def keep(raw: bytes, error: BaseException) -> None:
    name = f"find-{hashlib.sha256(raw).hexdigest()[:12]}.gguf"
    Path(name).write_bytes(raw)
    print(f"{name}: {type(error).__name__}: {error}", flush=True)


def damage(seeds: list[Path], seconds: float, path: Path) -> int:
    from gguf_mutations import fields_of, mutated

    files = [(seed.read_bytes(), fields_of(seed)) for seed in seeds]
    number, finds, outcomes = time.time_ns(), 0, Counter[str]()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number += 1
        source = random.Random(number)
        raw = mutated(*source.choice(files), source)
        try:
            outcomes[check(raw, path)] += 1
        except Exception as error:
            finds += 1
            keep(raw, error)
    print(f"{outcomes.total()} inputs: {dict(outcomes)}; {finds} finds", flush=True)
    return finds


def explore(seeds: list[Path], seconds: float, path: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=["gguf_forge"]):
        import gguf_forge.gguf_file.opened  # noqa: F401

    corpus = path.parent / "corpus"
    corpus.mkdir()
    for seed in seeds:
        (corpus / seed.name).write_bytes(seed.read_bytes()[: 64 << 10])

    def one(raw: bytes) -> None:
        try:
            check(raw, path)
        except Exception as error:
            keep(raw, error)
            raise

    arguments = [sys.argv[0], str(corpus), f"-max_total_time={int(seconds)}", "-max_len=65536", "-print_final_stats=1"]
    atheris.Setup(arguments, one)
    atheris.Fuzz()


def main() -> int:
    seconds, *rest = sys.argv[1:]
    guided = "--atheris" in rest
    seeds = [Path(name) for name in rest if name != "--atheris"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input.gguf"
        if guided:
            explore(seeds, float(seconds), path)
            return 0
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        return 1 if damage(seeds, float(seconds), path) else 0


if __name__ == "__main__":
    sys.exit(main())
