// What is wrong now: who has seen it, who is told, and the words that a person may say to it.

import { byId, fill, h, say } from "./dom.js";
import { send } from "./node.js";
import { may } from "./session.js";
import { SIGNS, badge } from "./states.js";
import { amount, clock, plural, seconds, span } from "./words.js";

let told = { incidents: [], windows: [] };

export const known = () => told;

export function hear(data) {
  told = { incidents: data.incidents ?? [], windows: data.windows ?? [] };
  const button = byId("incidents-button");
  const critical = told.incidents.filter((one) => one.severity === "critical").length;
  const open = told.incidents.length;
  button.hidden = false;
  button.className = critical ? "critical" : open ? "warning" : "well";
  say(button, open ? `${critical ? SIGNS.critical : SIGNS.warning} ${plural(open, "incident")}` : "no incidents");
  button.setAttribute("aria-label", open ? `${plural(open, "open incident")}, ${critical} critical` : "no open incidents");
}

const phases = { pending: "not told yet", firing: "open", acknowledged: "seen" };

function sorted() {
  const order = (one) => [one.phase === "acknowledged", one.severity !== "critical", -(seconds(one.opened_at) ?? 0)];
  return [...told.incidents].sort((a, b) => {
    const [left, right] = [order(a), order(b)];
    for (let i = 0; i < left.length; i += 1) if (left[i] !== right[i]) return left[i] < right[i] ? -1 : 1;
    return 0;
  });
}

/** A line each, for a board; the first few. */
export function brief(most, open) {
  const now = Date.now() / 1000;
  const all = sorted();
  return h(
    "ul",
    { class: "brief" },
    all.slice(0, most).map((one) => {
      const out = seconds(one.exhausted_at);
      return h(
        "li",
        { class: one.phase === "acknowledged" ? "seen" : null },
        badge(one.severity),
        h("span", { class: "what", title: one.what }, one.what),
        h("span", { class: "since" }, [out > now && `exhausted at ${clock(out)}`, one.phase === "acknowledged" ? `seen by ${one.acknowledged_by}` : phases[one.phase], `for ${span(now - seconds(one.opened_at))}`].filter(Boolean).join(" · ")),
        h("button", { type: "button", class: "small", "data-key": `incident-${one.number}`, "aria-label": `Incident #${one.number}`, onclick: open }, `#${one.number} ›`),
      );
    }),
    all.length > most && h("li", { class: "quiet" }, `and ${plural(all.length - most, "more", "more")}`),
  );
}

/** All open incidents in full, the worst first. `changed` is called once a word was taken. */
export function list(changed) {
  const all = sorted();
  return h(
    "div",
    { class: "incidents" },
    all.length ? all.map((one) => row(one, changed)) : h("p", { class: "quiet" }, "Nothing is wrong that anybody would be told of."),
    told.windows.length > 0 && h("h3", { class: "silence" }, "Silences"),
    told.windows.map((window) => silence(window, changed)),
  );
}

function row(one, changed) {
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const now = Date.now() / 1000;
  const opened = seconds(one.opened_at);
  const facts = [
    opened && ["open", `${span(now - opened)}, since ${clock(one.opened_at)}`],
    one.exhausted_at && seconds(one.exhausted_at) > now && ["forecast", `exhausted at ${clock(one.exhausted_at)} at this rate`],
    one.resets_at && ["resets", clock(one.resets_at)],
    one.contributors?.length && ["most by", one.contributors.map(({ who, share }) => `${who}${share === null || share === undefined ? "" : ` ${amount("share", share)}`}`).join(", ")],
    ["told", one.times_told ? `${plural(one.times_told, "time")}, last ${clock(one.told_at)}` : "nobody yet"],
    one.acknowledged_by && ["seen by", `${one.acknowledged_by}${one.acknowledged_at ? `, ${clock(one.acknowledged_at)}` : ""}`],
    one.owner && ["owner", one.owner],
    one.runbook && ["runbook", /^https?:\/\//.test(one.runbook) ? h("a", { href: one.runbook, target: "_blank", rel: "noopener noreferrer" }, one.runbook) : one.runbook],
  ].filter(Boolean);

  const deed = (label, work, kind = "") =>
    h(
      "button",
      {
        type: "button",
        class: kind,
        "data-key": `${label}-${one.number}`,
        "aria-label": `${label} #${one.number}`,
        onclick: async (event) => {
          event.currentTarget.disabled = true;
          try {
            await work();
            changed();
          } catch (error) {
            problem.hidden = false;
            say(problem, error.message);
          }
          if (event.target.isConnected) event.target.disabled = false;
        },
      },
      label,
    );
  const deeds = may("act") && [
    one.phase !== "acknowledged" && deed("Acknowledge", () => send("POST", `/console/incidents/${one.number}/ack`), "primary"),
    deed("Resolve", () => send("POST", `/console/incidents/${one.number}/resolve`)),
    deed("Silence 1 h", () => send("POST", "/console/silences", { incident: one.number, for: "1h", why: `#${one.number}` })),
  ];
  return h(
    "article",
    { class: `incident ${one.severity} ${one.phase}`, "data-incident": one.number, "aria-labelledby": `incident-${one.number}` },
    h(
      "header",
      {},
      badge(one.severity),
      h("span", { class: "phase" }, `${phases[one.phase] ?? one.phase}${one.flapping ? ", comes and goes" : ""}`),
      h("span", { class: "number" }, `#${one.number}`),
    ),
    h("h3", { id: `incident-${one.number}` }, one.what),
    h("dl", {}, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    problem,
    deeds && h("p", { class: "deeds" }, deeds),
  );
}

function silence(window, changed) {
  const what = Object.entries(window.match ?? {}).map(([name, value]) => `${name}=${value}`).join(", ") || "everything";
  return h(
    "p",
    { class: "silence" },
    `${what}, until ${clock(window.until)}${window.by ? `, by ${window.by}` : ""}${window.why ? `: ${window.why}` : ""} `,
    may("act") && window.id.startsWith("silence-") && h("button", { type: "button", class: "small", onclick: async () => { await send("DELETE", `/console/silences/${encodeURIComponent(window.id)}`); changed(); } }, "take back"),
  );
}

