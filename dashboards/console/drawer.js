// The sheet at the side: from a spike to its calls, to one call, to what was said in it. What it shows is in the address.

import * as address from "./address.js";
import { byId, fill, h } from "./dom.js";
import * as incidents from "./incidents.js";
import { get } from "./node.js";
import { gate, may } from "./session.js";
import { UNKNOWN, amount, cell, moment } from "./words.js";

const CLOSED = { open: null, id: null, from: null, to: null, of: null, is: null, order: null, finding: null };
const ORDERS = { newest: "newest", slowest: "slowest", dearest: "dearest", errors: "failed" };
const SHEETS = { incidents: sheetOfIncidents, calls: sheetOfCalls, call: sheetOfCall, transcript: sheetOfTranscript, findings: sheetOfFindings };

const drawer = byId("drawer");
let asked = 0;

export const close = () => address.go(CLOSED);

drawer.addEventListener("cancel", (event) => {
  event.preventDefault();
  close();
});
drawer.addEventListener("click", (event) => {
  if (event.target === drawer) close();
});

/** Show what the address says. `afresh` for the same sheet with news. */
export async function show(shown, afresh = false) {
  const sheet = SHEETS[shown.open];
  if (!sheet) {
    asked += 1;
    if (drawer.open) drawer.close();
    return;
  }
  const turn = ++asked;
  if (!afresh) fill(drawer, frame("Loading", h("p", { class: "quiet" }, "Asking the node")));
  if (!drawer.open) drawer.showModal();
  let made;
  try {
    made = await sheet(shown);
  } catch (error) {
    const words = error.status === 401 || error.status === 403 ? gate(shown.open === "transcript" ? "transcripts" : "calls") : h("p", { class: "problem", role: "alert" }, error.message);
    made = frame("Not to be had", words);
  }
  if (turn === asked) fill(drawer, made);
}

function frame(title, ...children) {
  return [h("header", {}, h("h2", { id: "drawer-title" }, title), h("button", { type: "button", class: "close", "data-key": "close", "aria-label": "Close", onclick: close }, "×")), ...children];
}

function link(text, changes, kind = "") {
  return h("a", { class: kind, href: address.href(changes), onclick: (event) => address.follow(event, changes) }, text);
}

async function sheetOfIncidents(shown) {
  return frame("Incidents", !may("act") && h("p", { class: "quiet" }, "To acknowledge, resolve or silence, sign in with a role that may: oncall, or the node's own token."), incidents.list(() => show(shown, true)));
}

// Calls

async function sheetOfCalls(shown) {
  const [since, until] = shown.from && shown.to ? [shown.from, shown.to] : address.bounds(shown);
  const order = ORDERS[shown.order] ? shown.order : "newest";
  const title = `Calls ${moment(since)} to ${moment(until)} UTC`;
  if (!may("calls")) return frame(title, gate("calls"));
  const words = { since, until, order };
  if (shown.tenant !== "*") words.tenant = shown.tenant;
  if (shown.of && shown.is) words[shown.of] = shown.is;
  const body = h("tbody");
  const more = h("p", { class: "more" });
  const take = async (after) => {
    const found = await get("/console/calls", after ? { ...words, after } : words);
    body.append(...found.calls.map(callRow));
    fill(more, found.next && h("button", { type: "button", onclick: () => take(found.next) }, "More"));
    return found.calls.length;
  };
  const count = await take(null);
  const chips = [shown.of && shown.is && `${shown.of} ${shown.is}`, shown.tenant !== "*" && `tenant ${shown.tenant}`].filter(Boolean);
  return frame(
    title,
    h(
      "div",
      { class: "sorts" },
      chips.map((chip) => h("span", { class: "chip" }, chip)),
      h("nav", { "aria-label": "Order" }, Object.entries(ORDERS).map(([name, label]) => h("a", { href: address.href({ order: name }), "aria-current": name === order && "true", onclick: (event) => address.follow(event, { order: name }) }, label))),
    ),
    count
      ? h("div", { class: "scroll full", tabindex: "0", role: "group", "aria-label": title }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "UTC"), h("th", { scope: "col" }, "model"), h("th", { scope: "col" }, "tenant"), h("th", { scope: "col" }, "prompt"), h("th", { scope: "col", class: "n" }, "tokens"), h("th", { scope: "col", class: "n" }, "cost"), h("th", { scope: "col", class: "n" }, "latency"), h("th", { scope: "col" }, "outcome"))), body))
      : h("p", { class: "quiet" }, "No call in this moment"),
    more,
  );
}

const prompted = (call) => (call.prompt_name ? `${call.prompt_name}${call.prompt_version ? `@${call.prompt_version}` : ""}` : UNKNOWN);
const added = (a, b) => (a === null || a === undefined || b === null || b === undefined ? null : a + b);

function callRow(call) {
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, link(moment(call.started_at), { open: "call", id: call.call_id })),
    h("td", {}, call.model || UNKNOWN),
    h("td", {}, call.tenant || UNKNOWN),
    h("td", {}, prompted(call)),
    h("td", { class: "n" }, amount("tokens", added(call.input_tokens, call.output_tokens))),
    h("td", { class: "n" }, amount("usd", call.cost_usd)),
    h("td", { class: "n" }, amount("seconds", call.latency_s)),
    h("td", {}, call.error_type ? h("span", { class: "badge failed" }, `✕ ${call.error_type}`) : "ok"),
  );
}

async function sheetOfCall(shown) {
  if (!may("calls")) return frame("A call", gate("calls"));
  const { call, price, verdict, findings } = await get(`/console/calls/${encodeURIComponent(shown.id)}`);
  const facts = (title, pairs) => {
    const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== UNKNOWN);
    return known.length > 0 && h("section", {}, h("h3", {}, title), h("dl", { class: "facts" }, known.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
  };
  const rest = Object.entries(price ?? {})
    .filter(([name, value]) => !(name in call) && name !== "price_book" && value && typeof value !== "object")
    .map(([name, value]) => [name.replaceAll("_", " ").replace("usd per million", "a million"), name.includes("usd") ? amount("usd", value) : name.endsWith("_from") ? moment(value) : cell("text", value)]);
  return frame(
    `${call.model || "A call"}, ${moment(call.started_at)} UTC`,
    h(
      "p",
      { class: "headline" },
      call.error_type ? h("span", { class: "badge failed" }, `✕ ${call.error_type}`) : h("span", { class: "badge ok" }, "● went well"),
      h("b", {}, amount("usd", call.cost_usd)),
      h("b", {}, amount("seconds", call.latency_s)),
      h("b", {}, `${amount("tokens", added(call.input_tokens, call.output_tokens))} tokens`),
    ),
    timing(call),
    findings?.length > 0 && h("section", {}, h("h3", {}, "Findings"), h("ul", { class: "findings" }, findings.map((one) => h("li", {}, found(one))))),
    verdict && facts("Judged", [["outcome", verdict.outcome], ["at", verdict.scored_at && moment(verdict.scored_at)], ...Object.entries(verdict.scores ?? {}).map(([name, value]) => [name, amount("count", value)])]),
    h("p", {}, link("What was said, redacted", { open: "transcript", id: shown.id }, "button")),
    h("div", { class: "columns" }, [
    facts("Who", [["tenant", call.tenant], ["team", call.team], ["user", call.user], ["service", call.service], ["environment", call.environment], ["region", call.region], ["task", call.task_type], ["prompt", prompted(call)]]),
    facts("Tokens", [["input", amount("tokens", call.input_tokens)], ["of which from the cache", amount("tokens", call.cache_read_tokens)], ["written to the cache", amount("tokens", call.cache_write_tokens)], ["output", amount("tokens", call.output_tokens)], ["of which reasoning", amount("tokens", call.reasoning_tokens)]]),
    facts("Price", [["status", call.price_status], ["book", call.price_book], ...rest]),
    facts("More", [["provider", call.provider_name], ["asked for", call.request_model], ["operation", call.operation_name], ["finish", call.finish_reason], ["attempt", call.attempt], ["fallback from", call.fallback_from], ["trace", call.trace_id], ["call", call.call_id], ...Object.entries(call.labels ?? {}).map(([name, value]) => [`label ${name}`, value])]),
    ]),
  );
}

/** Until the first token, and from there to the end, as a bar. */
function timing({ latency_s: whole, time_to_first_token_s: first }) {
  if (!whole) return null;
  const bar = (kind, length) => {
    const part = h("i", { class: kind });
    part.style.inlineSize = `${(100 * length) / whole}%`;
    return part;
  };
  const waits = first !== null && first !== undefined && first <= whole;
  return h(
    "figure",
    { class: "timing" },
    h("div", { class: "track", "aria-hidden": "true" }, waits ? [bar("waits", first), bar("flows", whole - first)] : bar("flows", whole)),
    h("figcaption", {}, waits ? [h("span", { class: "swatch waits", "aria-hidden": "true" }), `${amount("seconds", first)} to the first token `, h("span", { class: "swatch flows", "aria-hidden": "true" }), `${amount("seconds", whole - first)} to the end`] : `${amount("seconds", whole)}; when its first token came is not known`),
  );
}

const found = (one) => [
  h("span", { class: `badge ${one.leak ? "critical" : "warning"}` }, one.leak ? "▲ leak" : "◆ finding"),
  ` ${one.detector} ${one.type}, in the ${one.found_in}`,
  one.start !== undefined && one.end > one.start ? `, characters ${one.start} to ${one.end}` : "",
  one.score === null || one.score === undefined ? "" : `, score ${amount("count", one.score)}`,
];

// What was said

async function sheetOfTranscript(shown) {
  const back = link("The call", { open: "call", id: shown.id }, "button");
  if (!may("transcripts")) return frame("What was said", gate("transcripts"), h("p", {}, back));
  const { texts, redaction } = await get(`/console/transcripts/${encodeURIComponent(shown.id)}`);
  return frame(
    "What was said",
    h("p", { class: "quiet" }, `Redacted (${redaction}). That you read this is in the audit log.`),
    texts.map(({ where, chunk, text, marks }) => h("section", { class: "said" }, h("h3", {}, where === "context" ? `context ${chunk + 1}` : where), h("pre", { tabindex: "0" }, marked(text, marks ?? [])))),
    h("p", {}, back),
  );
}

/** A text with its findings marked. Places count code points, as the node does, and not what JavaScript calls characters. */
export function marked(text, marks) {
  const points = [...text];
  const places = marks.filter(({ start, end }) => start >= 0 && start < end && end <= points.length);
  const cuts = [...new Set([0, points.length, ...places.flatMap(({ start, end }) => [start, end])])].sort((a, b) => a - b);
  return cuts.slice(1).map((end, i) => {
    const part = points.slice(cuts[i], end).join("");
    const over = places.filter((one) => one.start <= cuts[i] && one.end >= end);
    if (!over.length) return part;
    // A tag says its type itself.
    const types = [...new Set(over.filter((one) => one.end === end).map((one) => one.type))].filter((type) => !part.includes(type));
    const kind = over.some((one) => one.detector === "phi") ? "phi" : over[0].detector;
    return h("mark", { class: kind, title: over.map((one) => `${one.detector} ${one.type}`).join(", ") }, part, types.length > 0 && h("sup", {}, types.join(" ")));
  });
}

// Findings

async function sheetOfFindings(shown) {
  return frame("Findings", await findings(shown, 100));
}

/** The latest findings as a table; places and scores, never a text. */
export async function findings(shown, most) {
  if (!may("calls")) return gate("calls");
  const [since, until] = address.bounds(shown);
  const words = { since, until };
  if (shown.tenant !== "*") words.tenant = shown.tenant;
  const { findings: all } = await get("/console/findings", words);
  if (!all.length) return h("p", { class: "quiet" }, "Nothing was found in this range");
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": "Latest findings" },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ["UTC", "what", "type", "in", "tenant", "prompt", "score", ""].map((title) => h("th", { scope: "col" }, title || h("span", { class: "unseen" }, "transcript"))))),
      h(
        "tbody",
        {},
        all.slice(0, most).map((one, i) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, h("a", { href: address.href({ open: "call", id: one.call_id }), "data-key": `finding-${i}`, onclick: (event) => address.follow(event, { open: "call", id: one.call_id }) }, moment(one.started_at))),
            h("td", {}, h("span", { class: `badge ${one.leak ? "critical" : "warning"}` }, one.leak ? "▲ leak" : `◆ ${one.detector}`)),
            h("td", {}, one.type),
            h("td", {}, one.found_in),
            h("td", {}, one.tenant),
            h("td", {}, prompted(one)),
            h("td", { class: "n" }, amount("count", one.score)),
            h("td", {}, link("transcript", { open: "transcript", id: one.call_id })),
          ),
        ),
      ),
    ),
  );
}

