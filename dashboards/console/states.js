// States and severities: a sign and a word, for who cannot tell their colours apart.

import { h } from "./dom.js";

export const SIGNS = { ok: "●", warn: "◆", throttle: "◐", downgrade: "▽", block: "■", warning: "◆", critical: "▲" };
const WORDS = { ok: "fine", warn: "warned", throttle: "throttled", downgrade: "downgraded", block: "blocked" };

export const badge = (state) => h("span", { class: `badge ${state in SIGNS ? state : ""}` }, `${SIGNS[state] ?? "●"} ${WORDS[state] ?? state}`);
