/** The API key: asked for when the server answers 401, kept for this tab, or for this browser if so wished. */

import { byId } from "./dom.js";
import { preference, setPreference } from "./store.js";

const NAME = "shoal.key";

export class KeyDialog {
  #key = "";

  /** @param {() => void} entered called when there is a new key to try */
  constructor(entered) {
    this.dialog = byId("key-dialog");
    this.input = byId("key");
    this.#key = tabKey() || preference("key");
    byId("key-cancel").addEventListener("click", () => this.dialog.close());
    byId("key-form").addEventListener("submit", () => {
      this.#keep(this.input.value.trim(), byId("key-remember").checked);
      entered();
    });
  }

  get key() {
    return this.#key;
  }

  /** A key that was already given has been refused, and the dialog says so. */
  ask() {
    if (this.dialog.open) return;
    byId("key-text").textContent = this.#key
      ? "The key this page has was not accepted. Paste another one."
      : "Paste the key its operator gave you. It is sent to this server only.";
    this.input.value = "";
    this.dialog.showModal();
  }

  /** The server answers after all. */
  dismiss() {
    this.dialog.close();
  }

  #keep(key, remember) {
    this.#key = key;
    setPreference("key", remember ? key : "");
    try {
      sessionStorage.setItem(NAME, key);
    } catch {
      // Storage is blocked: the key lives as long as this page.
    }
  }
}

function tabKey() {
  try {
    return sessionStorage.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}
