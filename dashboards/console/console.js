// The console: boards, filters, and the stream behind them. What is shown is what the address says (address.js).
//
//   address ──► tabs, filters ──► stream of the board ──► panels, vitals, incidents, budgets
//      ▲                                                       │ a click
//      └───────────────────────────────────────────────────────┘

import * as address from "./address.js";
import { Budgets } from "./budgets.js";
import { forget } from "./colours.js";
import { byId, fill, h, say, set } from "./dom.js";
import * as drawer from "./drawer.js";
import * as incidents from "./incidents.js";
import { Lags } from "./lags.js";
import { Stream, get } from "./node.js";
import { card } from "./panels.js";
import * as session from "./session.js";
import * as vitals from "./vitals.js";
import { clock, iso, moment, plural, seconds, span } from "./words.js";

const EVENTS = ["panel", "problem", "status", "incidents", "budgets", "ping"];
const FIXED = new Set(["since", "until", "step_s"]);
// A choice that is being made is not to be changed under somebody's hands more often than this.
const CHOICES_MS = 60_000;

let boards = [];
let variables = [];
let cards = new Map();
let budgets = null;
let findings = null;
let overview = null;
let lags = null;
let asOf = null;
let stream = null;
let asking = "";
let standing = "joining";
let ill = "";
// What the node cannot tell now besides panels, and why.
const untold = new Map();

start();

async function start() {
  theme();
  keys();
  setInterval(tick, 1_000);
  byId("session-button").onclick = () => session.dialog();
  byId("help-button").onclick = help;
  byId("incidents-button").onclick = () => address.go({ open: "incidents" });
  session.onSession(() => {
    drawer.show(address.now(), true);
    extras();
  });
  address.onChange(changed);
  session.refresh().catch(() => {});
  await define();
  stream = new Stream(hear, state);
  changed(address.now(), null);
}

/** What there is to draw; asked until the node answers. */
async function define() {
  for (;;) {
    try {
      ({ boards, variables } = await get("/console/definitions"));
      banner("");
      return;
    } catch (error) {
      if (error.status === 401 || error.status === 403) await signedIn();
      else {
        banner(`${error.message}; trying again`);
        await new Promise((resolve) => setTimeout(resolve, 2_000));
      }
    }
  }
}

/** A node with a token shows nothing to strangers. Resolves once somebody has signed in who may look. */
function signedIn() {
  banner("");
  fill(byId("board"), session.gate("look"));
  session.dialog();
  return new Promise((resolve) => {
    const stop = session.onSession(() => {
      if (session.may("look")) resolve(stop());
    });
  });
}

// Where we are

function changed(shown, before) {
  const board = boards.find((one) => one.key === shown.board) ?? boards[0];
  if (!before || before.board !== shown.board) build(board);
  tabs(board);
  filters(shown);
  const words = address.question(shown, variables);
  words.set("board", board.key);
  const question = `/console/live?${words}`;
  if (question !== asking) {
    asking = question;
    byId("board").setAttribute("aria-busy", "true");
    untold.clear();
    stream.open(question, EVENTS);
    extras();
  }
  const sheet = ({ open, id, from, to, of, is, order }) => [open, id, from, to, of, is, order].join("|");
  if (!before || sheet(before) !== sheet(shown)) drawer.show(shown);
}

function tabs(board) {
  fill(
    byId("tabs"),
    boards.map(({ key, title, about }, i) =>
      h("li", {}, h("a", { href: address.href({ board: key, open: null }), title: `${about} (${i + 1})`, "data-key": key, "aria-current": key === board.key && "page", onclick: (event) => address.follow(event, { board: key }) }, title)),
    ),
  );
  document.title = `${board.title} · Tidegate`;
}

function build(board) {
  for (const one of cards.values()) one.destroy();
  cards = new Map(board.panels.map((panel) => [panel.key, card(panel, boards)]));
  budgets?.destroy();
  budgets = board.key === "budgets" ? new Budgets() : null;
  findings = board.key === "guardrails" ? h("div", { class: "body" }) : null;
  lags?.destroy();
  lags = board.key === "pipeline" ? new Lags() : null;
  overview = board.key === "overview" ? h("div", { class: "body" }) : null;
  fill(
    byId("board"),
    h("h2", { class: "unseen" }, board.title),
    overview && wide("incidents-card", "Incidents", "What somebody is or will be told of", overview),
    budgets?.element,
    lags?.element,
    [...cards.values()].map((one) => one.element),
    findings && wide("findings-card", "Latest findings", "Where and what, never the text", findings),
  );
  if (overview) drawIncidents();
}

const wide = (id, title, about, body) => h("section", { class: "card w12", id, "aria-labelledby": `${id}-title` }, h("header", {}, h("h2", { id: `${id}-title` }, title), h("p", { class: "about" }, about)), body);

/** What is asked for beside the stream. */
async function extras() {
  const place = findings;
  if (!place) return;
  try {
    fill(place, await drawer.findings(address.now(), 50));
  } catch (error) {
    fill(place, h("p", { class: "problem" }, error.message));
  }
}

// What comes

function hear(event, data) {
  if (untold.delete(event)) standingChanged();
  if (event === "panel") {
    const one = cards.get(data.key);
    if (!one) return;
    asOf = seconds(data.as_of) ?? Date.now() / 1000;
    const shown = address.now();
    const until = seconds(data.until) ?? (shown.until ? seconds(shown.until) : asOf);
    const since = seconds(data.since) ?? (shown.since ? seconds(shown.since) : until - address.rangeSeconds(shown.range));
    one.update(data, { since, until, fixed: Boolean(shown.since) });
    if (![...cards.values()].some(({ element }) => element.hasAttribute("aria-busy"))) byId("board").removeAttribute("aria-busy");
  } else if (event === "problem") {
    if (cards.has(data.key)) cards.get(data.key).problem(data.error);
    else {
      untold.set(data.key, `${data.key}: ${data.error}`);
      standingChanged();
    }
  } else if (event === "status") {
    vitals.draw(byId("vitals"), data);
    lags?.hear(data);
    ill = vitals.trouble(data);
    standingChanged();
  } else if (event === "incidents") {
    incidents.hear(data);
    drawIncidents();
    if (address.now().open === "incidents") drawer.show(address.now(), true);
  } else if (event === "budgets") budgets?.update(data);
}

function drawIncidents() {
  if (!overview) return;
  const open = incidents.known().incidents;
  byId("incidents-card").hidden = !open.length;
  fill(overview, incidents.brief(5, () => address.go({ open: "incidents" })));
}

function state(what) {
  const was = standing;
  standing = what;
  // A node that was started anew knows nobody: who looks is asked again, and may have to say it again.
  if (what === "live" && was === "away") session.refresh().catch(() => {});
  if (what === "away") session.refresh().then(() => session.may("look") || rejoin(), () => {});
  standingChanged();
}

async function rejoin() {
  if (asking === "") return;
  asking = "";
  stream.close();
  await signedIn();
  build(boards.find((board) => board.key === address.now().board) ?? boards[0]);
  changed(address.now(), address.now());
}

function standingChanged() {
  const wrong = [ill, ...untold.values()].filter(Boolean).join("; ");
  const words = standing === "live" && wrong ? "ill" : standing;
  set(byId("live"), { "data-state": words });
  say(byId("live").children[1], { live: "live", ill: "not well", joining: "joining", away: "away" }[words]);
  if (standing === "away") {
    banner(`The node does not answer${asOf ? `: what is shown is of ${clock(asOf)} UTC` : ""}. Trying again.`);
  } else banner(wrong ? `${wrong[0].toUpperCase()}${wrong.slice(1)}.` : "");
  tick();
}

function banner(text) {
  const element = byId("banner");
  element.hidden = !text;
  say(element, text);
}

function tick() {
  const now = Date.now() / 1000;
  const age = asOf === null ? null : Math.max(0, now - asOf);
  set(byId("live"), { title: asOf === null ? null : `What is shown last changed at ${moment(asOf)} UTC` });
  say(byId("live").children[2], standing !== "live" ? "" : address.now().since ? "fixed range" : age === null ? "" : age < 1.5 ? "now" : `${span(age)} ago`);
  for (const one of cards.values()) one.tick(now, address.now());
  say(byId("clock"), `${iso(Math.floor(now)).slice(11, 19)} UTC`);
}

// What is asked

function filters(shown) {
  const form = byId("filters");
  const ranges = h(
    "div",
    { class: "ranges", role: "group", "aria-label": "Range" },
    address.RANGES.map((range) =>
      h("button", { type: "button", "data-key": range, "aria-pressed": String(!shown.since && shown.range === range), onclick: () => address.go({ range, since: null, until: null }) }, range),
    ),
  );
  const zoom =
    shown.since &&
    h("span", { class: "chip zoom" }, `${clock(shown.since)} to ${clock(shown.until)} UTC`, h("button", { type: "button", "aria-label": "Back to a moving range", title: "Back to a moving range (Esc)", onclick: () => address.go({ since: null, until: null }) }, "×"));
  fill(form, ranges, zoom, variables.filter(({ name }) => !FIXED.has(name)).map((variable) => field(variable, shown)));
}

const lists = new Map();

function field(variable, shown) {
  const { name, label, choices, default: usual } = variable;
  const id = `filter-${name}`;
  const value = shown[name] ?? usual;
  if (choices) {
    const select = h("select", { id, "data-key": id, onchange: (event) => address.go({ [name]: event.target.value === usual ? null : event.target.value }) }, choices.map((choice) => h("option", { value: choice, selected: choice === value }, choice.replace("_name", ""))));
    return h("label", { for: id }, h("span", {}, label), select);
  }
  if (!lists.has(name)) {
    lists.set(name, { element: h("datalist", { id: `${id}-choices` }), askedAt: -Infinity });
    document.body.append(lists.get(name).element);
  }
  const input = h("input", {
    id,
    type: "search",
    list: `${id}-choices`,
    value: value === usual ? "" : value,
    placeholder: `every ${label}`,
    "data-key": id,
    autocomplete: "off",
    spellcheck: "false",
    onfocus: () => choose(name),
    onchange: (event) => address.go({ [name]: event.target.value.trim() || null }),
  });
  return h("label", { for: id }, h("span", {}, label), input);
}

async function choose(name) {
  const list = lists.get(name);
  const question = address.question(address.now(), []).toString();
  if (list.question === question && performance.now() - list.askedAt < CHOICES_MS) return;
  list.question = question;
  list.askedAt = performance.now();
  const [since, until] = address.bounds(address.now());
  try {
    const { choices } = await get(`/console/choices/${name}`, { since, until });
    fill(list.element, choices.map((choice) => h("option", { value: choice })));
  } catch {
    list.askedAt = -Infinity;
  }
}

// Keys, theme, help

function keys() {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.closest?.("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const shown = address.now();
    const at = boards.findIndex((board) => board.key === shown.board);
    const turn = (by) => boards.length && address.go({ board: boards[(at + by + boards.length) % boards.length].key });
    const done = {
      "?": help,
      "/": () => document.querySelector("#filters input, #filters select")?.focus(),
      i: () => address.go({ open: "incidents" }),
      d: () => byId("theme-button").click(),
      ArrowLeft: () => turn(-1),
      ArrowRight: () => turn(1),
      "[": () => wider(-1),
      "]": () => wider(1),
      Escape: () => shown.since && address.go({ since: null, until: null }),
    }[event.key];
    const board = /^[1-9]$/.test(event.key) ? boards[Number(event.key) - 1] : null;
    if (event.key.startsWith("Arrow") && event.target.closest?.(".scroll")) return;
    if (!done && !board) return;
    event.preventDefault();
    if (board) address.go({ board: board.key });
    else done();
  });
}

function wider(by) {
  const at = address.RANGES.indexOf(address.now().range) + by;
  if (address.RANGES[at]) address.go({ range: address.RANGES[at], since: null, until: null });
}

function theme() {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const button = byId("theme-button");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const told = () => {
    say(button, isDark() ? "☀" : "☾");
    set(button, { "aria-label": isDark() ? "Light theme" : "Dark theme", title: `${isDark() ? "Light" : "Dark"} (d)` });
    forget();
    for (const one of cards.values()) one.redraw();
    budgets?.redraw();
    lags?.redraw();
  };
  button.onclick = () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("tidegate.theme", root.dataset.theme);
    } catch {
      // Storage is off: it holds until the page is loaded again.
    }
    told();
  };
  dark.addEventListener("change", told);
  addEventListener("beforeprint", () => root.classList.add("printed"));
  addEventListener("afterprint", () => root.classList.remove("printed"));
  told();
}

const KEYS = [
  ["1 to 7, ← →", "another board"],
  ["/", "the filters"],
  ["[ ]", "a shorter, a longer range"],
  ["i", "incidents"],
  ["t", "the chart that has the focus as a table"],
  ["d", "dark, light"],
  ["Esc", "close, and back from a zoom"],
  ["?", "this"],
];

function help() {
  const talk = byId("talk");
  const { version, uptime_s: up } = session.node();
  fill(
    talk,
    h("header", {}, h("h2", { id: "talk-title" }, "Help"), h("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => talk.close() }, "×")),
    h("p", {}, "Drag over a chart to look closer. Click on a moment to see its calls. The address holds all of it: a link shows the same to somebody else. Times are UTC. A dash is what nobody knows; it is never zero."),
    h("dl", { class: "keys" }, KEYS.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])),
    h("p", { class: "quiet" }, `Tidegate${version ? ` ${version}` : ""}${up ? `, up for ${span(up)}` : ""}; ${plural(boards.length, "board")}.`),
  );
  if (!talk.open) talk.showModal();
}
