"""Runs of `split` and `merge` whose files are pinned in tests/splits.json; reference/make_splits.py made the digests.

Each has a family (tests/families), the type of the file that is split, and the options of `split`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PINNED = Path(__file__).parents[1] / "splits.json"


def split_runs() -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads(PINNED.read_text())
    return runs


def run_name(run: dict[str, Any]) -> str:
    return " ".join([run["family"], run["base"], *run["options"]])
