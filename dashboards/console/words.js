// Numbers and moments in words. Unknown is an en dash, never 0. Moments are UTC, as everywhere in Tidegate.

export const UNKNOWN = "–";

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const cents = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const mills = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 3 });
const percents = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });

const counted = (value, brief) => {
  if (brief && Math.abs(value) >= 10_000) return short.format(value);
  return Number.isInteger(value) ? plain.format(value) : fine.format(value);
};

const WRITERS = {
  usd(value, brief) {
    const size = Math.abs(value);
    const sign = value < 0 ? "−" : "";
    if (size === 0) return "$0";
    if (brief && size >= 10_000) return `${sign}$${short.format(size)}`;
    const text = size >= 1 ? cents.format(size) : size >= 0.1 ? mills.format(size) : size >= 1e-6 ? fine.format(size) : size.toExponential(1);
    return `${sign}$${text}`;
  },
  seconds(value) {
    if (value === 0) return "0 s";
    if (value < 0.001) return `${fine.format(value * 1e6)} µs`;
    if (value < 1) return `${fine.format(value * 1000)} ms`;
    return value < 120 ? `${fine.format(value)} s` : span(value);
  },
  share(value) {
    const percent = value * 100;
    if (percent > 0 && percent < 0.01) return "< 0.01 %";
    return `${(Math.abs(percent) < 10 ? percents : plain).format(percent)} %`;
  },
  per_second: (value) => `${fine.format(value)}/s`,
  bytes(value) {
    const units = ["B", "KB", "MB", "GB", "TB"];
    let at = 0;
    for (; Math.abs(value) >= 1000 && at < units.length - 1; at += 1) value /= 1000;
    return `${fine.format(value)} ${units[at]}`;
  },
};

/** An amount in its unit. `brief` is for axes and large figures. */
export function amount(unit, value, brief = false) {
  if (value === null || value === undefined || Number.isNaN(value)) return UNKNOWN;
  if (typeof value !== "number") return String(value);
  return (WRITERS[unit] ?? counted)(value, brief);
}

/** A table's cell. */
export function cell(how, value) {
  if (value === null || value === undefined || value === "") return UNKNOWN;
  if (how === "time") return moment(value);
  if (how === "text" && typeof value === "number") return counted(value, false);
  if (how === "text" && typeof value === "boolean") return value ? "yes" : "no";
  return amount(how, value);
}

export function seconds(text) {
  if (text === null || text === undefined) return null;
  if (typeof text === "number") return text;
  const iso = text.includes("T") ? text : text.replace(" ", "T");
  const at = Date.parse(/Z|[+-]\d\d:?\d\d$/.test(iso) ? iso : iso.length === 10 ? iso : `${iso}Z`);
  return Number.isNaN(at) ? null : at / 1000;
}

export const iso = (at) => new Date(at * 1000).toISOString().replace(".000Z", "Z");

/** `14:20:05` today, `11-22 14:20` on another day (UTC). */
export function moment(value, now = Date.now() / 1000) {
  const at = seconds(value);
  if (at === null) return value ? String(value) : UNKNOWN;
  const text = new Date(at * 1000).toISOString();
  if (text.slice(0, 10) === new Date(now * 1000).toISOString().slice(0, 10)) return text.slice(11, 19);
  return `${text.slice(0, 4) === new Date(now * 1000).toISOString().slice(0, 4) ? text.slice(5, 10) : text.slice(0, 10)} ${text.slice(11, 16)}`;
}

/** `14:20` today, else with the day. */
export const clock = (value) => moment(value).replace(/^(\d\d:\d\d):\d\d$/, "$1");

/** The two largest units: `3 h 20 min`. */
export function span(length) {
  let rest = Math.max(Math.round(length), 0);
  const parts = [];
  for (const [unit, size] of [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]]) {
    const whole = Math.floor(rest / size);
    rest -= whole * size;
    if (whole) parts.push(`${whole} ${unit}`);
    else if (parts.length) break;
    if (parts.length === 2) break;
  }
  return parts.join(" ") || "0 s";
}

export const plural = (count, one, many = `${one}s`) => `${plain.format(count)} ${count === 1 ? one : many}`;
