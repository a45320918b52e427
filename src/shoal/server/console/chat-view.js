/**
 * The messages of the open conversation: keeps one view per turn, follows the end while the reader is there,
 * and tells screen readers about an answer once it is whole instead of token by token.
 */

import { byId, el } from "./dom.js";
import { turnView } from "./turn-view.js";

/** @typedef {import("./store.js").Turn} Turn */

const NEAR_PX = 80;
const SPOKEN_CHARS = 3000;
const STARTERS = ["Explain gravity to a child in three sentences.", "Write a short poem about the sea at night.",
  "List five good names for a sailing boat, with a reason for each."];

export class ChatView {
  #views = /** @type {Map<Turn, import("./turn-view.js").TurnView>} */ (new Map());
  #following = true;

  /** @param {import("./turn-view.js").Actions & {start: (text: string) => void}} actions */
  constructor(actions) {
    this.actions = actions;
    this.scroll = byId("scroll");
    this.turns = byId("turns");
    this.latest = byId("latest");
    this.scroll.addEventListener("scroll", () => this.#noticeScroll(), { passive: true });
    new ResizeObserver(() => this.#follow()).observe(this.turns);
    this.latest.addEventListener("click", () => this.toEnd());
    byId("starters").append(...STARTERS.map((text) => starter(text, actions.start)));
  }

  /** @param {Turn[]} turns @param {Turn | null} live the turn this page is receiving */
  show(turns, live) {
    this.#views = new Map(turns.map((turn) => [turn, this.#views.get(turn) ?? turnView(turn, this.actions)]));
    this.turns.replaceChildren(...[...this.#views.values()].map((view) => view.node));
    for (const [turn, view] of this.#views) view.update(turn === live);
    byId("welcome").hidden = turns.length > 0;
    this.turns.hidden = turns.length === 0;
    this.toEnd();
  }

  /** @param {Turn} turn @param {boolean} live */
  update(turn, live) {
    this.#views.get(turn)?.update(live);
  }

  /** @param {Turn} turn says the whole answer, as it reads, to a screen reader */
  speak(turn) {
    const node = this.#views.get(turn)?.node.querySelector(".answer");
    const text = (node?.textContent ?? "").slice(0, SPOKEN_CHARS);
    announce(turn.status === "done" ? text : `${text} ${turn.problem?.title ?? "Stopped"}`);
  }

  toEnd() {
    this.#following = true;
    this.#follow();
  }

  #follow() {
    if (this.#following) this.scroll.scrollTop = this.scroll.scrollHeight;
    this.#noticeScroll();
  }

  /** Scrolling up lets go of the end; coming back near it takes hold again. */
  #noticeScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroll;
    this.#following = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    this.latest.hidden = this.#following;
  }
}

function starter(text, start) {
  return el("li", {}, el("button", { type: "button", class: "starter", onclick: () => start(text), text }));
}

/** @param {string} text read out politely */
export function announce(text) {
  byId("announcer").textContent = text;
}
