// Series over time, drawn by uPlot: lines, or areas on top of one another. A gap is what nobody knows.

import { colour, faded, ink, slot } from "./colours.js";
import { h, say } from "./dom.js";
import { amount, clock, iso, seconds } from "./words.js";

const MOST_POINTS = 2_000;
const FONT = "11px system-ui, sans-serif";

/** Rows [t, series, value] as columns: {t: seconds[], names, values: name → number|null[], step}. */
export function pivot(rows, stepHint, additive) {
  const names = [...new Set(rows.map((row) => row[1]))];
  const at = rows.map((row) => seconds(row[0]));
  const moments = [...new Set(at)].sort((a, b) => a - b);
  // Some answers are by the hour, however narrow a step was asked for: what is there tells.
  let step = Infinity;
  for (let i = 1; i < moments.length; i += 1) step = Math.min(step, moments[i] - moments[i - 1]);
  if (!Number.isFinite(step)) step = moments.every((one) => one % 3_600 === 0) ? 3_600 : 0;
  step = Math.max(step, stepHint ?? 0) || 60;
  // Between the first and the last moment each step has a point, so that a silence is seen as one.
  const t = [];
  const first = moments[0];
  const count = moments.length ? Math.round((moments.at(-1) - first) / step) + 1 : 0;
  const regular = count <= MOST_POINTS && moments.every((one) => Math.abs(((one - first) / step) % 1) < 1e-6);
  if (regular) for (let i = 0; i < count; i += 1) t.push(first + i * step);
  else t.push(...moments);
  const place = new Map(t.map((one, i) => [one, i]));
  // What adds up and is not there was nothing: no call of it in that step. Anything else that is not there is not known.
  const values = new Map(names.map((name) => [name, new Array(t.length).fill(additive ? 0 : null)]));
  rows.forEach((row, i) => {
    values.get(row[1])[place.get(at[i])] = row[2];
  });
  names.sort((a, b) => (a === "other") - (b === "other"));
  return { t, names, values, step };
}

/** On top of one another. What is not known of one adds nothing to the pile; where nothing is known there is a gap. */
function piled({ t, names, values }) {
  const sums = new Array(t.length).fill(0);
  const known = t.map((_, i) => names.some((name) => values.get(name)[i] !== null));
  return names.map((name) => values.get(name).map((value, i) => (known[i] ? (sums[i] += value ?? 0) : null)));
}

/** A figure's chart with its legend. `update(data, view)`; `redraw()` in another theme; `destroy()`. */
export class Chart {
  constructor(panel, { onZoom, onPick }) {
    this.panel = panel;
    this.onZoom = onZoom;
    this.onPick = onPick;
    this.hidden = new Set();
    this.canvas = h("div", { class: "plot", role: "img" });
    this.legend = h("ul", { class: "legend", "aria-label": "Series" });
    this.when = h("span", { class: "when" });
    this.element = h("div", { class: "chart" }, this.canvas, h("div", { class: "key" }, this.when, this.legend));
    this.size = new ResizeObserver(() => this.#fit());
    this.size.observe(this.canvas);
  }

  update(data, view) {
    const same = this.data && this.data.names.join("\n") === data.names.join("\n");
    this.data = data;
    this.view = view;
    if (same && this.plot) {
      this.plot.setData(this.#columns(), false);
      this.#rescale();
    } else this.redraw();
    this.#tell(null);
  }

  redraw() {
    this.plot?.destroy();
    this.plot = null;
    if (!this.data) return;
    const width = this.canvas.clientWidth;
    if (width < 40) return; // Not on the page yet: the observer will ask again.
    this.plot = new uPlot(this.#options(width), this.#columns(), this.canvas);
    this.#rescale();
    this.#drawLegend();
    this.#tell(null);
  }

  destroy() {
    this.size.disconnect();
    this.plot?.destroy();
  }

  #shown() {
    const names = this.data.names.filter((name) => !this.hidden.has(name));
    return { ...this.data, names };
  }

  #columns() {
    const { t, values, names, step } = this.data;
    if (!this.panel.stacked) return [t, ...names.map((name) => values.get(name))];
    const shown = this.#shown();
    const piles = new Map(piled(shown).map((pile, i) => [shown.names[i], pile]));
    // A sum is of its whole step: the last one ends with the step, or now.
    const end = Math.max(Math.min(t.at(-1) + step, this.view.until ?? Infinity), t.at(-1) + 1);
    const none = new Array(t.length + 1).fill(null);
    return [[...t, end], ...names.map((name) => (piles.has(name) ? [...piles.get(name), piles.get(name).at(-1)] : none))];
  }

  #rescale() {
    const { t, step } = this.data;
    // The first step may have begun before the range did.
    const min = Math.min(this.view.since ?? Infinity, t[0] ?? Infinity);
    const max = Math.max(this.view.until ?? 0, t.at(-1) ?? 0, min + step);
    this.plot.setScale("x", { min, max });
  }

  #options(width) {
    const { unit, stacked } = this.panel;
    const grid = { stroke: ink("grid"), width: 1 };
    const axis = { stroke: ink("dim"), font: FONT, grid, ticks: { show: false } };
    const names = this.data.names;
    const shown = names.filter((name) => !this.hidden.has(name));
    const bands = [];
    if (stacked) {
      for (let i = shown.length - 1; i > 0; i -= 1) {
        bands.push({ series: [names.indexOf(shown[i]) + 1, names.indexOf(shown[i - 1]) + 1] });
      }
    }
    return {
      width,
      height: this.canvas.clientHeight || 180,
      tzDate: (at) => uPlot.tzDate(new Date(at * 1e3), "Etc/UTC"),
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: {
        sync: { key: "board", setSeries: false },
        focus: { prox: stacked ? -1 : 24 },
        drag: { x: true, y: false, setScale: false, dist: 6 },
        points: { size: 7, width: 2, show: !stacked },
        y: false,
      },
      focus: { alpha: 0.35 },
      select: { show: true },
      scales: { x: { time: true }, y: { range: (_plot, least, most) => [Math.min(0, least ?? 0), most > 0 ? most * 1.06 : 1] } },
      axes: [
        { ...axis, size: 26, space: 64, values: (_plot, at, _axis, _space, step) => at.map((one) => tick(one, step)) },
        { ...axis, size: (_plot, words) => 12 + 6.2 * Math.max(3, ...(words ?? []).map((word) => word.length)), space: 34, values: (_plot, at) => at.map((one) => amount(unit, one, true)) },
      ],
      series: [
        {},
        ...names.map((name) => {
          const stroke = colour(name);
          return {
            label: name,
            show: !this.hidden.has(name),
            stroke,
            width: stacked ? 1 : 1.6,
            fill: stacked ? faded(stroke, 0.55) : undefined,
            paths: stacked ? uPlot.paths.stepped({ align: 1 }) : undefined,
            dash: slot(name) === "rest" && !stacked ? [4, 3] : undefined,
            spanGaps: false,
            points: stacked ? { show: false } : { show: true, size: 5, filter: () => alone(this.data.values.get(name)) },
          };
        }),
      ],
      bands,
      hooks: {
        setCursor: [(plot) => this.#tell(plot.cursor.idx === null ? null : this.#at(plot))],
        setSelect: [(plot) => this.#zoomed(plot)],
        setSeries: [(_plot, index) => this.#lit(index)],
        draw: [(plot) => this.#unfinished(plot)],
        ready: [(plot) => plot.over.addEventListener("click", (event) => this.#picked(plot, event))],
      },
    };
  }

  /** The step that is not over yet looks low: a veil says why. */
  #unfinished(plot) {
    const { t, step } = this.data;
    if (!t.length || this.view.fixed || !this.panel.stacked) return;
    const until = this.view.until ?? Date.now() / 1000;
    if (t.at(-1) + step <= until || t.length < 2) return;
    const { ctx } = plot;
    const left = plot.valToPos(t.at(-1), "x", true);
    const right = plot.bbox.left + plot.bbox.width;
    ctx.save();
    ctx.fillStyle = faded(ink("card"), 0.6);
    ctx.fillRect(left, plot.bbox.top, right - left, plot.bbox.height);
    ctx.restore();
  }

  #drawLegend() {
    this.marks = this.data.names.map((name) => {
      const value = h("b");
      const button = h(
        "button",
        { type: "button", "aria-pressed": String(!this.hidden.has(name)), "data-key": name, title: `${name}: show or hide`, onclick: () => this.#toggle(name) },
        h("i", { class: `swatch s-${slot(name)}`, "aria-hidden": "true" }),
        h("span", {}, name || "–"),
        value,
      );
      return { name, button, value };
    });
    this.legend.replaceChildren(...this.marks.map(({ button }) => h("li", {}, button)));
    this.legend.hidden = this.marks.length === 1 && !this.marks[0].name;
  }

  #toggle(name) {
    if (this.hidden.has(name)) this.hidden.delete(name);
    else this.hidden.add(name);
    this.redraw();
    [...this.legend.querySelectorAll("button")].find((one) => one.dataset.key === name)?.focus();
  }

  /** Values at the cursor, or the newest that are whole. */
  #tell(index) {
    if (!this.marks || !this.data.t.length) return;
    const { t, step, values } = this.data;
    let at = index;
    if (at === null || at === undefined) {
      at = t.length - 1;
      const begun = this.panel.stacked && !this.view.fixed && t[at] + step > (this.view.until ?? Date.now() / 1000);
      if (begun && at > 0 && t[at - 1] >= (this.view.since ?? 0)) at -= 1;
    }
    say(this.when, clock(t[at]));
    for (const { name, value } of this.marks) say(value, amount(this.panel.unit, values.get(name)[at]));
  }

  #lit(index) {
    this.marks?.forEach(({ button }, i) => button.classList.toggle("lit", index === i + 1));
    this.near = index ?? null;
  }

  #zoomed(plot) {
    const { left, width } = plot.select;
    if (width < 6) return;
    const since = plot.posToVal(left, "x");
    const until = plot.posToVal(left + width, "x");
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    const step = Math.min(this.data.step, 60);
    this.onZoom(iso(Math.floor(since / step) * step), iso(Math.ceil(until / step) * step));
  }

  #picked(plot, event) {
    const index = plot.cursor.idx === null ? null : Math.min(this.#at(plot), this.data.t.length - 1);
    if (index === null || index === undefined || event.button) return;
    const names = this.data.names;
    let name = this.near ? names[this.near - 1] : names.length === 1 ? names[0] : null;
    if (this.panel.stacked) {
      const height = plot.posToVal(plot.cursor.top, "y");
      const shown = this.#shown();
      const piles = piled(shown);
      const found = piles.findIndex((pile) => (pile[index] ?? -1) >= height);
      name = found < 0 ? null : shown.names[found];
    }
    this.onPick(this.data.t[index], this.data.step, name);
  }

  /** The point, or the step, that the cursor is in. */
  #at(plot) {
    const { t } = this.data;
    const index = Math.min(plot.cursor.idx, t.length - 1);
    return this.panel.stacked && index > 0 && t[index] > plot.posToVal(plot.cursor.left, "x") ? index - 1 : index;
  }

  #fit() {
    if (!this.plot) this.redraw();
    else this.plot.setSize({ width: this.canvas.clientWidth, height: this.canvas.clientHeight });
  }
}

/** The day at midnight, else the time, with its seconds where ticks are closer than a minute. */
function tick(at, step) {
  const text = new Date(at * 1000).toISOString();
  return at % 86_400 === 0 ? text.slice(5, 10) : text.slice(11, step < 60 ? 19 : 16);
}

/** Where a value has no neighbours to draw a line to. */
function alone(values) {
  const known = (index) => (values[index] ?? null) !== null;
  return values.flatMap((_, index) => (known(index) && !known(index - 1) && !known(index + 1) ? [index] : []));
}

/** What a chart shows, for who cannot see it. */
export function summary(panel, data) {
  if (!data.t.length) return `${panel.title}: nothing in this range`;
  const newest = data.names.slice(0, 6).map((name) => {
    const known = data.values.get(name).filter((value) => value !== null);
    return `${name || panel.title} ${amount(panel.unit, known.at(-1) ?? null)}`;
  });
  return `${panel.title}, ${clock(data.t[0])} to ${clock(data.t.at(-1))} UTC. Newest: ${newest.join(", ")}${data.names.length > 6 ? ` and ${data.names.length - 6} more` : ""}. The same as a table: key T.`;
}
