/**
 * The mesh: map, table, lists, and a page for each peer. Asks the server every PERIOD_MS while it can be seen; what was
 * known last stays on the page, and is said to be old, while the server does not answer.
 *
 * The address says what is shown: #mesh, or #mesh=PEER.
 */

import { el } from "./dom.js";
import { aboutNode, decisionList, emptyState, transferList } from "./mesh-lists.js";
import { MeshMap } from "./mesh-map.js";
import { MeshTable } from "./mesh-table.js";
import { providers } from "./mesh-words.js";
import { PeerPage } from "./peer-page.js";

/** @typedef {Record<string, any>} MeshView as in core/service.py */

const PERIOD_MS = 2000;

/** @param {string} hash @returns {string | null} the peer to show, "" for all of them, null for something else */
export function meshAddress(hash) {
  return /^#mesh(?:=([a-z2-7]+))?$/.exec(hash)?.slice(1).map((id) => id ?? "")[0] ?? null;
}

export class MeshPage {
  #timer = 0;
  #asking = false;
  #peer = /** @type {string | null} */ (null);
  #view = /** @type {MeshView | null} */ (null);
  #drawn = /** @type {Map<HTMLElement, string>} */ (new Map());

  /**
   * @param {HTMLElement} root @param {import("./api.js").Api} api
   * @param {() => string[]} answered who computed the last answer of the open chat
   */
  constructor(root, api, answered) {
    this.root = root;
    this.api = api;
    this.answered = answered;
    this.old = el("p", { class: "old", role: "status", hidden: true });
    this.title = el("h2", { class: "sr-only", tabindex: "-1", text: "Mesh" });
    this.empty = el("div");
    this.map = new MeshMap();
    this.table = new MeshTable();
    this.about = el("div");
    this.transfers = el("div");
    this.decisions = el("div");
    this.peerPage = new PeerPage(api);
    this.all = el("div", {}, this.empty, this.map.node, this.table.node,
      el("div", { class: "columns" }, this.#part("This node", this.about, "about"),
        this.#part("Who answered what", this.decisions, "decisions"),
        this.#part("Blobs on their way", this.transfers, "transfers")));
    this.all.hidden = this.peerPage.node.hidden = true;
    root.replaceChildren(this.title, this.old, this.all, this.peerPage.node);
    document.addEventListener("visibilitychange", () => this.#check());
    new ResizeObserver(() => this.#draw()).observe(this.map.node);
  }

  get isOpen() {
    return this.#peer !== null;
  }

  /** @param {string | null} peer to show, "" for all, null: the mesh is not shown */
  show(peer) {
    const isNew = peer !== this.#peer;
    this.#peer = peer;
    this.root.hidden = peer === null;
    this.#draw();
    if (isNew && peer !== null) this.focus();
    this.#check();
  }

  focus() {
    (this.#peer ? this.peerPage : this.title).focus();
  }

  async #check() {
    clearTimeout(this.#timer);
    if (!this.isOpen || document.hidden || this.#asking) return;
    this.#asking = true;
    await this.#ask();
    this.#asking = false;
    if (this.isOpen) this.#timer = setTimeout(() => this.#check(), PERIOD_MS);
  }

  async #ask() {
    try {
      this.#view = await this.api.mesh();
      this.old.hidden = true;
      this.#draw();
    } catch (error) {
      const known = this.#view ? "This is what was known last." : "Nothing is known yet.";
      const words = `The mesh cannot be shown now: ${error.message} ${known}`;
      if (this.old.textContent !== words) this.old.textContent = words;
      this.old.hidden = false;
    }
    this.root.classList.toggle("stale", !this.old.hidden);
  }

  #draw() {
    const view = this.#view;
    if (!this.isOpen) return;
    this.peerPage.node.hidden = !this.#peer;
    this.title.hidden = this.#peer !== "";
    this.all.hidden = this.#peer !== "" || view === null;
    if (this.#peer) this.peerPage.update(this.#peer, view ?? { peers: [], decisions: [] });
    else if (view) this.#drawAll(view);
  }

  /** @param {MeshView} view */
  #drawAll(view) {
    const isAlone = view.peers.length === 0;
    this.empty.hidden = !isAlone;
    this.map.node.hidden = isAlone && !view.id;
    this.table.node.hidden = isAlone;
    this.map.update(view, this.#credits(view));
    this.table.update(view.peers);
    this.#fill(this.empty, isAlone && view.id, () => emptyState(view), isAlone);
    this.#fill(this.about, [view.id, view.sharing, view.nat, view.addresses, view.relays], () => aboutNode(view), view.id);
    this.#fill(this.decisions, view.decisions, () => decisionList(view.decisions), true);
    this.#fill(this.transfers, view.transfers, () => transferList(view.transfers), view.transfers.length);
  }

  /** Who answered the open chat last; before it has an answer, who answered the last request of anybody. */
  #credits({ decisions }) {
    const last = decisions.filter(({ request_id: id }) => id === decisions.at(-1).request_id);
    const here = this.answered();
    const answered = here.length ? here : last.filter(({ num_tokens: n }) => n > 0).map(({ provider }) => provider);
    const failed = last.filter(({ outcome }) => outcome.startsWith("failed")).map(({ provider }) => provider);
    const what = here.length ? "This chat was answered by" : "The last request was answered by";
    const words = answered.length ? `${what} ${providers(answered)}.` : "";
    return { answered: new Set(answered), failed: new Set(failed), words };
  }

  /** Draws a part anew only when what it says has changed, and never under the reader's focus. */
  #fill(part, value, make, isShown) {
    (part.closest(".part") ?? part).hidden = !isShown;
    const text = JSON.stringify(value) ?? "";
    if (!isShown || this.#drawn.get(part) === text || part.contains(document.activeElement)) return;
    this.#drawn.set(part, text);
    part.replaceChildren(make());
  }

  #part(title, content, id) {
    return el("section", { class: "part", "aria-labelledby": `mesh-${id}` }, el("h2", { id: `mesh-${id}`, text: title }),
      content);
  }
}
