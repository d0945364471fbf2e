"""Attacks commands with what generators write, for as long as one likes.

    python tests/fuzz/harness.py SECONDS                 all generators
    python tests/fuzz/harness.py SECONDS names cards     these generators
    python tests/fuzz/harness.py 0 names:17              one attack once more
    python tests/fuzz/harness.py --rounds 8 --first 1    attacks 1 to 8 of every generator: the same ones at each run

The first attack is numbered by the clock, so each run explores what no run has tried. `.ci/run` takes fixed numbers, so
that it fails for a change of the program and never by chance.

A generator is a function `(source: random.Random, folder: Path) -> list[str]`. It writes a model's folder or a file
into the empty `folder`, and returns the command line that reads it. The modules in `generators/` list theirs in
`GENERATORS`; `seeds.py` gives them valid models to damage. The same number always gives the same attack.

Each command runs in a child with limits on memory, time and files. `faults_of` says what it may not do. What breaks a
rule is kept in `finds/NAME-NUMBER/`, and is printed with the name to run it again.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import logging
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

Generator = Callable[[random.Random, Path], list[str]]

MEMORY = 2 << 30  # of address space, on top of what the program has when it begins
PROCESSOR_SECONDS = 20
SECONDS = 120  # a command that waits without working, for example for a FIFO
LARGEST_FILE = 256 << 20
MOST_MEMORY = (1 << 30) + (256 << 20)  # resident: what SECURITY.md allows, and what the program and its libraries take
MOST_TEXT_OF_ERRORS = 64 << 10
MOST_TEXT_FOR_A_BYTE = 32  # of the input; what is printed may not grow faster
_PR_SET_CHILD_SUBREAPER = 36  # of Linux
FORBIDDEN = (
    "Traceback (most recent call last)",
    "this is a bug in gguf-forge",
    "panicked at",
    "Exception ignored",
    "RuntimeWarning",
)


@dataclass(frozen=True)
class Outcome:
    """What came of a command.

    Attributes:
        code: The exit code, the negative number of the signal that ended it, or None after `SECONDS`.
        out: What it wrote to standard output.
        err: What it wrote to standard error.
        read: The bytes of all that it could read.
        names: The names of the files that it left, without those that a word of the command line asks for.
        changed: Whether the input is not as it was.
        outside: The names of what it left in the folder above.
        peak: The most memory that it held, in bytes.
        left_running: How many of its processes did not end with it.
        unreadable: The names of the GGUF files that it made and `verify` cannot read.
        is_there: Whether the folder that it ran in is still there.
    """

    code: int | None
    out: bytes
    err: bytes
    read: int
    names: tuple[str, ...]
    changed: bool
    outside: tuple[str, ...] = ()
    peak: int = 0
    left_running: int = 0
    unreadable: tuple[str, ...] = ()
    is_there: bool = True


def documented_codes() -> set[int]:
    from gguf_forge import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ForgeError)]
    from gguf_forge.cli.verify import MISMATCH

    return {0, MISMATCH} | {kind.exit_code for kind in kinds if kind is not errors.ForgeError}


def faults_of(outcome: Outcome) -> Iterator[str]:
    """What a command did that no input may make it do."""
    if outcome.code is None:
        yield f"it did not end in {SECONDS} s"
    elif outcome.code < 0:
        yield f"it was ended by {signal.Signals(-outcome.code).name}"
    elif outcome.code not in documented_codes():
        yield f"exit code {outcome.code}"
    for name, raw in (("output", outcome.out), ("errors", outcome.err)):
        text = raw.decode(errors="surrogateescape")
        yield from (f"{name}: {words}" for words in FORBIDDEN if words in text)
        if control := sorted({char for char in text if not char.isprintable() and char not in "\n\t"}):
            yield f"{name}: control characters {control[:8]}"
    if len(outcome.err) > MOST_TEXT_OF_ERRORS:
        yield f"errors: {len(outcome.err)} bytes"
    if len(outcome.out) > (1 << 20) + MOST_TEXT_FOR_A_BYTE * outcome.read:
        yield f"output: {len(outcome.out)} bytes for {outcome.read} bytes of input"
    for name in outcome.names:
        if not name.isprintable() or name.startswith(("-", ".")):
            yield f"it left a file called {name!r}"
    if outcome.changed:
        yield "it changed its input"
    if not outcome.is_there:
        yield "it removed the folder it ran in"
    yield from (f"it left {name!r} outside of its folder" for name in outcome.outside)
    yield from (f"verify cannot read its output {name!r}" for name in outcome.unreadable)
    if outcome.peak > MOST_MEMORY:
        yield f"it held {outcome.peak >> 20} MiB"
    if outcome.left_running:
        yield f"it left {outcome.left_running} processes behind"


def run(arguments: list[str], inside: Path) -> Outcome:
    """Runs a command line in a child of this process, which has loaded the program already, in `inside/here`."""
    here, out, err = inside / "here", inside / "out", inside / "err"
    here.mkdir(exist_ok=True)  # a generator may have put something there
    before, left = _listing(inside / "input"), set(here.iterdir())
    code, peak = _ended(arguments, here, out, err)
    is_there = here.is_dir()
    made = sorted(set(here.iterdir()) - left) if is_there else []
    outside = {path.name for path in inside.iterdir()} - {"input", "here", "out", "err"}
    return Outcome(
        code,
        out.read_bytes(),
        err.read_bytes(),
        sum(size for size, _ in before.values()),
        unasked(arguments, made),
        _listing(inside / "input") != before,
        tuple(sorted(outside)),
        peak,
        _end_orphans(),
        tuple(_unreadable(arguments, made, here)) if code == 0 else (),
        is_there,
    )


def unasked(arguments: list[str], made: list[Path]) -> tuple[str, ...]:
    """The names of files and folders that no path of the command line begins with. `{}` in it stands for the type."""
    asked = [re.split(r"\{\w*\}", part) for word in arguments for part in Path(word).parts[:1]]
    patterns = [re.compile(".*".join(map(re.escape, pieces)), re.DOTALL) for pieces in asked]
    return tuple(path.name for path in made if not any(each.fullmatch(path.name) for each in patterns))


def _unreadable(arguments: list[str], made: list[Path], here: Path) -> Iterator[str]:
    """The GGUF files among those that were made which `verify` cannot read. A copy of an input that it cannot read
    either, such as a file that is cut short, is not one."""
    inputs = [word for word in arguments if word.endswith(".gguf") and Path(word).is_absolute()]
    outputs = [path for path in made if path.suffix == ".gguf" and path.is_file()]
    firsts = [path for path in outputs if not re.search(r"-(?!00001)\d{5}-of-", path.name)]
    if firsts and all(_is_readable(path, here) for path in inputs):
        yield from (path.name for path in firsts if not _is_readable(f"./{path.name}", here))


def _is_readable(path: str, here: Path) -> bool:
    """Whether `verify` can read a file. It may find invalid blocks in it."""
    from gguf_forge.cli.verify import MISMATCH

    code, _ = _ended(["verify", path], here, Path(os.devnull), Path(os.devnull))
    return code in (0, MISMATCH)


def _end_orphans() -> int:
    """Ends what the command left running, and says how many processes that was."""
    count = 0
    with suppress(ChildProcessError):
        while True:
            ended, _ = os.waitpid(-1, os.WNOHANG)
            if not ended:
                for line in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                    os.kill(int(line), signal.SIGKILL)
                ended, _ = os.waitpid(-1, 0)
                count += 1
    return count


def _ended(arguments: list[str], here: Path, out: Path, err: Path) -> tuple[int | None, int]:
    """The exit code of a command line and the most memory that it held."""
    child = os.fork()
    if not child:
        _command(arguments, here, out, err)
    return _wait(child)


def _command(arguments: list[str], here: Path, out: Path, err: Path) -> None:
    """What the child does; it never returns."""
    code = 70
    try:
        os.setsid()
        for number, file in ((1, out), (2, err)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(here)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits = {
            resource.RLIMIT_AS: pages * resource.getpagesize() + MEMORY,
            resource.RLIMIT_CPU: PROCESSOR_SECONDS,
            resource.RLIMIT_FSIZE: LARGEST_FILE,
            resource.RLIMIT_CORE: 0,
        }
        for limit, value in limits.items():
            resource.setrlimit(limit, (value, value))
        from gguf_forge.cli import main

        code = main(arguments)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _wait(child: int) -> tuple[int | None, int]:
    end = time.monotonic() + SECONDS
    pause = 0.002
    while time.monotonic() < end:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss << 10
        time.sleep(pause)
        pause = min(0.1, pause * 1.5)
    os.killpg(child, signal.SIGKILL)
    _, _, usage = os.wait4(child, 0)
    return None, usage.ru_maxrss << 10


def _listing(folder: Path) -> dict[Path, tuple[int, int]]:
    """The size and the time of everything in a folder."""
    facts = ((path, path.lstat()) for path in folder.rglob("*"))
    return {path: (fact.st_size, fact.st_mtime_ns) for path, fact in facts}


def generators() -> dict[str, Generator]:
    """All generators by their names."""
    modules = sorted(path.stem for path in (HERE / "generators").glob("*.py"))
    every = (each for name in modules for each in importlib.import_module(f"generators.{name}").GENERATORS)
    return {each.__name__: each for each in every}


def attack(name_and_number: tuple[str, int], keep: Path) -> tuple[str, int, int | None, list[str]]:
    """Runs one attack; its name, its number, the exit code and the faults."""
    name, number = name_and_number
    inside = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        folder = inside / "input"
        folder.mkdir()
        try:
            arguments = generators()[name](random.Random(f"{name}:{number}"), folder)
        except Exception as error:  # one broken generator does not end a long run of all
            return name, number, None, [f"the generator failed: {error!r:.200}"]
        outcome = run(arguments, inside)
        faults = list(faults_of(outcome))
        if faults:
            (inside / "command").write_text(repr(arguments) + "\n" + "\n".join(faults) + "\n")
            keep_copy(inside, keep / f"{name}-{number}")
        return name, number, outcome.code, faults
    finally:
        shutil.rmtree(inside, ignore_errors=True)


def keep_copy(inside: Path, kept: Path) -> None:
    """Copies a find. Generators write sparse files of up to a terabyte: their holes stay holes."""
    shutil.rmtree(kept, ignore_errors=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--sparse=always", inside, kept], check=False)


def _adopt_orphans() -> None:
    """Processes whose parent ended become children of this one, so that none is missed."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _load_all() -> None:
    """Imports all modules of the package, so that no child has to."""
    import pkgutil

    import gguf_forge

    for module in pkgutil.walk_packages(gguf_forge.__path__, "gguf_forge."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _numbered(names: list[str], numbers: range, end: float) -> Iterator[tuple[str, int]]:
    for number in numbers:
        if time.monotonic() > end:
            break
        yield from ((name, number) for name in names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=float, nargs="?", default=float("inf"), help="of exploring")
    parser.add_argument("names", nargs="*", metavar="NAME[:NUMBER]")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--first", type=int, default=time.time_ns() // 10**8, help="number of the first attack")
    parser.add_argument("--rounds", type=int, default=sys.maxsize, help="attacks of each generator at most")
    parser.add_argument("--finds", type=Path, default=Path("finds"))
    given = parser.parse_args()

    import seeds

    _load_all()
    logging.getLogger("gguf_forge").addHandler(logging.NullHandler())  # generators call the package, too
    names = given.names or list(generators())
    again = [(name, int(number)) for name, _, number in (each.partition(":") for each in names) if number]
    end = time.monotonic() + given.seconds
    todo = again or _numbered(names, range(given.first, given.first + given.rounds), end)
    codes: dict[str, Counter[int | None]] = {}
    finds = 0
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="seeds-") as scratch:
        seeds.make(Path(scratch))
        with context.Pool(given.jobs, _adopt_orphans, maxtasksperchild=500) as pool:
            for part in _in_parts(todo, 4 * given.jobs):
                for name, number, code, faults in pool.imap_unordered(partial(attack, keep=given.finds), part):
                    codes.setdefault(name, Counter())[code] += 1
                    finds += bool(faults)
                    for fault in faults:
                        print(f"{name}:{number}: {fault}", flush=True)
    for name, counts in codes.items():
        ends = ", ".join(f"{count} x {code}" for code, count in counts.most_common())
        print(f"{name:<24} {counts.total():>6} attacks, exit codes: {ends}")
    print(f"{sum(counts.total() for counts in codes.values())} attacks, {finds} finds")
    return 1 if finds else 0


def _in_parts(items: Iterator[tuple[str, int]] | list[tuple[str, int]], size: int) -> Iterator[list[tuple[str, int]]]:
    """The items in lists of `size`: a pool would take all of an endless iterator at once."""
    part = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    yield part


if __name__ == "__main__":
    sys.exit(main())
