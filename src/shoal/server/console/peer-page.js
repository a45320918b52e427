/**
 * One peer: everything that is known of it, and a ping.
 */

import { copyButton, el } from "./dom.js";
import { decisionList, facts } from "./mesh-lists.js";
import { reasons } from "./mesh-table.js";
import { bytes, count, KINDS, kindOf, load, price, seconds, short } from "./mesh-words.js";

export class PeerPage {
  #id = "";
  #drawn = "";

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
    this.title = el("h2", { tabindex: "-1", text: "Peer" });
    this.known = el("div");
    this.result = el("p", { class: "pinged", role: "status" });
    this.button = el("button", { type: "button", class: "button primary", text: "Ping", onclick: () => this.#ping() });
    const back = el("a", { class: "back", href: "#mesh", text: "All peers" });
    this.node = el("article", { class: "peer-page" }, back, this.title,
      el("div", { class: "ping" }, this.button, this.result), this.known);
  }

  /** @param {string} id of the peer to show @param {Record<string, any>} view MeshView */
  update(id, view) {
    const peer = view.peers.find((other) => other.id === id);
    const decisions = view.decisions.filter((decision) => decision.provider === id);
    if (id !== this.#id) this.#begin(id);
    const drawn = JSON.stringify([peer, decisions]);
    if (drawn !== this.#drawn && !this.known.contains(document.activeElement)) {
      this.#drawn = drawn;
      this.known.replaceChildren(...about(id, peer, decisions));
    }
  }

  focus() {
    this.title.focus();
  }

  #begin(id) {
    this.#id = id;
    this.#drawn = "";
    this.title.textContent = `Peer ${short(id)}`;
    this.result.textContent = "";
    this.button.disabled = false;
  }

  /** The answer may come when another peer is shown, and then is nobody's business. */
  async #ping() {
    const id = this.#id;
    this.button.disabled = true;
    this.result.textContent = "Asking…";
    const words = await this.api.ping(id).then(answer, (error) => `Could not ask: ${error.message}`);
    if (id !== this.#id) return;
    this.result.textContent = words;
    this.button.disabled = false;
  }
}

/** @param {{rtts_s: number[], failure: string}} found */
function answer({ rtts_s: rtts, failure }) {
  if (!rtts.length) return `No answer: ${failure}`;
  const median = [...rtts].sort((a, b) => a - b)[Math.floor(rtts.length / 2)];
  const words = `${rtts.map(seconds).join(", ")} (median ${seconds(median)})`;
  return failure ? `${words}, then: ${failure}` : words;
}

function about(id, peer, decisions) {
  const name = el("span", { class: "id" }, el("code", { text: id }), copyButton(() => id, "Copy the peer's id"));
  if (!peer) return [facts([["Id", name]]), el("p", { text: "Nothing is known of this peer now. A ping looks for it." })];
  const why = reasons(peer);
  const parts = [facts([["Id", name], ...link(peer), ...offer(peer)])];
  if (why.length) parts.push(el("h3", { text: "What was tried" }), ...why);
  return [...parts, el("h3", { text: "Answers asked of it" }),
    decisions.length ? decisionList(decisions) : el("p", { class: "quiet", text: "None yet." })];
}

function link(peer) {
  const rate = peer.throughput_bps;
  return [
    ["State", peer.state],
    ["Link", KINDS[kindOf(peer)] + (peer.carrier ? `, ${peer.carrier}` : "")],
    ["Address", peer.remote],
    ["Connected for", peer.connected_s === null ? null : seconds(peer.connected_s)],
    ["Round trip", peer.rtt_s === null ? null : seconds(peer.rtt_s)],
    ["Sent, received", `${bytes(peer.bytes_sent)}, ${bytes(peer.bytes_received)}`],
    ["Throughput", rate === null ? null : `${bytes(rate)} a second`],
  ];
}

function offer(peer) {
  return [
    ["Software", peer.agent],
    ["Models", peer.models.join(", ") || "None offered to this node"],
    ["Running / seats", load(peer)],
    ["Price", price(peer)],
    ["Tokens", `${count(peer.given)} made here for it, ${count(peer.received)} made by it for this node`],
  ];
}
