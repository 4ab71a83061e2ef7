// A name has one colour on the whole page, in the order in which names are first seen. The colours are Okabe and Ito's, which
// colour-blind people tell apart, made lighter or darker for the theme (console.css).

const COUNT = 16;
// Percentiles are the same everywhere: from calm to warm.
const PERCENTILES = { p50: 0, p95: 4, p99: 1 };
const given = new Map();

export function slot(name) {
  if (name === "other" || name === "unknown" || name === "") return "rest";
  if (name in PERCENTILES) return PERCENTILES[name];
  if (!given.has(name)) given.set(name, given.size % COUNT);
  return given.get(name);
}

const probe = document.createElement("i");
probe.hidden = true;
document.documentElement.append(probe);
const resolved = new Map();

/** What a custom property is in the theme of now, as a canvas takes it. */
export function ink(name) {
  if (!resolved.has(name)) {
    probe.style.color = `var(--${name})`;
    resolved.set(name, getComputedStyle(probe).color);
  }
  return resolved.get(name);
}

export const colour = (name) => ink(`s-${slot(name)}`);

export const faded = (rgb, alpha) => `rgba(${rgb.match(/[\d.]+/g).slice(0, 3).join(",")},${alpha})`;

export const forget = () => resolved.clear();
