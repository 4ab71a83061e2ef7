// Who looks, and what they may. A token is sent once, and never kept here.

import { byId, fill, h, say } from "./dom.js";
import { get, send } from "./node.js";

const MAY = {
  look: "boards and incidents",
  calls: "single calls",
  transcripts: "redacted transcripts",
  act: "acknowledge, resolve and silence incidents",
};
const listeners = new Set();
let session = { role: null, name: null, may: [], node: {} };

export const may = (what) => session.may.includes(what);
export const node = () => session.node ?? {};
/** Hear of every change; gives what ends that. */
export const onSession = (listener) => {
  listeners.add(listener);
  return () => listeners.delete(listener);
};

export async function refresh() {
  take(await get("/console/session"));
}

function take(found) {
  session = { role: found.role ?? null, name: found.name ?? null, may: found.may ?? [], node: found.node ?? session.node };
  const button = byId("session-button");
  say(button, session.role ? session.name || session.role : "Sign in");
  button.title = session.role ? "Signed in: what you may do, and the way out" : "Sign in with a token";
  for (const listener of listeners) listener(session);
}

/** What stands in place of what one may not see, with the way in. */
export function gate(what) {
  const who = session.role ? `Signed in as ${session.role}, you may not see ${MAY[what]}.` : `${MAY[what][0].toUpperCase()}${MAY[what].slice(1)} are for people who have signed in.`;
  const how = what === "look" ? "This node has a token, and shows its figures to those who have it or one of their own." : what === "transcripts" ? "Transcripts need the role compliance, or the node's own token; each reading is in the audit log." : "A token of your own comes from tidegate access grant.";
  return h("div", { class: "gate" }, h("p", {}, h("b", {}, who)), h("p", {}, how), !session.role && h("button", { type: "button", class: "primary", onclick: () => dialog() }, "Sign in"));
}

export function dialog() {
  const talk = byId("talk");
  const close = h("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => talk.close() }, "×");
  if (session.role) {
    const list = Object.entries(MAY).map(([what, words]) => h("li", { class: may(what) ? "yes" : "no" }, h("b", { "aria-hidden": "true" }, may(what) ? "✓ " : "✕ "), may(what) ? `may: ${words}` : `may not: ${words}`));
    fill(
      talk,
      h("header", {}, h("h2", { id: "talk-title" }, session.name && session.name !== session.role ? `Signed in: ${session.name}, ${session.role}` : `Signed in as ${session.role}`), close),
      h("ul", { class: "may" }, list),
      h("p", {}, h("button", { type: "button", onclick: async () => { take(await send("DELETE", "/console/session")); await refresh(); talk.close(); } }, "Sign out")),
    );
  } else {
    const token = h("input", { id: "token", type: "password", name: "token", autocomplete: "current-password", required: true, spellcheck: "false" });
    const problem = h("p", { class: "problem", role: "alert", hidden: true });
    const form = h("form", {}, h("label", { for: "token" }, "Token"), token, problem, h("p", {}, h("button", { class: "primary" }, "Sign in")));
    form.onsubmit = async (event) => {
      event.preventDefault();
      try {
        take(await send("POST", "/console/session", { token: token.value.trim() }));
        await refresh();
        talk.close();
      } catch (error) {
        problem.hidden = false;
        say(problem, error.message);
        token.select();
      }
    };
    fill(
      talk,
      h("header", {}, h("h2", { id: "talk-title" }, "Sign in"), close),
      h("p", {}, "A token of your own from ", h("code", {}, "tidegate access grant --role oncall"), ", or the node's. On the node's machine ", h("code", {}, "tidegate console"), " opens this page signed in."),
      form,
    );
  }
  if (!talk.open) talk.showModal();
}
