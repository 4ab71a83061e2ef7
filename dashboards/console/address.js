// What is shown lies in the address: a link shows the same to somebody else, and Back goes back.

export const RANGES = ["15m", "1h", "6h", "24h", "7d", "30d", "100d"];
const DEFAULTS = { board: "overview", range: "1h", tenant: "*" };
const SINGLE_LETTERS = { m: 60, h: 3_600, d: 86_400 };

export const rangeSeconds = (range) => Number(range.slice(0, -1)) * SINGLE_LETTERS[range.at(-1)];

/** `{board, range | since + until, tenant, by, …, open, …}` of an address. Anything unknown is kept: variables come from the node. */
export function read(search = location.search) {
  const found = { ...DEFAULTS, ...Object.fromEntries(new URLSearchParams(search)) };
  if (!RANGES.includes(found.range)) found.range = DEFAULTS.range;
  if (!(Date.parse(found.since) < Date.parse(found.until))) {
    delete found.since;
    delete found.until;
  }
  return found;
}

/** The address of `shown` with `changes`; an empty change takes a word out. */
export function href(changes, shown = read()) {
  const next = { ...shown, ...changes };
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(next)) {
    if (value !== undefined && value !== null && value !== "" && value !== DEFAULTS[name]) words.set(name, value);
  }
  const text = words.toString().replaceAll("%3A", ":").replaceAll("%40", "@");
  return text ? `/?${text}` : "/";
}

const listeners = new Set();
let shown = read();

export const now = () => shown;
export const onChange = (listener) => listeners.add(listener);

function tell() {
  const before = shown;
  shown = read();
  for (const listener of listeners) listener(shown, before);
}

/** Go there; `quietly` without a step in the history. */
export function go(changes, quietly = false) {
  const to = href(changes);
  if (to === location.pathname + location.search) return;
  history[quietly ? "replaceState" : "pushState"](null, "", to);
  tell();
}

/** A plain click follows a link here; with a modifier it is the browser's. */
export function follow(event, changes) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go(changes);
}

addEventListener("popstate", tell);

/** What a stream and a list are asked for: the range, and every variable. */
export function question(state, variables) {
  const words = new URLSearchParams();
  if (state.since) {
    words.set("since", state.since);
    words.set("until", state.until);
  } else words.set("range", state.range);
  for (const { name, default: usual } of variables) {
    if (["since", "until", "step_s"].includes(name)) continue;
    words.set(name, state[name] || usual);
  }
  return words;
}

/** [since, until) of what is shown, ISO. */
export function bounds(state, at = Date.now() / 1000) {
  if (state.since) return [state.since, state.until];
  const iso = (seconds) => new Date(seconds * 1000).toISOString();
  return [iso(at - rangeSeconds(state.range)), iso(at)];
}
