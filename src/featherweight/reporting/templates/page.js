"use strict";
// Sorts tables by a click on a column's head, and folds long ones to their first rows.
// The page is complete without it.
(function () {
  function toArray(list) { return Array.prototype.slice.call(list); }

  toArray(document.querySelectorAll("table[data-sortable], table[data-first-rows]")).forEach(function (table) {
    var body = table.tBodies[0];
    var heads = toArray(table.tHead.rows[0].cells);
    var rows = toArray(body.rows);
    var firstRows = Number(table.getAttribute("data-first-rows"));
    var isFolded = firstRows > 0;
    var button = firstRows > 0 ? addButton() : null;

    function addButton() {
      var button = document.createElement("button");
      button.type = "button";
      button.className = "more";
      button.setAttribute("aria-controls", table.id);
      button.addEventListener("click", function () { isFolded = !isFolded; show(); });
      table.parentNode.insertAdjacentElement("afterend", button);
      return button;
    }

    function show() {
      rows.forEach(function (row, index) { row.hidden = isFolded && index >= firstRows; });
      if (!button) return;
      var noun = table.getAttribute("data-row-noun");
      button.textContent = isFolded ? "Show all " + rows.length + " " + noun : "Show fewer";
      button.setAttribute("aria-expanded", String(!isFolded));
    }

    // A number for a cell with data-value (null when it is empty), the text of any other cell.
    function value(row, column) {
      var cell = row.cells[column];
      var key = cell.getAttribute("data-value");
      return key === null ? cell.textContent.trim() : key === "" ? null : Number(key);
    }

    function sort(column) {
      var head = heads[column];
      var isText = typeof value(rows[0], column) === "string";
      var current = head.getAttribute("aria-sort");
      // Numbers begin with the largest, text with the first in the alphabet.
      var isDescending = current ? current === "ascending" : !isText;
      heads.forEach(function (cell) { cell.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
      rows.sort(function (rowA, rowB) {
        var a = value(rowA, column), b = value(rowB, column);
        if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1; // missing numbers last
        var order = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
        return isDescending ? -order : order;
      });
      rows.forEach(function (row) { body.appendChild(row); });
      show();
    }

    if (table.hasAttribute("data-sortable") && rows.length > 1) {
      heads.forEach(function (head, column) {
        var button = document.createElement("button");
        button.type = "button";
        while (head.firstChild) button.appendChild(head.firstChild);
        head.appendChild(button);
        button.addEventListener("click", function () { sort(column); });
      });
    }
    show();
  });
})();
