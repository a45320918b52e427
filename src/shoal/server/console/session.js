/**
 * The open conversation and the answers being received, at most one per conversation; they go on while another is read.
 *
 * Rules that stay true: an answer that grows is saved at least every SAVE_MS and when the page goes away; a turn whose
 * status is "streaming" and that nobody here receives was interrupted; a deleted conversation is never saved again.
 */

import { requestBody, stream } from "./answer.js";
import { load, newConversation, remove, save } from "./store.js";

/** @typedef {import("./store.js").Turn} Turn */
/** @typedef {import("./store.js").Conversation} Conversation */
/** @typedef {{opened: () => void, listed: () => void, grew: (turn: Turn) => void,
 *             ended: (turn: Turn, isOpen: boolean) => void}} Hooks */
/** @typedef {{conversation: Conversation, turn: Turn, abort: AbortController}} Live */

const SAVE_MS = 300;
const TITLE_CHARS = 60;

export class Session {
  #live = /** @type {Map<string, Live>} */ (new Map());
  #timers = /** @type {Map<string, number>} */ (new Map());

  /**
   * @param {import("./api.js").Api} api @param {Hooks} hooks
   * @param {import("./store.js").Settings} settings of the first chat
   */
  constructor(api, hooks, settings) {
    this.api = api;
    this.hooks = hooks;
    this.current = newConversation(settings);
    addEventListener("pagehide", () => this.#live.forEach(({ conversation }) => save(conversation)));
  }

  /** @returns {Turn | null} the turn of the open conversation that is being received */
  get liveTurn() {
    return this.#live.get(this.current.id)?.turn ?? null;
  }

  /** @param {string} id @returns {boolean} whether there is such a conversation */
  open(id) {
    const found = this.#live.get(id)?.conversation ?? load(id);
    if (found && found !== this.current) {
      this.current = found;
      this.hooks.opened();
    }
    return found !== null;
  }

  startNew() {
    this.current = newConversation(this.current.settings);
    this.hooks.opened();
  }

  /** @param {string} id @returns {Conversation | null} what was deleted, for `restore` */
  delete(id) {
    const deleted = this.#live.get(id)?.conversation ?? load(id);
    const live = this.#live.get(id);
    this.#live.delete(id);
    live?.abort.abort();
    this.#cancelSave(id);
    remove(id);
    if (id === this.current.id) this.startNew();
    this.hooks.listed();
    return deleted;
  }

  /** @param {Conversation} conversation */
  restore(conversation) {
    save(conversation);
    this.hooks.listed();
  }

  /** Settings or model were changed. A conversation without messages is not kept. */
  touch() {
    if (this.current.turns.length) this.#saveSoon(this.current);
  }

  /** @param {string} text a new message of the user */
  send(text) {
    const { turns } = this.current;
    if (turns.at(-1)?.role === "assistant" && turns.at(-1).content === "") turns.pop();
    if (turns.length === 0) this.current.title = titleOf(text);
    turns.push({ role: "user", content: text, status: "done" });
    this.#answer();
  }

  /** @param {Turn} turn a message of the user; it and what followed is dropped @param {string} text in its place */
  edit(turn, text) {
    this.#truncate(turn);
    this.send(text);
  }

  /** @param {Turn} turn an answer; it and what followed is dropped */
  regenerate(turn) {
    this.#truncate(turn);
    this.#answer();
  }

  /** @param {Turn} turn the answer to go on with */
  resume(turn) {
    this.#truncate(turn);
    this.current.turns.push(turn);
    this.#receive(turn, true);
  }

  stop() {
    this.#live.get(this.current.id)?.abort.abort();
  }

  #truncate(turn) {
    this.stop();
    this.#live.delete(this.current.id);
    this.current.turns.splice(this.current.turns.indexOf(turn));
  }

  #answer() {
    const turn = /** @type {Turn} */ ({ role: "assistant", content: "", status: "streaming" });
    this.current.turns.push(turn);
    this.#receive(turn, false);
  }

  async #receive(turn, isContinued) {
    const conversation = this.current;
    const live = { conversation, turn, abort: new AbortController() };
    const body = requestBody(conversation.settings, conversation.turns, isContinued);
    const kept = isContinued ? { tokens: turn.metrics?.tokens } : {};
    Object.assign(turn, { status: "streaming", model: conversation.settings.model, problem: undefined, metrics: kept, receipt: undefined });
    this.#live.set(conversation.id, live);
    conversation.updated = Date.now();
    save(conversation);
    this.hooks.opened();
    await stream(this.api, body, turn, live.abort.signal, () => this.#grew(live));
    this.#ended(live);
  }

  #grew({ conversation, turn }) {
    if (this.#live.get(conversation.id)?.turn !== turn) return;
    this.#saveSoon(conversation);
    if (conversation === this.current) this.hooks.grew(turn);
  }

  /** A turn that was replaced or deleted while it ran ends without a trace. */
  #ended(live) {
    const { conversation, turn } = live;
    if (this.#live.get(conversation.id) !== live) return;
    this.#live.delete(conversation.id);
    this.#cancelSave(conversation.id);
    save(conversation);
    this.hooks.ended(turn, conversation === this.current);
  }

  #saveSoon(conversation) {
    if (this.#timers.has(conversation.id)) return;
    const timer = setTimeout(() => {
      this.#timers.delete(conversation.id);
      save(conversation);
    }, SAVE_MS);
    this.#timers.set(conversation.id, timer);
  }

  #cancelSave(id) {
    clearTimeout(this.#timers.get(id));
    this.#timers.delete(id);
  }
}

function titleOf(text) {
  const line = text.replace(/\s+/g, " ");
  return line.length > TITLE_CHARS ? `${line.slice(0, TITLE_CHARS - 1).trimEnd()}…` : line;
}
