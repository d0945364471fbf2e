"""Replaces every file of a model's folder by the worst inputs, and says what each one costs.

    python tests/fuzz/worst_files.py                 all files, as a table in Markdown
    python tests/fuzz/worst_files.py config.json     these files

Each input is as large as files of the name may be (`gguf_forge/storage/limits.py`). A run is judged as the attacks of
`harness.py` are: memory, processor time, messages and exit codes have bounds.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

# What the largest file of a name is filled with: how it begins, what is repeated, how it ends.
FILLINGS: dict[str, tuple[bytes, bytes, bytes]] = {
    "empty lists": (b'{"a":[', b"[],", b"0]}"),
    "empty objects": (b'{"a":[', b"{},", b"0]}"),
    "nested lists": (b"", b"[", b""),
    "one text": (b'{"a":"', b"\\ud83d\\ude80", b'"}'),
    "one number": (b'{"a":', b"9", b"}"),
    "short lines": (b"", b"a b\n", b""),
    "zeros": (b"", b"\0", b""),
    "aliases": (b"---\nx: &a [1]\ny:\n", b"- *a\n", b"---\n"),
    "pieces": (b"", b"\x0a\x03\x0a\x01a", b""),
    "template": (b"", b"{{ 'a' * 10**9 }}", b""),
}
NAMED = "many keys"


def filling(kind: str, size: int) -> bytes:
    """The content of a file of at most `size` bytes."""
    if kind == NAMED:
        return b"{" + b"".join(b'"%07x":{"a":1},' % at for at in range((size - 20) // 18)) + b'"x":0}'
    begin, unit, end = FILLINGS[kind]
    return begin + unit * ((size - len(begin) - len(end)) // len(unit)) + end


def main() -> int:
    import harness
    import seeds
    from generators.bombs import NAMES

    from gguf_forge.storage.limits import limit_of

    harness._load_all()
    harness._adopt_orphans()
    names = sys.argv[1:] or sorted({*NAMES, "chat_template.jinja", "quanto_qmap.json", "1_Pooling/config.json"})
    n_runs = n_faults = 0
    print("| file | inputs | exit codes | most memory, MiB | of input |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="seeds-") as scratch:
        seeds.make(Path(scratch))
        for name in names:
            codes, worst = set(), (0, "")
            for kind in (*FILLINGS, NAMED):
                outcome = _run(name, filling(kind, min(limit_of(Path(name).name), 100_000_000)))
                faults = list(harness.faults_of(outcome))
                n_runs, n_faults = n_runs + 1, n_faults + bool(faults)
                codes.add(outcome.code)
                worst = max(worst, (outcome.peak, kind))
                for fault in faults:
                    print(f"{name}, {kind}: {fault}", file=sys.stderr, flush=True)
            listed = ", ".join(map(str, sorted(codes, key=str)))
            print(f"| {name} | {len(FILLINGS) + 1} | {listed} | {worst[0] >> 20} | {worst[1]} |", flush=True)
    print(f"\n{n_runs} runs, {n_faults} with faults")
    return 1 if n_faults else 0


def _run(name: str, content: bytes) -> Any:
    """What planning the model comes to whose file has this content."""
    import harness
    import seeds

    inside = Path(tempfile.mkdtemp(prefix="worst-"))
    try:
        (inside / "input").mkdir()
        model = seeds.checkpoint(inside / "input")
        path = model / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        if name.endswith("tokenizer.json"):
            (model / "tokenizer.model").unlink(missing_ok=True)
        path.write_bytes(content)
        return harness.run(["plan", str(model), "-t", "Q8_0"], inside)
    finally:
        shutil.rmtree(inside, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
