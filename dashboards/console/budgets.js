// Budgets as burn-downs: what remains of a limit over its window, when it runs out at this rate, and why a gate is shut.

import { faded, ink } from "./colours.js";
import { fill, h } from "./dom.js";
import { badge } from "./states.js";
import { UNKNOWN, amount, clock, plural, seconds, span } from "./words.js";

// As many as a screen shows without scrolling for long; the rest are lines of a table.
const DRAWN = 12;
// Of one policy so many, or a policy on users would leave no room for any other.
const OF_ONE = 4;
// A burn-down shows at least so long, or its first minute would look like a day.
const LEAST_S = 900;

const scoped = (scope) => Object.entries(scope ?? {}).map(([name, value]) => `${name}=${value ?? UNKNOWN}`).join(", ") || "everything";

export class Budgets {
  constructor() {
    this.plots = [];
    this.cards = h("div", { class: "burns" });
    this.rest = h("div");
    this.element = h("section", { class: "card w12 budgets", "aria-labelledby": "budgets-title" }, h("header", {}, h("h2", { id: "budgets-title" }, "Budgets now"), h("p", { class: "about" }, "What remains of each limit, the harshest state first")), this.cards, this.rest);
    this.element.hidden = true; // until something is told
    this.told = null;
    this.size = new ResizeObserver(() => this.redraw());
    this.size.observe(this.cards);
  }

  update(data) {
    this.told = data;
    this.element.hidden = false;
    this.redraw();
  }

  destroy() {
    this.size.disconnect();
    for (const plot of this.plots) plot.destroy();
  }

  redraw() {
    if (!this.told) return;
    for (const plot of this.plots) plot.destroy();
    this.plots = [];
    const all = this.told.budgets ?? [];
    const counts = new Map();
    const drawn = all.filter(({ policy }) => counts.set(policy, (counts.get(policy) ?? 0) + 1).get(policy) <= OF_ONE).slice(0, DRAWN);
    if (!all.length) {
      fill(this.cards, h("p", { class: "quiet" }, "No policy has spoken of a scope yet. Name a file of policies in TIDEGATE_POLICY_FILE."));
      return fill(this.rest);
    }
    fill(this.cards, drawn.map((one) => this.#burn(one)));
    const left = all.filter((one) => !drawn.includes(one));
    fill(this.rest, left.length > 0 && table(left), this.told.more ? h("p", { class: "quiet" }, `and ${plural(this.told.more, "scope")} more: tidegate policy status`) : null);
    for (const [element, one] of this.waiting.splice(0)) this.#plot(element, one);
  }

  waiting = [];

  #burn(one) {
    const now = Date.now() / 1000;
    const share = one.share ?? null;
    const out = seconds(one.exhausted_at);
    const meter = h("i", { class: `fill ${one.state}` });
    meter.style.inlineSize = `${Math.min(100, Math.max(0, (share ?? 0) * 100))}%`;
    const plot = one.points?.length > 1 && one.limit ? h("div", { class: "burn", role: "img", "aria-label": `What remained of ${amount(one.unit, one.limit)}: ${one.points.slice(-1).map(([, left]) => amount(one.unit, left))} now` }) : null;
    if (plot) this.waiting.push([plot, one]);
    const forecast =
      out === null ? null : out <= now ? "the limit is reached" : one.resets_at && out >= seconds(one.resets_at) ? "at this rate the limit holds until it resets" : `exhausted at ${clock(one.exhausted_at)} at this rate (in ${span(out - now)})`;
    return h(
      "article",
      { class: `budget ${one.state}`, "data-policy": one.policy },
      h("header", {}, badge(one.state), h("h3", {}, one.policy)),
      h("p", { class: "scope" }, scoped(one.scope)),
      h("p", { class: "spent" }, h("b", {}, amount(one.unit, one.spend)), ` of ${one.limit === null ? "no limit" : amount(one.unit, one.limit)}`, share !== null && h("span", {}, amount("share", share))),
      h("div", { class: "meter", "aria-hidden": "true" }, meter),
      plot,
      h("p", { class: "why" }, one.why),
      h(
        "dl",
        {},
        forecast && [h("dt", {}, "forecast"), h("dd", {}, forecast)],
        one.resets_at && [h("dt", {}, "resets"), h("dd", {}, `${clock(one.resets_at)}, in ${span(seconds(one.resets_at) - now)}`)],
        one.contributors?.length > 0 && [h("dt", {}, "most by"), h("dd", {}, one.contributors.slice(0, 3).map(({ who, spend, share }) => [who, (spend ?? null) !== null ? amount(one.unit, spend) : (share ?? null) !== null ? amount("share", share) : ""].join(" ").trim()).join(", "))],
        one.rule && [h("dt", {}, "rule"), h("dd", {}, one.rule)],
      ),
    );
  }

  #plot(element, one) {
    const at = one.points.map(([when]) => seconds(when));
    const left = one.points.map(([, remaining]) => remaining);
    const out = seconds(one.exhausted_at);
    // A rolling window never ends: its forecast is drawn for two hours.
    const ends = seconds(one.resets_at) ?? Math.min(out ?? 0, at.at(-1) + 7_200);
    const begins = Math.min(at[0], at.at(-1) - LEAST_S);
    const t = [...at];
    const forecast = left.map(() => null);
    if (out !== null && out > at.at(-1) && (left.at(-1) ?? 0) > 0) {
      forecast[forecast.length - 1] = left.at(-1);
      // Beyond the window's end nothing is spent of this limit: the line is cut there.
      const end = Math.max(Math.min(out, Math.max(ends, at.at(-1) + 1)), at.at(-1) + 1);
      t.push(end);
      left.push(null);
      forecast.push(Math.max(0, forecast.at(-1) * (1 - (end - at.at(-1)) / (out - at.at(-1)))));
    }
    const line = ink({ ok: "tide", warn: "warn", block: "bad" }[one.state] ?? "shut");
    this.plots.push(
      new uPlot(
        {
          width: element.clientWidth || 240,
          height: 74,
          padding: [4, 14, 0, 14],
          legend: { show: false },
          cursor: { show: false },
          tzDate: (when) => uPlot.tzDate(new Date(when * 1e3), "Etc/UTC"),
          scales: { x: { time: true, range: () => [begins, Math.max(t.at(-1), Math.min(ends, begins + (at.at(-1) - begins) * 3))] }, y: { range: () => [0, one.limit * 1.03] } },
          axes: [{ size: 20, gap: 2, stroke: ink("dim"), font: "10px system-ui, sans-serif", grid: { show: false }, ticks: { show: false }, values: (_plot, when) => when.map((each) => clock(each).slice(-5)) }, { show: false }],
          series: [{}, { stroke: ink("dim"), width: 1, dash: [1, 3], points: { show: false } }, { stroke: line, width: 1.6, fill: faded(line, 0.16), points: { show: false } }, { stroke: line, width: 1.4, dash: [3, 4], points: { show: false } }],
        },
        [t, t.map(() => one.limit), left, forecast],
        element,
      ),
    );
  }
}

function table(rows) {
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": "More budgets" },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ["state", "policy", "scope", "spent", "limit", "share", "resets"].map((title, i) => h("th", { scope: "col", class: i > 2 && i < 6 && "n" }, title)))),
      h(
        "tbody",
        {},
        rows.map((one) =>
          h("tr", {}, h("td", {}, badge(one.state)), h("th", { scope: "row" }, one.policy), h("td", {}, scoped(one.scope)), h("td", { class: "n" }, amount(one.unit, one.spend)), h("td", { class: "n" }, amount(one.unit, one.limit)), h("td", { class: "n" }, amount("share", one.share)), h("td", {}, one.resets_at ? clock(one.resets_at) : UNKNOWN)),
        ),
      ),
    ),
  );
}
