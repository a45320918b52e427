/**
 * One message on the page. `update` may be called for every token; it draws at most once per frame.
 */

import { copyButton, el, iconButton, svg } from "./dom.js";
import { providers } from "./mesh-words.js";
import { badge } from "./receipt-view.js";

/** @typedef {import("./store.js").Turn} Turn */
/** @typedef {{edit: (turn: Turn, text: string) => void, regenerate: (turn: Turn) => void,
 *             resume: (turn: Turn) => void,
 *             look: (id: string) => Promise<import("./receipt-view.js").Evidence>}} Actions */

/** Without its Markdown module the page still works, in plain text. */
const markdown = await import("./markdown.js").catch(() => null);

const FISH = "l3 2.500q4.500-4.600 9 0q-4.500 4.600-9 0l-3 2.500Z";
const SWIMMERS = `M0 2.500${FISH}M16 2.500${FISH}M32 2.500${FISH}`;

/** @param {Turn} turn @param {Actions} actions @returns {TurnView} */
export function turnView(turn, actions) {
  return turn.role === "user" ? new UserTurn(turn, actions) : new AssistantTurn(turn, actions);
}

/** @typedef {{node: HTMLElement, update: (live: boolean) => void}} TurnView */

class UserTurn {
  constructor(turn, actions) {
    this.turn = turn;
    this.actions = actions;
    this.node = el("li", { class: "turn user" });
    this.update();
  }

  update() {
    const edit = iconButton("edit", "Edit and send again", () => this.#edit());
    const tools = el("div", { class: "tools" }, edit, copyButton(() => this.turn.content, "Copy message"));
    this.node.replaceChildren(speaker("You"), el("div", { class: "bubble", text: this.turn.content }), tools);
  }

  #edit() {
    const area = el("textarea", { "aria-label": "Edit message", rows: "3" });
    area.value = this.turn.content;
    const cancel = () => {
      this.update();
      this.node.querySelector("button").focus();
    };
    const send = () => area.value.trim() && this.actions.edit(this.turn, area.value.trim());
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") cancel();
      else if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      else send();
      event.preventDefault();
      event.stopPropagation();
    });
    const row = el("div", { class: "row" },
      el("button", { type: "button", class: "button quiet", onclick: cancel, text: "Cancel" }),
      el("button", { type: "button", class: "button primary", onclick: send, text: "Send" }));
    this.node.replaceChildren(speaker("You"), el("div", { class: "editor" }, area, row));
    area.focus();
  }
}

class AssistantTurn {
  #frame = 0;
  #live = false;
  #drawn = "";
  #badge = /** @type {{id: string, node: HTMLElement} | null} */ (null);

  constructor(turn, actions) {
    this.turn = turn;
    this.actions = actions;
    this.body = el("div", { class: "answer" });
    this.foot = el("div", { class: "foot" });
    this.node = el("li", { class: "turn assistant" }, speaker("Answer"), this.body, this.foot);
    this.renderer = markdown && new markdown.MarkdownStream(this.body);
  }

  /** @param {boolean} live the answer is being received by this page */
  update(live) {
    this.#live = live;
    if (live) this.#frame ||= requestAnimationFrame(() => this.#draw());
    else this.#draw();
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.node.classList.toggle("live", this.#live);
    this.node.setAttribute("aria-busy", String(this.#live));
    if (this.#drawn !== this.turn.content) this.#drawText();
    this.foot.replaceChildren(...(this.#live ? this.#progress() : this.#ending()));
  }

  #drawText() {
    this.#drawn = this.turn.content;
    try {
      if (this.renderer) return this.renderer.update(this.turn.content);
    } catch (error) {
      console.error("Markdown failed; showing plain text.", error);
      this.renderer = null;
    }
    this.body.classList.add("plain");
    this.body.textContent = this.turn.content;
  }

  #progress() {
    const shape = svg("path", { d: SWIMMERS });
    const swimming = svg("svg", { class: "swim", viewBox: "0 0 44 10", "aria-hidden": "true" }, shape);
    return [el("p", { class: "metrics" }, swimming, ...measures(this.turn))];
  }

  #ending() {
    const tools = el("div", { class: "tools" },
      this.turn.content ? copyButton(() => this.turn.content, "Copy answer") : null,
      iconButton("retry", "Regenerate", () => this.actions.regenerate(this.turn)));
    const note = this.#note(), signed = this.#signed();
    const line = el("div", { class: "meta" }, tools, el("p", { class: "metrics" }, ...measures(this.turn)));
    return [note, line, signed].filter((part) => part !== null);
  }

  /** The same node for as long as the receipt is the same, so that it stays open. */
  #signed() {
    const { receipt } = this.turn;
    if (!receipt) return null;
    if (this.#badge?.id !== receipt.id) this.#badge = { id: receipt.id, node: badge(this.turn, this.actions.look) };
    return this.#badge.node;
  }

  /** What is unusual about the ending and what can be done, or null. "streaming" here means nobody receives it. */
  #note() {
    const { status, problem, metrics } = this.turn;
    if (status === "failed") return note("failed", problem ?? { title: "The answer failed" }, this.#retry());
    if (status === "stopped") return note("quiet", { title: "Stopped" }, this.#continue());
    if (metrics?.finish === "length") return note("quiet", { title: "Cut at the token limit" }, this.#continue());
    if (status === "done") return null;
    const text = "The connection or this page was closed before the answer ended. What had arrived is kept.";
    return note("interrupted", { title: "Interrupted", text }, this.#continue());
  }

  #retry() {
    return iconButton("retry", "Try again", () => this.actions.regenerate(this.turn), false);
  }

  #continue() {
    if (!this.turn.content) return this.#retry();
    return iconButton("play", "Continue", () => this.actions.resume(this.turn), false);
  }
}

function speaker(name) {
  return el("h2", { class: "sr-only", text: name });
}

function note(kind, { title, text, detail }, button) {
  const words = el("div", {}, el("strong", { text: title }), text ? el("p", { text }) : null);
  if (detail && detail !== text) words.append(serverSaid(detail));
  return el("div", { class: `note ${kind}`, role: kind === "failed" ? "alert" : undefined }, words, button);
}

function duration(ms) {
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

function serverSaid(detail) {
  return el("details", { open: true }, el("summary", { text: "What the server said" }), el("p", { text: detail }));
}

/** @param {Turn} turn @returns {HTMLElement[]} model, speed and counts, each where known */
function measures({ model, metrics = {} }) {
  const { tokensPerS, ttftMs, tokens, promptTokens, cachedTokens, cost, providers: names } = metrics;
  const prompt = promptTokens && `${promptTokens} in prompt${cachedTokens ? `, ${cachedTokens} cached` : ""}`;
  const parts = [
    [model, "Model"],
    [Array.isArray(names) && names.length && `by ${providers(names.map(String))}`, "Who computed it"],
    [tokensPerS && `${tokens ? "" : "≈ "}${tokensPerS.toFixed(1)} tok/s`, "Tokens per second after the first"],
    [ttftMs && `${duration(ttftMs)} to first`, "Time to the first token, measured here"],
    [tokens && `${tokens} tokens`, "Tokens of the answer"],
    [prompt, "Tokens of the prompt"],
    ...costs(cost),
  ];
  return parts.filter(([text]) => text).map(([text, title]) => el("span", { text, title }));
}

/** Each reading in units of an answer; its title says where the number came from. @returns {[string, string][]} */
function costs(cost = {}) {
  const shown = [
    ["Energy", cost.energy_j, 1, "J"],
    ["Water", cost.water_l, 1000, "mL"],
    ["Carbon", cost.carbon_g, 1000, "mg CO₂e"],
    ["Money", cost.cost_usd, 1, "$"],
  ];
  return shown
    .filter(([, reading]) => typeof reading?.value === "number")
    .map(([name, { value, source }, factor, unit]) => [`${(value * factor).toPrecision(3)} ${unit}`, `${name}: ${source}`]);
}
