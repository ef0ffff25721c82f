// The page of a leaderboard: the table out of the JSON block, and each model's own page.
// Everything from a result file is put in as text, never as markup.

// Objects without a prototype: a task may be called "constructor".
const data = JSON.parse(document.getElementById("data").textContent, (key, value) =>
  value && typeof value === "object" && !Array.isArray(value)
    ? Object.assign(Object.create(null), value) : value);
// A row's cells by column: the file holds tenths of a percent, and ends as distances.
const tenth = (number) => (typeof number === "number" ? number / 10 : null);
const end = (value, distance, way) =>
  typeof distance === "number" ? tenth(value + way * distance) : null;

function read([value, below, above, n, strict]) {
  return [tenth(value), end(value, below, -1), end(value, above, 1), n ?? null, tenth(strict)];
}

function readCell([order, value, below, above, strict, note = null]) {
  const marks = (note ? "*" : "") + (typeof strict === "number" ? "†" : "");
  const text = tenth(value).toFixed(1) + marks;
  return [order, end(value, below, -1), end(value, above, 1), text, note, tenth(strict)];
}

for (const suite of data.suites) {
  const names = Object.keys(suite.columns);
  for (const row of suite.rows) {
    const cells = Object.create(null);
    names.forEach((name, number) => {
      if (row.cells[number]) cells[name] = readCell(row.cells[number]);
    });
    row.cells = cells;
  }
}

const at = (id) => document.getElementById(id);
const state = { suite: 0, table: null, opener: null };

function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  if (text !== "") made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// A bar from 0 to 100: the interval, the value, and ticks where chance and text alone would be.
function bar(value, low, high, chance, blind) {
  const svg = drawn("svg", { class: "bar", viewBox: "0 0 100 12", preserveAspectRatio: "none",
    "aria-hidden": "true" });
  const parts = [["rail", 0, 100, 5.5, 1]];
  if (low !== null) parts.push(["interval", low, Math.max(high - low, 0.5), 3, 6]);
  if (chance !== null) parts.push(["chance", chance - 0.6, 1.2, 0, 12]);
  if (blind !== null) parts.push(["blind", blind - 0.6, 1.2, 0, 12]);
  parts.push(["value", value - 0.8, 1.6, 1, 10]);
  for (const [kind, x, width, y, height] of parts) {
    svg.append(drawn("rect", { class: kind, x, width, y, height }));
  }
  return svg;
}

function scoreCell(cell, chance, blind) {
  const made = element("td", "", { class: "score" });
  if (!cell) {
    made.append(element("span", "-", { class: "number" }));
    made.dataset.order = -1;
    return made;
  }
  const [order, low, high, text, note = null] = cell;
  made.append(element("span", text, { class: "number" }));
  if (low !== null) {
    made.append(element("span", ` [${low.toFixed(1)}, ${high.toFixed(1)}]`, { class: "ends" }));
  }
  made.append(bar(order, low, high, chance, blind));
  const told = [note, chance === null ? "" : `chance ${chance.toFixed(1)}`,
    blind === null ? "" : `text alone ${blind.toFixed(1)}`].filter(Boolean);
  if (told.length) made.title = told.join("; ");
  made.dataset.order = order;
  return made;
}

function textCell(text, order = text, kind = "td") {
  const made = element(kind, text || "-");
  made.dataset.order = order;
  made.dataset.search = text;
  return made;
}

// ------------------------------------------------------------------------------------ the table

function boardTable() {
  const suite = data.suites[state.suite];
  const names = suite.groups[at("group").value];
  const table = element("table", "", { id: "board" });
  table.append(element("caption", `${suite.title}: ${at("group").value}, percent with 95% ` +
    "intervals. Choose a heading to sort, a model for its own page."));
  const head = element("tr");
  for (const name of ["Rank", "Model", "Kind", "Family", "Base", ...names]) {
    head.append(element("th", name, { scope: "col" }));
  }
  table.append(element("thead"));
  table.tHead.append(head);
  const body = element("tbody");
  suite.rows.forEach((row, number) => body.append(boardRow(suite, row, number, names)));
  table.append(body);
  return table;
}

function boardRow(suite, row, number, names) {
  const line = element("tr", "", { class: row.kind });
  line.append(textCell(row.place, row.rank ? row.rank[0] + row.rank[1] / 1e6 : -1));
  const model = textCell("", row.model, "th");
  model.scope = "row";
  model.dataset.search = row.model;
  model.replaceChildren(element("a", row.model, { href: `#model-${state.suite}-${number}` }));
  line.append(model, textCell(row.kind), textCell(row.family), textCell(row.base));
  for (const name of names) {
    const column = suite.columns[name];
    line.append(scoreCell(row.cells[name], column.chance, column.blind));
  }
  for (const cell of line.querySelectorAll(".score")) cell.dataset.search = "";
  return line;
}

// Holes come last whichever way is sorted.
const byScore = (way) => (a, b) => (a < 0) - (b < 0) || way * (a - b);

function showTable() {
  if (state.table) state.table.destroy();
  at("place").replaceChildren(boardTable());
  state.table = jQuery("#board").DataTable({
    paging: false,
    order: [],
    autoWidth: false,
    layout: { topStart: "search", topEnd: "info", bottomStart: null, bottomEnd: null },
    language: {
      search: "Search", info: "_TOTAL_ rows", infoEmpty: "no row", infoFiltered: "of _MAX_",
      zeroRecords: "No row is of that kind.", emptyTable: "There is no row.",
    },
    columnDefs: [{ targets: [0], type: "score" },
      { targets: [1, 2, 3, 4], type: "string" },
      { targets: "_all", type: "score", orderSequence: ["desc", "asc"] }],
  });
  state.table.search.fixed("chosen", (text, values, index) => {
    const row = data.suites[state.suite].rows[index];
    return ["kind", "family", "base"].every((key) =>
      at(key).value === "" || at(key).value === `=${row[key]}`);
  });
  state.table.draw();
}

function fill(id, values, all) {
  const select = at(id);
  select.replaceChildren();
  if (all) select.append(element("option", all, { value: "" }));
  for (const [value, text] of values) select.append(element("option", text, { value }));
}

function showSuite() {
  const suite = data.suites[state.suite];
  document.querySelectorAll("[data-suite]").forEach((part) => {
    part.hidden = Number(part.dataset.suite) !== state.suite;
  });
  fill("group", Object.keys(suite.groups).map((name) => [name, name]));
  for (const key of ["kind", "family", "base"]) {
    const found = [...new Set(suite.rows.map((row) => row[key]))].sort();
    fill(key, found.map((value) => [`=${value}`, value || "not stated"]), "all");
  }
  showTable();
}

// ------------------------------------------------------------------------------ a model's own page

function listOf(pairs) {
  const list = element("dl");
  for (const [name, value] of pairs) list.append(element("dt", name), element("dd", value));
  return list;
}

function linesOf(lines) {
  const list = element("ul");
  for (const line of lines) list.append(element("li", line));
  return list;
}

function tableOf(caption, header, rows) {
  const table = element("table");
  table.append(element("caption", caption), element("thead"));
  const head = element("tr");
  for (const name of header) head.append(element("th", name, { scope: "col" }));
  table.tHead.append(head);
  const body = element("tbody");
  body.append(...rows);
  table.append(body);
  const around = element("div", "", { class: "wide", tabindex: "0", role: "region",
    "aria-label": caption });
  around.append(table);
  return around;
}

function taskRow(node, cell) {
  const [name, depth, metric, promised, chance, blind] = node;
  const line = element("tr", "", { class: `depth${depth}` });
  line.append(element("th", name, { scope: "row" }), element("td", metric));
  const [value, low = null, high = null, n = null, strict = null] = cell;
  const text = value.toFixed(1) + (strict === null ? "" : "†");
  line.append(scoreCell([value, low, high, text], chance, blind));
  for (const number of [chance, blind, strict]) {
    line.append(element("td", number === null ? "-" : number.toFixed(1)));
  }
  line.append(element("td", (n === null ? promised : n).toLocaleString("en")));
  return line;
}

function showModel(suite, row) {
  const parts = [element("h2", row.model, { tabindex: "-1", id: "model-name" })];
  const back = element("p");
  back.append(element("a", "Back to the table", { href: "#table" }));
  const { flags: told = [], lists = [], who = [], about } = row;
  const known = [["Kind", row.kind], ["Family", row.family], ["Base", row.base], ...about];
  const flags = told.length ? linesOf(told) : element("p", row.tasks ? "None." : "Not known.");
  parts.push(back, listOf(known.filter(([, text]) => text)), element("h3", "Flags"), flags);
  const lines = [];
  const names = Object.keys(suite.columns).filter((name) => name in row.cells);
  for (const name of names.filter((name) => !row.tasks || suite.columns[name].average)) {
    const column = suite.columns[name];
    const cell = row.cells[name];
    lines.push(taskRow([name, 0, "", 0, column.chance, column.blind],
      [cell[0], cell[1], cell[2], 0, cell[5] ?? null]));
    lines.at(-1).lastChild.textContent = "-";
  }
  for (const [task, cells] of Object.entries(row.tasks || {})) {
    suite.tasks[task].forEach((node, number) => {
      if (cells[number]) lines.push(taskRow(node, read(cells[number])));
    });
  }
  parts.push(element("h3", "Scores"), tableOf("Every task and subset, percent",
    ["task or subset", "metric", "score", "chance", "text alone", "strict", "n"], lines));
  for (const [heading, lines] of lists) parts.push(element("h3", heading), linesOf(lines));
  if (row.comparison) parts.push(...comparison(row.comparison));
  if (who.length) parts.push(element("h3", "Identity and provenance"), listOf(who));
  at("model").replaceChildren(...parts);
}

function comparison(found) {
  const parts = [element("h3", `Against its base, ${found.a}`), element("p", found.sentence)];
  const rows = found.lines.map((cells) => {
    const line = element("tr");
    cells.forEach((text, number) => line.append(
      element(number ? "td" : "th", text, number ? {} : { scope: "row" })));
    return line;
  });
  parts.push(tableOf("Difference to the base over the same samples",
    ["", "metric", "base", "this", "difference", "verdict", "fixed", "broken"], rows));
  const flips = found.flips.map(([what, where, texts]) => {
    const line = element("tr");
    const told = element("td", "", { class: "texts" });
    told.append(linesOf(texts));
    line.append(element("th", what, { scope: "row" }), element("td", where), told);
    return line;
  });
  if (flips.length) parts.push(tableOf("Flipped samples, the biggest movers first",
    ["flip", "sample", "texts, the right one first"], flips));
  return parts;
}

// --------------------------------------------------------------------------------- which is shown

function show() {
  const [, suite, number] = /^#model-(\d+)-(\d+)$/.exec(location.hash) || [];
  const row = data.suites[Number(suite)]?.rows[Number(number)];
  const before = !at("model").hidden;
  at("model").hidden = !row;
  at("overview").hidden = Boolean(row);
  document.title = row ? `${row.model} - ${data.title}` : data.title;
  if (row) {
    state.opener = location.hash;
    if (Number(suite) !== state.suite) {
      state.suite = Number(suite);
      at("suite").value = suite;
      showSuite();
    }
    showModel(data.suites[state.suite], row);
    scrollTo(0, 0);
    at("model-name").focus();
  } else if (before) {
    document.querySelector(`#board a[href="${state.opener}"]`)?.focus();
  }
}

jQuery.fn.dataTable.ext.type.order["score-asc"] = byScore(1);
jQuery.fn.dataTable.ext.type.order["score-desc"] = byScore(-1);
fill("suite", data.suites.map((suite, number) => [number, suite.title]));
at("suite-choice").hidden = data.suites.length < 2;
at("suite").addEventListener("change", () => {
  state.suite = Number(at("suite").value);
  showSuite();
});
at("group").addEventListener("change", showTable);
for (const key of ["kind", "family", "base"]) {
  at(key).addEventListener("change", () => state.table.draw());
}
addEventListener("hashchange", show);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !at("model").hidden) location.hash = "#table";
});
at("choices").hidden = false;
showSuite();
show();
