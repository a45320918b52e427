/**
 * Every peer in words: one row each, and under it what failed with the steps that were tried. A page of rows at a time;
 * rows stay the same nodes between two looks, so that focus and selection stay where they are.
 */

import { el } from "./dom.js";
import { bytes, count, KINDS, kindOf, load, price, seconds, short } from "./mesh-words.js";

/** @typedef {import("./mesh-words.js").PeerView} PeerView */

const PAGE = 50;
const COLUMNS = /** @type {[string, (peer: PeerView) => string, string?][]} */ ([
  ["State", (peer) => peer.state],
  ["Path", (peer) => (kindOf(peer) === "none" ? "–" : peer.path || "direct")],
  ["Carrier", (peer) => peer.carrier || "–"],
  ["RTT", (peer) => seconds(peer.rtt_s), "end"],
  ["Sent", (peer) => bytes(peer.bytes_sent), "end"],
  ["Received", (peer) => bytes(peer.bytes_received), "end"],
  ["Models", (peer) => peer.models.join(", ") || "–"],
  ["Running / seats", load, "end"],
  ["Price", price],
  ["Tokens given", (peer) => count(peer.given), "end"],
  ["Tokens received", (peer) => count(peer.received), "end"],
]);

export class MeshTable {
  #rows = /** @type {Map<string, Row>} */ (new Map());
  #first = 0;
  #peers = /** @type {PeerView[]} */ ([]);

  constructor() {
    const heads = [["Peer"], ...COLUMNS].map(([name, , align]) => el("th", { scope: "col", class: align, text: name }));
    this.body = el("tbody");
    this.range = el("span", { role: "status" });
    this.back = el("button", { type: "button", class: "button", text: "Previous", onclick: () => this.#turn(-PAGE) });
    this.next = el("button", { type: "button", class: "button", text: "Next", onclick: () => this.#turn(PAGE) });
    this.pages = el("div", { class: "pages" }, this.back, this.range, this.next);
    const table = el("table", {}, el("caption", { class: "sr-only", text: "Peers" }), el("thead", {},
      el("tr", {}, ...heads)), this.body);
    const scroll = el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table of peers" }, table);
    this.node = el("section", { class: "mesh-peers", "aria-labelledby": "mesh-peers-title" },
      el("h2", { id: "mesh-peers-title", text: "Peers" }), scroll, this.pages);
  }

  /** @param {PeerView[]} peers connected ones first, as the server gives them */
  update(peers) {
    this.#peers = peers;
    this.#first = Math.min(this.#first, Math.max(0, Math.floor((peers.length - 1) / PAGE) * PAGE));
    const shown = peers.slice(this.#first, this.#first + PAGE);
    this.#rows = new Map(shown.map((peer) => [peer.id, this.#rows.get(peer.id) ?? new Row(peer)]));
    const nodes = shown.flatMap((peer) => this.#rows.get(peer.id)?.update(peer) ?? []);
    const { children } = this.body;
    if (nodes.length !== children.length || nodes.some((node, at) => children[at] !== node)) this.#arrange(nodes);
    this.#showPages(shown.length);
  }

  /** Moving a row takes the focus from it, so it is given back. @param {HTMLElement[]} nodes */
  #arrange(nodes) {
    const focused = document.activeElement;
    const hadFocus = this.body.contains(focused);
    this.body.replaceChildren(...nodes);
    if (hadFocus && this.body.contains(focused)) /** @type {HTMLElement} */ (focused).focus({ preventScroll: true });
  }

  #turn(step) {
    this.#first += step;
    this.update(this.#peers);
  }

  #showPages(shown) {
    this.pages.hidden = this.#peers.length <= PAGE;
    this.back.disabled = this.#first === 0;
    this.next.disabled = this.#first + shown >= this.#peers.length;
    write(this.range, `${this.#first + 1} to ${this.#first + shown} of ${this.#peers.length}`);
  }
}

class Row {
  #why = "";

  /** @param {PeerView} peer */
  constructor({ id }) {
    const open = el("a", { href: `#mesh=${id}`, "aria-label": `Peer ${short(id)}`, text: short(id) });
    this.cells = COLUMNS.map(([, , align]) => el("td", { class: align }));
    this.row = el("tr", {}, el("th", { scope: "row" }, open), ...this.cells);
    this.reason = el("td", { colspan: COLUMNS.length + 1 });
    this.reasonRow = el("tr", { class: "why" }, this.reason);
  }

  /** @param {PeerView} peer @returns {HTMLElement[]} its rows */
  update(peer) {
    COLUMNS.forEach(([, read], index) => write(this.cells[index], read(peer)));
    this.row.className = kindOf(peer);
    this.row.title = KINDS[kindOf(peer)];
    const why = JSON.stringify([peer.failure, peer.steps]);
    if (why !== this.#why) this.reason.replaceChildren(...reasons(peer));
    this.#why = why;
    return peer.failure ? [this.row, this.reasonRow] : [this.row];
  }
}

/** What failed, and each step that was tried, in order. @param {PeerView} peer @returns {HTMLElement[]} */
export function reasons({ failure, steps }) {
  const words = failure ? [el("p", { text: failure })] : [];
  return steps.length ? [...words, el("ol", { class: "steps" }, ...steps.map((text) => el("li", { text })))] : words;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
