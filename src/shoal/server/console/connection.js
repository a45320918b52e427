/**
 * Whether the server answers, learned from the statistics that the engine view shows anyway.
 * Asks only while the page is visible; a page that comes back to the front asks at once.
 */

import { ApiError } from "./api.js";

/** @typedef {"connecting" | "online" | "starting" | "locked" | "refused" | "offline"} State */
/** @typedef {{stats: (stats: Record<string, any>) => void, restarted: () => void,
 *             state: (state: State, before: State, why: string) => void}} Listener */

const PERIOD_MS = 1000;

export class Connection {
  state = /** @type {State} */ ("connecting");
  #timer = 0;
  #asking = false;
  #steps = 0;

  /** @param {import("./api.js").Api} api @param {Listener} listener */
  constructor(api, listener) {
    this.api = api;
    this.listener = listener;
    document.addEventListener("visibilitychange", () => this.check());
  }

  /** Asks now, then once a period for as long as the page is visible. */
  async check() {
    clearTimeout(this.#timer);
    if (document.hidden || this.#asking) return;
    this.#asking = true;
    await this.#ask();
    this.#asking = false;
    this.#timer = setTimeout(() => this.check(), PERIOD_MS);
  }

  /** A request failed or there is a new key: what is known no longer holds. */
  doubt() {
    if (this.state === "online" || this.state === "locked") this.#become("connecting");
    return this.check();
  }

  async #ask() {
    try {
      const stats = await this.api.stats();
      if (this.state !== "online") await this.api.ready();
      this.#become("online");
      if (stats.steps_total < this.#steps) this.listener.restarted();
      this.#steps = stats.steps_total;
      this.listener.stats(stats);
    } catch (error) {
      this.#become(stateAfter(error), error.message);
    }
  }

  #become(state, why = "") {
    if (state === this.state) return;
    const before = this.state;
    this.state = state;
    this.listener.state(state, before, why);
  }
}

/** @param {unknown} error @returns {State} */
function stateAfter(error) {
  if (!(error instanceof ApiError) || error.status === 0 || error.status === 502) return "offline";
  if (error.status === 401) return "locked";
  return error.status === 403 ? "refused" : "starting";
}
