/**
 * The live engine: speed over the last minute, queue and batch, and the cache blocks as a school of small fish,
 * one for an equal share of the blocks: lit where a request uses it, dim where its contents are kept for reuse.
 */

import { el, svg } from "./dom.js";

/** @typedef {Record<string, any>} EngineStats as in core/service.py */

const SAMPLES = 60;
const COLUMNS = 16;
const ROWS = 5;
const FIGURES = /** @type {[string, string, (s: EngineStats) => string][]} */ ([
  ["Running", "Requests in the batch, and how many it takes", (s) => of(s.num_running, s.max_running)],
  ["Waiting", "Requests in the queue, and how many it takes", (s) => of(s.num_waiting, s.max_waiting)],
  ["Batch", "Tokens in the last step", (s) => `${s.batch_tokens} tok`],
  ["Step", "Duration of the last step", (s) => `${(s.step_s * 1000).toFixed(1)} ms`],
  ["Prefix hits", "Prompt tokens found in the cache", (s) => percent(s.cached_tokens_total, s.prompt_tokens_total)],
  ["Generated", "Tokens since the engine started", (s) => compact(s.generation_tokens_total)],
]);

export class EngineView {
  #rates = /** @type {number[]} */ ([]);
  #last = /** @type {{tokens: number, at: number} | null} */ (null);

  /** @param {HTMLElement} root */
  constructor(root) {
    this.rate = el("output", { class: "rate", text: "–", "aria-label": "Tokens per second" });
    this.device = el("p", { class: "device" });
    this.drafts = el("p", { class: "device", hidden: "" });
    this.line = svg("polyline", { class: "line", "vector-effect": "non-scaling-stroke" });
    this.area = svg("polygon", { class: "area" });
    this.values = FIGURES.map(() => el("dd", { text: "–" }));
    this.fish = Array.from({ length: COLUMNS * ROWS }, (_, index) => fish(index));
    this.legend = el("p", { class: "legend" });
    this.#build(root);
  }

  #build(root) {
    const figures = FIGURES.map(([name, title], index) =>
      el("div", { title }, el("dt", { text: name }), this.values[index]));
    const chart = drawing("spark", 100, 30, [this.area, this.line]);
    chart.setAttribute("preserveAspectRatio", "none");
    const school = drawing("school", COLUMNS * 14 + 5, ROWS * 11, this.fish);
    root.replaceChildren(
      el("h2", { id: "engine-title", text: "Engine" }), this.device, this.drafts,
      el("p", { class: "speed" }, this.rate, " tokens/s"), chart,
      el("dl", { class: "figures" }, ...figures),
      el("h3", { text: "Cache" }), school, this.legend);
  }

  /** @param {EngineStats} stats @param {number} nowMs on a monotonic clock */
  update(stats, nowMs) {
    this.#measure(stats.generation_tokens_total, nowMs);
    this.device.textContent = [stats.device, stats.kernels].filter(Boolean).join(" · ");
    this.drafts.hidden = !stats.drafter;
    this.drafts.textContent = drafting(stats);
    FIGURES.forEach(([, , read], index) => (this.values[index].textContent = read(stats)));
    this.#drawSpeed();
    this.#drawCache(stats);
  }

  /** A counter that went back means that the server was restarted: measuring begins again. */
  #measure(tokens, nowMs) {
    const last = this.#last;
    this.#last = { tokens, at: nowMs };
    if (!last || tokens < last.tokens || nowMs <= last.at) return;
    this.#rates.push(((tokens - last.tokens) / (nowMs - last.at)) * 1000);
    this.#rates.splice(0, this.#rates.length - SAMPLES);
  }

  #drawSpeed() {
    const top = Math.max(1, ...this.#rates);
    const x = (index) => (100 * (SAMPLES - this.#rates.length + index)) / (SAMPLES - 1);
    const points = this.#rates.map((rate, index) => `${x(index).toFixed(2)},${(29 - (27 * rate) / top).toFixed(2)}`);
    this.line.setAttribute("points", points.join(" "));
    this.area.setAttribute("points", points.length ? `${x(0)},30 ${points.join(" ")} 100,30` : "");
    this.rate.textContent = this.#rates.length ? this.#rates.at(-1).toFixed(1) : "–";
  }

  #drawCache({ blocks_total: total, blocks_used: used, blocks_cached: cached, block_size: size }) {
    const share = (blocks) => (total ? Math.ceil((blocks / total) * this.fish.length) : 0);
    const lit = share(used);
    const kept = lit + share(cached);
    const kind = (index) => (index < lit ? "used" : index < kept ? "cached" : "free");
    this.fish.forEach((node, index) => node.setAttribute("class", kind(index)));
    const all = `of ${total} blocks × ${size} tokens`;
    this.legend.replaceChildren(key("used", `${used} used`), key("cached", `${cached} kept`), key("free", all));
  }
}

/** The figures say the same in words, so screen readers pass over the drawings. */
function drawing(name, width, height, shapes) {
  return svg("svg", { class: name, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, ...shapes);
}

/** Rows are staggered, as fish swim. */
function fish(index) {
  const x = (index % COLUMNS) * 14 + (Math.floor(index / COLUMNS) % 2) * 7;
  const y = Math.floor(index / COLUMNS) * 11 + 5.5;
  return svg("path", { class: "free", d: `M${x} ${y - 2.5}l3 2.5q4.500-4.600 9 0q-4.500 4.600-9 0l-3 2.500Z` });
}

function key(kind, text) {
  return el("span", { class: kind, text });
}

/** One line: what guesses tokens ahead, how long its guesses hold, and where it is chosen per request, why. */
function drafting({ drafter, draft_checks_total: checks, draft_accepted_total: accepted, choice_why: why }) {
  const length = checks ? `, ${(1 + accepted / checks).toFixed(1)} tokens per check` : "";
  return `Drafts: ${drafter}${length}${why ? ` (last ${why})` : ""}`;
}

function of(value, most) {
  return most ? `${value} / ${most}` : String(value);
}

function percent(part, whole) {
  return whole ? `${((100 * part) / whole).toFixed(0)} %` : "–";
}

function compact(value) {
  return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);
}
