// The node over HTTP, from this page alone: questions, deeds, and the stream that tells what is new.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function asked(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch {
    throw new Refused(0, "the node does not answer");
  }
  const text = await answer.text();
  let found = {};
  try {
    found = text ? JSON.parse(text) : {};
  } catch {
    found = { error: text.slice(0, 300) };
  }
  if (!answer.ok) throw new Refused(answer.status, found.error || `the node answered ${answer.status}`);
  return found;
}

export const get = (path, words) => asked(words ? `${path}?${new URLSearchParams(words)}` : path);
export const send = (method, path, body) =>
  asked(path, { method, headers: { "Content-Type": "application/json" }, body: body === undefined ? undefined : JSON.stringify(body) });

// The node says something at least every 15 s; after this long the connection hangs and is made anew.
const SILENT_MS = 40_000;
// From then on a stream that has told its status alone is taken for one that works.
const SETTLED_MS = 10_000;
// A page that nobody has seen for this long asks nothing until somebody looks again.
const UNSEEN_MS = 300_000;
// Long enough not to hammer a node that starts, short enough that nobody reloads the page by hand.
const PAUSES_MS = [500, 1_000, 2_000, 4_000, 8_000];

/** One stream at a time. `hear(event, data)` gets what it tells, `state("live" | "joining" | "away", since_ms)` how it stands. */
export class Stream {
  constructor(hear, state) {
    this.hear = hear;
    this.state = state;
    this.tries = 0;
    this.source = null;
    this.timer = 0;
    setInterval(() => this.#watch(), 5_000);
    addEventListener("online", () => this.#again(0));
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.unseen);
      if (document.hidden) this.unseen = setTimeout(() => this.#leave(), UNSEEN_MS);
      else if (!this.source && this.address) this.#join();
    });
  }

  open(address, events) {
    this.address = address;
    this.events = events;
    this.tries = 0;
    this.#join();
  }

  close() {
    this.address = null;
    this.#leave();
  }

  #leave() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  #join() {
    this.#leave();
    if (this.tries === 0) this.state("joining");
    const source = new EventSource(this.address);
    this.source = source;
    const openedAt = performance.now();
    this.heardAt = openedAt;
    for (const name of this.events) {
      source.addEventListener(name, (event) => {
        this.heardAt = performance.now();
        // One that breaks off right after its first word is not a stream that works: the pauses go on growing.
        if (name !== "status" || this.heardAt - openedAt > SETTLED_MS) this.tries = 0;
        this.state("live");
        if (event.data) this.hear(name, JSON.parse(event.data));
      });
    }
    source.onerror = () => {
      if (this.source === source) this.#again(PAUSES_MS[Math.min(this.tries, PAUSES_MS.length - 1)]);
    };
  }

  #again(pause) {
    if (!this.address) return;
    this.#leave();
    this.tries += 1;
    this.state("away");
    this.timer = setTimeout(() => this.#join(), pause);
  }

  #watch() {
    if (this.source && performance.now() - this.heardAt > SILENT_MS) this.#again(0);
  }
}
