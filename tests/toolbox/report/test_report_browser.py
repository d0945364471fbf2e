"""The page of `report` in a browser, where there is one: its script runs under its own policy, nothing sticks out."""

from __future__ import annotations

import json
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from gguf_forge import convert, report
from gguf_forge.cli.demo_checkpoint import Shape, make_model

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium")

# What a reader would do, and what then is to be seen. It replaces the policy, which allows the page's own script alone.
PROBE = """<script>
window.onload = function () {
  var found = {width: innerWidth, scroll: document.documentElement.scrollWidth, errors: window.failures || []};
  function said(selector) {
    var at = document.querySelector(selector);
    at.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, clientX: 20, clientY: 20}));
    return document.querySelector(".tip").textContent;
  }
  found.bar = said("svg.strip [data-tip]");
  found.cell = said("table.heat td[data-of]");
  document.querySelectorAll("table.sortable th button")[4].click();
  found.errorsDown = Array.from(document.querySelectorAll("table.sortable tbody tr")).map(function (row) {
    return parseFloat(row.cells[4].getAttribute("data-value"));
  });
  var find = document.querySelector(".find");
  find.value = "attn_k";
  find.dispatchEvent(new Event("input"));
  found.shown = Array.from(document.querySelectorAll("table.sortable tbody tr")).filter(function (row) {
    return !row.hidden;
  }).map(function (row) { return row.cells[0].textContent; });
  var out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
};
window.onerror = function (message) { window.failures = (window.failures || []).concat(message); };
</script>"""


class Seen(HTMLParser):
    """Elements of a page by id and class, and the text of the one with the id `found`."""

    def __init__(self) -> None:
        super().__init__()
        self.classes: set[str] = set()
        self.found = ""
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.classes |= set((given.get("class") or "").split())
        self._inside = given.get("id") == "found"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found += data


# A window is 500 pixels wide at least; a frame can be as narrow as a phone.
FRAME = """<!DOCTYPE html><iframe width="{width}" height="800" srcdoc="{page}"></iframe><script>
window.onload = function () {{
  document.body.append(document.querySelector("iframe").contentDocument.getElementById("found"));
}};
</script>"""


def after_loading(page: Path, folder: Path) -> Seen:
    """The page as it is when its script has run."""
    assert BROWSER
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--window-size=1600,900"]
    command = [BROWSER, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = Seen()
    seen.feed(done.stdout)
    return seen


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    make_model(folder / "hf", Shape(n_embd=256, n_ff=512, n_layer=2, n_head=4, n_head_kv=2))
    convert(folder / "hf", folder / "m.gguf", types="Q4_K_M")
    report(folder / "m.gguf", folder / "page.html", source=folder / "hf")
    return folder / "page.html"


def test_the_script_runs_under_the_policy(page: Path, tmp_path: Path) -> None:
    before = Seen()
    before.feed(page.read_text())
    assert after_loading(page, tmp_path).classes - before.classes == {"tip"}


@pytest.mark.parametrize("width", [1400, 390])
def test_what_a_reader_does(page: Path, tmp_path: Path, width: int) -> None:
    html = page.read_text()
    start = html.index('<meta http-equiv="Content-Security-Policy"')
    probed = tmp_path / "probed.html"
    inside = html[:start] + PROBE + html[html.index("/>", start) + 2 :]
    probed.write_text(FRAME.format(width=width, page=escape(inside)))
    found: dict[str, Any] = json.loads(after_loading(probed, tmp_path).found)
    assert found["errors"] == []
    assert found["scroll"] <= found["width"] == width
    assert found["bar"].startswith("Q4_K\n")
    assert found["cell"].startswith("blk.0.attn_q.weight\nQ4_K, 4.5 bits for each weight\n")
    assert len(found["errorsDown"]) > 10
    assert found["errorsDown"] == sorted(found["errorsDown"], reverse=True)
    assert sorted(found["shown"]) == ["blk.0.attn_k.weight", "blk.1.attn_k.weight"]
