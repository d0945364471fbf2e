"use strict";
(function () {
  var tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);

  var about = Array.from(document.querySelectorAll("tr[data-about]")).map(function (row) { return row.getAttribute("data-about"); });

  function point(event) {
    var at = event.target instanceof Element ? event.target.closest("[data-tip], [data-of]") : null;
    tip.hidden = !at;
    if (!at) { return; }
    tip.textContent = at.hasAttribute("data-of") ? about[at.getAttribute("data-of")] : at.getAttribute("data-tip");
    var left = event.clientX + 14, top = event.clientY + 16;
    left = Math.max(8, Math.min(left, innerWidth - tip.offsetWidth - 8));
    if (top + tip.offsetHeight > innerHeight - 8) { top = event.clientY - tip.offsetHeight - 12; }
    tip.style.left = left + "px";
    tip.style.top = Math.max(8, top) + "px";
  }
  document.addEventListener("pointermove", point);
  document.addEventListener("pointerdown", point);
  document.addEventListener("scroll", function () { tip.hidden = true; }, true);

  function value(row, column) {
    var text = row.cells[column].getAttribute("data-value");
    var number = parseFloat(text);
    return isNaN(number) ? text : number;
  }
  document.querySelectorAll("table.sortable").forEach(function (table) {
    var body = table.tBodies[0];
    table.querySelectorAll("th button").forEach(function (button) {
      button.addEventListener("click", function () {
        var head = button.closest("th"), column = head.cellIndex;
        var falling = head.getAttribute("aria-sort") !== "descending";
        table.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        var rows = Array.from(body.rows);
        rows.sort(function (a, b) {
          var x = value(a, column), y = value(b, column);
          var order = typeof x === "number" ? (typeof y === "number" ? x - y : 1) : (typeof y === "number" ? -1 : x.localeCompare(y));
          return falling ? -order : order;
        });
        body.append.apply(body, rows);
      });
    });
  });
  document.querySelectorAll("input.find").forEach(function (find) {
    var count = document.getElementById("count"), all = count.textContent;
    find.hidden = false;
    find.addEventListener("input", function () {
      var wanted = find.value.toLowerCase(), shown = 0;
      document.querySelectorAll("#tensors tbody tr").forEach(function (row) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
        shown += row.hidden ? 0 : 1;
      });
      count.textContent = wanted ? shown + " of " + all : all;
    });
  });
})();
