// How far each stage is behind, from the moment that somebody looks: records that wait, as the node's status tells of them.

import { card } from "./panels.js";
import { iso, seconds } from "./words.js";

// Ten minutes, a point a second.
const KEPT_S = 600;
const STAGES = { meter: "meter_lag_records", guardrails: "guardrails_lag_records", store: "sink_lag_records" };
const PANEL = { key: "lags", title: "Behind", about: "Records that wait in front of each stage, since this page was opened", shape: "series", unit: "records", width: 12, series_of: null };

export class Lags {
  #rows = [];

  constructor() {
    this.card = card(PANEL, []);
    this.element = this.card.element;
  }

  hear(status) {
    const at = Math.round(seconds(status.at) ?? Date.now() / 1000);
    for (const [stage, name] of Object.entries(STAGES)) {
      if (status[name] !== undefined) this.#rows.push([iso(at), stage, status[name]]);
    }
    this.#rows = this.#rows.filter(([when]) => seconds(when) > at - KEPT_S);
    this.card.update({ columns: ["t", "series", "value"], rows: this.#rows, step_s: null }, { since: seconds(this.#rows[0][0]), until: at, fixed: true });
  }

  redraw() {
    this.card.redraw();
  }

  destroy() {
    this.card.destroy();
  }
}
