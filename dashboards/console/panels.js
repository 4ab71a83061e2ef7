// A card for each panel, drawn by its shape. Built once a board; news goes into what is there.

import * as address from "./address.js";
import { Chart, pivot, summary } from "./chart.js";
import { fill, h, say, set } from "./dom.js";
import { SIGNS, badge } from "./states.js";
import { UNKNOWN, amount, cell, iso, moment, seconds } from "./words.js";

// Younger than this, or than this part of the range, is as good as now.
const LATE_S = 30;
const LATE_PARTS = 60;

const DRAWN = { series: SeriesBody, bars: BarsBody, stat: StatBody, table: TableBody };

/** `{element, update(answer), problem(text), redraw(), destroy()}` of a panel's definition. */
export function card(panel, boards) {
  const id = `panel-${panel.key}`;
  const note = h("p", { class: "note", hidden: true });
  const age = h("span", { class: "age", hidden: true, title: "UTC. A panel is told when its answer has changed, and is asked the more rarely the longer that takes" });
  const body = new DRAWN[panel.shape](panel);
  const toggle = panel.shape === "series" && h("button", { type: "button", class: "small", "aria-pressed": "false", title: "As a table (t)", onclick: () => flip() }, "table");
  const more = panel.more && boards.find((board) => board.key === panel.more);
  const link = more && h("a", { class: "small", href: address.href({ board: more.key }), onclick: (event) => address.follow(event, { board: more.key, open: null }) }, `${more.title} ›`);
  const element = h(
    "section",
    { class: `card w${panel.width} ${panel.shape}`, id, "aria-labelledby": `${id}-title`, "aria-busy": "true", "data-panel": panel.key },
    h("header", {}, h("h2", { id: `${id}-title` }, panel.title), age, h("p", { class: "about", title: panel.about }, panel.about.split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part))), toggle, link),
    note,
    body.element,
  );

  function flip() {
    const asTable = toggle.getAttribute("aria-pressed") !== "true";
    toggle.setAttribute("aria-pressed", String(asTable));
    body.flip(asTable);
  }

  element.addEventListener("keydown", (event) => {
    if (event.key === "t" && toggle && !event.ctrlKey && !event.metaKey && !event.altKey) flip();
  });
  let toldAt = null;
  return {
    element,
    /** Say how old it is once others are much younger: a question that takes long is asked rarely. */
    tick(now, { range, since }) {
      const late = toldAt !== null && !since && now - toldAt > Math.max(LATE_S, address.rangeSeconds(range) / LATE_PARTS);
      age.hidden = !late;
      if (late) say(age, `told ${moment(toldAt)}`);
    },
    update(answer, view) {
      toldAt = seconds(answer.as_of);
      element.removeAttribute("aria-busy");
      element.classList.remove("away");
      note.hidden = true;
      body.update(answer, view);
    },
    problem(text) {
      element.removeAttribute("aria-busy");
      element.classList.add("away");
      note.hidden = false;
      say(note, text);
    },
    redraw: () => body.redraw?.(),
    destroy: () => body.destroy?.(),
  };
}

/** Which words of the question a series' name is a value of. */
function about(panel, name) {
  const of = panel.series_of === "by" ? address.now().by || "model" : panel.series_of;
  return of && name && name !== "other" && name !== "unknown" ? { of, is: name } : {};
}

function SeriesBody(panel) {
  const pick = (at, step, name) =>
    address.go({ open: "calls", from: iso(at), to: iso(at + step), ...{ of: null, is: null }, ...about(panel, name), order: orderOf(panel.unit), id: null });
  const chart = new Chart(panel, { onZoom: (since, until) => address.go({ since, until, range: null }), onPick: pick });
  const empty = h("p", { class: "quiet", hidden: true }, "Nothing in this range");
  const table = h("div", { class: "scroll alternative", tabindex: "0", role: "group", "aria-label": `${panel.title} as a table`, hidden: true });
  this.element = h("div", { class: "body" }, chart.element, empty, table);
  let data = null;

  const drawTable = () => {
    if (table.hidden || !data) return;
    const rows = data.t.map((at, i) => [at, i]).reverse();
    fill(
      table,
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "UTC"), data.names.map((name) => h("th", { scope: "col", class: "n" }, name || UNKNOWN)))),
        h(
          "tbody",
          {},
          rows.map(([at, i]) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, h("button", { type: "button", class: "link", "data-key": `at-${at}`, title: "The calls of this moment", onclick: () => pick(at, data.step, null) }, moment(at))),
              data.names.map((name) => h("td", { class: "n" }, amount(panel.unit, data.values.get(name)[i]))),
            ),
          ),
        ),
      ),
    );
  };

  this.update = ({ rows, step_s: step }, view) => {
    data = pivot(rows, step, panel.stacked);
    empty.hidden = rows.length > 0;
    chart.element.hidden = rows.length === 0 || !table.hidden;
    if (rows.length) chart.update(data, view);
    set(chart.canvas, { "aria-label": summary(panel, data) });
    drawTable();
  };
  this.flip = (asTable) => {
    table.hidden = !asTable;
    chart.element.hidden = asTable || !data?.t.length;
    drawTable();
  };
  this.redraw = () => chart.redraw();
  this.destroy = () => chart.destroy();
}

const orderOf = (unit) => ({ usd: "dearest", seconds: "slowest", share: "errors" })[unit] ?? "newest";

function BarsBody(panel) {
  const list = h("ol", { class: "bars" });
  this.element = h("div", { class: "body" }, list);
  this.update = ({ rows }) => {
    const most = Math.max(...rows.map((row) => row[1] ?? 0), 0);
    if (!rows.length) return fill(list, h("li", { class: "quiet" }, "Nothing in this range"));
    fill(
      list,
      rows.map(([name, value]) => {
        const bar = h("i", { class: "bar", "aria-hidden": "true" });
        bar.style.inlineSize = `${most && value ? Math.max((100 * value) / most, 0.5) : 0}%`;
        return h("li", {}, h("span", { class: "name", title: name ?? "" }, name || UNKNOWN), h("span", { class: "track" }, bar), h("b", {}, amount(panel.unit, value)));
      }),
    );
  };
}

function StatBody(panel) {
  const figure = h("b", { class: "figure" }, UNKNOWN);
  const change = h("span", { class: "change" });
  this.element = h("div", { class: "body" }, figure, change);
  this.update = ({ rows, columns }) => {
    const row = rows[0] ?? [];
    const value = row[columns.indexOf("value")] ?? null;
    const before = row[columns.indexOf("before")] ?? null;
    say(figure, amount(panel.unit, value, true));
    set(figure, { title: amount(panel.unit, value) });
    say(change, compared(panel.unit, value, before));
  };
}

function compared(unit, value, before) {
  if (value === null || before === null) return `before ${amount(unit, before, true)}`;
  if (value === before) return "as before";
  const arrow = value > before ? "▲" : "▼";
  if (unit === "share") return `${arrow} from ${amount(unit, before)}`;
  if (before === 0) return `${arrow} from ${amount(unit, before)}`;
  const by = Math.abs(value - before) / Math.abs(before);
  return `${arrow} ${by >= 10 ? `${Math.round(value / before)} ×` : amount("share", by)} · before ${amount(unit, before, true)}`;
}

const isNumber = (how) => how !== "text" && how !== "time";

/** What a click on a cell's value shows. */
function drilled(name, drill, value) {
  if (value === null || value === undefined || value === "") return null;
  if (name === "call_id") return { open: "call", id: value };
  return drill ? { [drill]: value } : null;
}

function TableBody(panel) {
  const body = h("tbody");
  const head = h("tr");
  const empty = h("p", { class: "quiet", hidden: true }, "Nothing in this range");
  const region = h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": panel.title }, h("table", {}, h("thead", {}, head), body));
  this.element = h("div", { class: "body" }, region, empty);
  const known = new Map((panel.columns ?? []).map((column) => [column.name, column]));
  let headed = "";
  this.update = ({ columns, rows }) => {
    const shown = columns.map((name) => known.get(name) ?? { name, title: name.replaceAll("_", " "), how: "text", drill: null });
    if (headed !== columns.join()) {
      headed = columns.join();
      fill(head, shown.map((column) => h("th", { scope: "col", class: isNumber(column.how) && "n" }, column.title)));
    }
    empty.hidden = rows.length > 0;
    region.hidden = rows.length === 0;
    fill(
      body,
      rows.map((row, at) =>
        h(
          "tr",
          {},
          shown.map((column, i) => {
            const text = cell(column.how, row[i]);
            if (SIGNS[text] && column.name === "state") return h(i ? "td" : "th", { scope: i ? null : "row" }, badge(text));
            const to = drilled(column.name, column.drill, row[i]);
            const inside = to ? h("a", { href: address.href(to), "data-key": `${at}-${i}`, onclick: (event) => address.follow(event, to) }, text) : text;
            return h(i ? "td" : "th", { scope: i ? null : "row", class: isNumber(column.how) && "n", title: String(row[i] ?? "") .length > 40 ? row[i] : null }, inside);
          }),
        ),
      ),
    );
  };
}

