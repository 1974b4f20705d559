"use strict";
// Sorts the table of layers by a click on a head, and folds it to its worst rows. The page is complete without it.
(function () {
  var table = document.getElementById("layers");
  if (!table) return;
  var body = table.tBodies[0];
  var rows = Array.prototype.slice.call(body.rows);
  var FOLDED = 20;
  var open = rows.length <= FOLDED + 5;
  var button = document.getElementById("all-layers");

  function show() {
    for (var i = 0; i < rows.length; i++) rows[i].hidden = !open && i >= FOLDED;
    button.hidden = rows.length <= FOLDED + 5;
    button.textContent = open ? "Show fewer" : "Show all " + rows.length + " layers";
    button.setAttribute("aria-expanded", String(open));
  }

  function value(row, column) {
    var cell = row.cells[column];
    var key = cell.getAttribute("data-value");
    return key === null ? cell.textContent.trim() : key === "" ? null : Number(key);
  }

  function sort(head, column) {
    var down = head.getAttribute("aria-sort") !== "descending";
    if (typeof value(rows[0], column) === "string" && !head.hasAttribute("aria-sort")) down = false;
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (cell) { cell.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    rows.sort(function (a, b) {
      var x = value(a, column), y = value(b, column);
      if (x === null || y === null) return x === y ? 0 : x === null ? 1 : -1; // what was not measured comes last
      var order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
      return down ? -order : order;
    });
    rows.forEach(function (row) { body.appendChild(row); });
    show();
  }

  Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, column) {
    var press = document.createElement("button");
    press.type = "button";
    while (head.firstChild) press.appendChild(head.firstChild);
    head.appendChild(press);
    press.addEventListener("click", function () { sort(head, column); });
  });
  button.addEventListener("click", function () { open = !open; show(); });
  show();
})();
