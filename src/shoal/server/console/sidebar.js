/**
 * The list of conversations, with export and delete (which can be undone for a few seconds).
 * The open conversation is named by the address (#c=id), so reload, back and a second tab do what one expects.
 */

import { byId, downloadJson, el, iconButton } from "./dom.js";
import { list } from "./store.js";

const UNDO_MS = 8000;

export class Sidebar {
  #toastTimer = 0;

  /** @param {import("./session.js").Session} session */
  constructor(session) {
    this.session = session;
    byId("export-all").addEventListener("click", () => downloadJson("shoal-conversations.json", exported(list())));
  }

  show() {
    const current = this.session.current.id;
    const rows = list().map((conversation) => this.#row(conversation, conversation.id === current));
    byId("conversations").replaceChildren(...rows);
    byId("export-all").hidden = rows.length === 0;
  }

  #row(conversation, isOpen) {
    const { id, title } = conversation;
    const save = () => downloadJson(`shoal-${id}.json`, exported(list().filter((item) => item.id === id)));
    const open = el("a", { href: `#c=${id}`, "aria-current": isOpen ? "page" : undefined, text: title });
    return el("li", { class: isOpen ? "open" : undefined }, open,
      iconButton("download", `Export “${title}”`, save),
      iconButton("trash", `Delete “${title}”`, () => this.#delete(id)));
  }

  #delete(id) {
    const deleted = this.session.delete(id);
    if (!deleted) return;
    byId("new-chat").focus();
    this.#toast("Conversation deleted", "Undo", () => {
      this.session.restore(deleted);
      location.hash = `c=${id}`;
    });
  }

  #toast(text, action, act) {
    const toast = byId("toast");
    const hide = () => (toast.hidden = true);
    const button = el("button", { type: "button", class: "button", text: action, onclick: () => (hide(), act()) });
    toast.replaceChildren(el("span", { text }), button);
    toast.hidden = false;
    clearTimeout(this.#toastTimer);
    this.#toastTimer = setTimeout(hide, UNDO_MS);
  }
}

/** @returns {string | null} the conversation that the address names */
export function addressed() {
  return /^#c=([\w-]+)$/.exec(location.hash)?.[1] ?? null;
}

function exported(conversations) {
  return { format: "shoal-conversations", version: 1, exported: new Date().toISOString(), conversations };
}
