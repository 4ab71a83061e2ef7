// One line of figures that are of now, whatever range is looked at: is the node well, and is anything behind.

import { fill, h } from "./dom.js";
import { UNKNOWN, amount } from "./words.js";

// Records that wait for less than this are on their way; more is a lag that somebody should see.
const BEHIND = 1_000;

/** `[{name, value, kind, why}]` of a status; a figure that the node does not tell is not among them. */
export function figures(status) {
  const { totals = {}, policies, notifier, guardrails } = status;
  const refused = (totals.rejected ?? 0) + (totals.dead_letters ?? 0) + (totals.bad_envelopes ?? 0);
  const lag = (name, records) => records !== undefined && records !== null && { name, value: amount("records", records, true), kind: records >= BEHIND ? "bad" : "", why: "records that wait" };
  return [
    status.calls_per_s !== undefined && { name: "calls", value: amount("per_second", status.calls_per_s) },
    status.cost_usd_per_h !== undefined && { name: "an hour", value: amount("usd", status.cost_usd_per_h, true), why: "what the last minute would cost in an hour" },
    totals.responses !== undefined && { name: "calls in all", value: amount("calls", totals.responses, true) },
    lag("meter behind", status.meter_lag_records),
    lag("guardrails behind", status.guardrails_lag_records),
    lag("store behind", status.sink_lag_records),
    { name: "dead letters", value: amount("records", refused, true), kind: refused ? "warn" : "", why: "lines that nobody could read: tidegate dlq list" },
    policies && { name: policies.in_force ? "scopes not fine" : "policies", value: policies.in_force ? amount("count", policies.not_fine) : "none", kind: policies.not_fine ? "warn" : "", why: (policies.worst ?? []).map((one) => `${one.state}: ${one.policy}`).join("\n") },
    guardrails?.stopped && { name: "guardrails", value: "stopped", kind: "bad" },
    notifier?.waiting !== undefined && notifier.waiting > 0 && { name: "messages not told yet", value: amount("count", notifier.waiting), kind: "warn" },
  ].filter(Boolean);
}

export function draw(element, status) {
  fill(element, h("dl", {}, figures(status).map(({ name, value, kind, why }) => h("div", { class: kind || null, title: why || null }, h("dt", {}, name), h("dd", {}, value ?? UNKNOWN)))));
}

/** What is away, in words, or nothing. */
export function trouble(status) {
  const away = [];
  if (status.store_away) away.push(`the store does not answer${typeof status.store_away === "string" ? ` (${status.store_away})` : ""}: figures stand still, events wait in the log`);
  if (status.log_away) away.push(`the log does not answer${typeof status.log_away === "string" ? ` (${status.log_away})` : ""}`);
  if (status.meters_stopped?.length) away.push("the meter has stopped in front of too many refusals: tidegate dlq list");
  if (status.healthy === false && !away.length) away.push("the node is not well: see /readyz");
  return away.join("; ");
}
