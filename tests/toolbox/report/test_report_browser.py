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


# Every element that sticks out, every box that hides a part of its text or has to be scrolled sideways, the widths of
# the columns of the map, and the names that a line break cuts.
LAYOUT = """<script>
window.onload = function () {
  var found = {width: innerWidth, out: [], cut: [], columns: [], names: [], labels: [], cells: 0};
  var seen = function (at) { return at.getClientRects().length > 0; };
  document.querySelectorAll("body *").forEach(function (at) {
    if (!seen(at)) { return; }
    var box = at.getBoundingClientRect(), style = getComputedStyle(at), what = at.tagName + " " + at.className;
    if (box.right > innerWidth + 1 || box.left < -1) { found.out.push(what + at.textContent.slice(0, 40)); }
    var is_wider = at.scrollWidth > at.clientWidth + 1;
    if (is_wider && style.overflowX !== "visible" && !at.closest("svg")) { found.cut.push(what); }
  });
  var map = Array.from(document.querySelectorAll("table.heat")).find(seen);
  Array.from(map.tBodies[0].rows[0].cells).slice(1).forEach(function (cell) {
    found.columns.push(cell.getBoundingClientRect().width);
  });
  found.cells = Array.from(document.querySelectorAll(".sortable tbody tr:first-child td")).filter(seen).length;
  document.querySelectorAll(".sortable tbody .name").forEach(function (name) {
    var range = document.createRange();
    range.selectNodeContents(name);
    if (range.getClientRects().length > 1) { found.names.push(name.textContent); }
  });
  Array.from(document.querySelectorAll("#other svg.chart")).filter(seen).forEach(function (chart) {
    chart.querySelectorAll(".strong").forEach(function (label) { found.labels.push(label.textContent); });
  });
  var out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
};
</script>"""


def probed(page: Path, probe: str, width: int, folder: Path) -> dict[str, Any]:
    """What a script finds in the page on a screen of this width."""
    html = page.read_text()
    start = html.index('<meta http-equiv="Content-Security-Policy"')
    inside = html[:start] + probe + html[html.index("/>", start) + 2 :]
    (folder / "probed.html").write_text(FRAME.format(width=width, page=escape(inside)))
    found: dict[str, Any] = json.loads(after_loading(folder / "probed.html", folder).found)
    return found


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a model of 80 layers."""
    folder = tmp_path_factory.mktemp("deep")
    make_model(folder / "hf", Shape(n_embd=32, n_ff=32, n_layer=80, n_head=2, n_head_kv=1))
    convert(folder / "hf", folder / "m.gguf", types="Q4_0")
    report(folder / "m.gguf", folder / "page.html", source=folder / "hf")
    return folder / "page.html"


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
    found = probed(page, PROBE, width, tmp_path)
    assert found["errors"] == []
    assert found["scroll"] <= found["width"] == width
    assert found["bar"].startswith("Q4_K\n")
    assert found["cell"].startswith("blk.0.attn_q.weight\nQ4_K, 4.5 bits for each weight\n")
    assert len(found["errorsDown"]) > 10
    assert found["errorsDown"] == sorted(found["errorsDown"], reverse=True)
    assert sorted(found["shown"]) == ["blk.0.attn_k.weight", "blk.1.attn_k.weight"]


@pytest.mark.parametrize("width", [390, 768, 1400])
@pytest.mark.parametrize("model", ["page", "deep"])
def test_nothing_is_cut_or_hidden(model: str, width: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = probed(request.getfixturevalue(model), LAYOUT, width, tmp_path)
    assert found["width"] == width
    assert found["out"] == []
    assert found["cut"] == []
    assert found["names"] == []
    assert found["cells"] == 9
    assert len(found["columns"]) == {"page": 2, "deep": 80}[model]
    assert max(found["columns"]) - min(found["columns"]) <= 0.5
    assert set(found["labels"]) == {"page": {"Q4_K", "Q6_K"}, "deep": {"Q4_0", "Q8_0"}}[model]
